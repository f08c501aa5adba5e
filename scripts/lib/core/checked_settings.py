"""Settings that are checked: those of the command line here, those of the config by the same rules.

What a value may be is in the schemas of `lib/core/settings.py`, and what fits a class in its
signature.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

import models
from lib.core import strict_yaml
from lib.core.errors import UserError
from lib.core.settings import (
    LOSS_ARGUMENTS,
    LOSSES,
    OPTIMIZERS,
    SCHEDULERS,
    SCHEMAS,
    Settings,
    help_text,
    loss_of,
    loss_output_mismatch,
)
from lib.core.signatures import GIVEN, MODULES, OWN, Signature, signature
from lib.core.spelling import nearest

SCHEMA = {"type": "object", "additionalProperties": False, "properties": SCHEMAS}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that give settings."""
    parser.epilog = help_text()
    parser.add_argument(
        "--settings",
        type=Path,
        metavar="FILE",
        help="a mapping of settings in YAML or JSON (default: none)",
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="settings over those of the file, the values in YAML, such as epochs=5 "
        "optimizer.lr=0.1; with its name, such as optimizer.name=SGD, an optimizer, scheduler, "
        "loss or model is replaced as a whole (default: none)",
    )


def from_arguments(args: argparse.Namespace) -> Settings:
    """Return the settings of the options of `add_arguments`, with the defaults for all others.

    Raises:
        UserError: something is wrong with them; one line for each thing, naming the key.
    """
    where, given = "--set", {}
    if args.settings:
        where, given = f"{args.settings} and --set", strict_yaml.load(args.settings)
        if not isinstance(given, dict):
            raise UserError(f"{args.settings}: settings are a mapping, not {given!r}")
    given = assigned(Settings().as_dict() | given, args.set)
    strict_yaml.check(given, SCHEMA, where)
    settings = Settings(**given)
    found = problems(settings)
    if found:
        raise UserError("\n".join(f"{where}: {problem}" for problem in found))
    return settings


def assigned(settings: dict[str, Any], words: list[str]) -> dict[str, Any]:
    """Return settings with those of `KEY=VALUE` words.

    The name of a component replaces the whole: the arguments of Adadelta mean nothing to SGD.

    Raises:
        UserError: a word is no `KEY=VALUE`, or its value is not YAML.
    """
    settings, arguments = dict(settings), defaultdict(dict)
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise UserError(f"--set: {word!r} is not KEY=VALUE")
        value = strict_yaml.read(text, f"--set {key}")
        strict_yaml.check_plain(value, f"--set {key}")
        component, dot, argument = key.partition(".")
        if dot:
            arguments[component][argument] = value
        else:
            settings[key] = value
    for component, given in arguments.items():
        before = settings.get(component)
        before = {"name": before} if component == "loss" and isinstance(before, str) else before
        changes = isinstance(before, dict) and "name" not in given
        settings[component] = before | given if changes else given
    return settings


def problems(settings: Settings) -> list[str]:
    """Return what is wrong with settings that no schema can see: names and arguments."""
    found, wrong = model_problems(settings.model), loss_problems(settings.loss)
    if not found and not wrong:
        name, output = loss_of(settings.loss)["name"], models.output_of(settings.model)
        mismatch = loss_output_mismatch(name, output)
        found += [f"model {settings.model['name']}: {mismatch}"] if mismatch else []
    found += wrong
    found += torch_problems("optimizer", settings.optimizer)
    if settings.scheduler:
        found += torch_problems("scheduler", settings.scheduler)
    return found + recipe_problems(settings)


def recipe_problems(settings: Settings) -> list[str]:
    """Return which settings do not go together."""
    found, size = [], settings.validation_size
    if size >= 1 and not isinstance(size, int):
        found.append(f"validation_size: {size} is neither a whole number nor a share below 1")
    if settings.keep == "best" and not size:
        found.append(
            "keep: the best epoch is found on images that are held out of the training set, since "
            "the test set is for the one that is kept: set validation_size"
        )
    if settings.patience and settings.keep != "best":
        found.append("patience: it waits for a better epoch, which is then kept: set keep: best")
    if settings.warmup_epochs >= settings.epochs:
        found.append(
            f"warmup_epochs: {settings.warmup_epochs} of {settings.epochs} epochs leave none for "
            "the learning rate itself"
        )
    if settings.warmup_epochs and (settings.scheduler or {}).get("name") == "OneCycleLR":
        found.append("warmup_epochs: OneCycleLR has a warmup of its own, pct_start")
    return found


def loss_problems(loss: str | dict) -> list[str]:
    """Return what is wrong with a loss that no schema can see: its name, its arguments."""
    given = loss_of(loss)
    name = given["name"]
    if name not in LOSSES:
        return [f"loss: {name!r} is not known{nearest(name, LOSSES)}"]
    valid = list(LOSS_ARGUMENTS.get(name, {}))
    problems = [
        f"loss: {name} has no argument {key!r}{nearest(key, valid) if valid else ': it takes none'}"
        for key in given
        if key not in ("name", *valid)
    ]
    weight = given.get("weight")
    if isinstance(weight, str) and weight != "balanced":
        problems.append(f"loss.weight: {weight!r} is neither balanced nor a list of numbers")
    return problems


def model_problems(model: dict) -> list[str]:
    """Return what is wrong with a `model` mapping."""
    try:
        constructor = signature(models.module_of(model["name"]), model["name"])
        output = models.output_of(model)
    except UserError as error:
        return [str(error)]
    problems = argument_problems("model", model, constructor)
    if output is None:
        problems.append(
            f"model: {model['name']} does not say what it returns: give it an argument or a "
            "class attribute `output` of log_softmax, softmax or logits"
        )
    return problems


def torch_problems(kind: str, mapping: dict) -> list[str]:
    """Return what is wrong with an `optimizer` or `scheduler` mapping."""
    name = mapping["name"]
    valid = OPTIMIZERS if kind == "optimizer" else SCHEDULERS
    if name not in valid:
        return [f"{kind}: {name!r} is not known{nearest(name, valid)}"]
    return argument_problems(kind, mapping, signature(MODULES[kind], name))


def argument_problems(kind: str, mapping: dict, constructor: Signature) -> list[str]:
    """Return what is wrong with the arguments of a `model`, `optimizer` or `scheduler` mapping."""
    if constructor.open_ended:
        return []
    given = GIVEN[kind]
    valid = [name for name in (*constructor.names, *OWN.get(kind, {})) if name not in given]
    arguments = [key for key in mapping if key != "name"]
    problems = [
        f"{kind}: {mapping['name']} has no argument {key!r}{nearest(key, valid)}"
        for key in arguments
        if key not in valid
    ]
    missing = sorted(set(constructor.required) - set(arguments) - given)
    if missing:
        problems.append(f"{kind}: {mapping['name']} needs {', '.join(missing)}")
    return problems
