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
    OPTIMIZERS,
    SCHEDULERS,
    SCHEMAS,
    Settings,
    help_text,
    loss_output_mismatch,
)
from lib.core.signatures import GIVEN, MODULES, Signature, signature
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
        "optimizer.lr=0.1; with its name, such as optimizer.name=SGD, an optimizer, scheduler or "
        "model is replaced as a whole (default: none)",
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
        changes = isinstance(before, dict) and "name" not in given
        settings[component] = before | given if changes else given
    return settings


def problems(settings: Settings) -> list[str]:
    """Return what is wrong with settings that no schema can see: names and arguments."""
    found = model_problems(settings.model)
    if not found:
        mismatch = loss_output_mismatch(settings.loss, models.output_of(settings.model))
        found += [f"model {settings.model['name']}: {mismatch}"] if mismatch else []
    found += torch_problems("optimizer", settings.optimizer)
    if settings.scheduler:
        found += torch_problems("scheduler", settings.scheduler)
    size = settings.validation_size
    if size >= 1 and not isinstance(size, int):
        found.append(f"validation_size: {size} is neither a whole number nor a share below 1")
    return found


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
    valid = [name for name in constructor.names if name not in given]
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
