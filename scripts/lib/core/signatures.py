"""The arguments, defaults and outputs of models, optimizers and schedulers, by `inspect`.

The process that reads the config imports neither torch nor a model for that: torch takes seconds,
and a model's file can do anything. A child process does, once for all questions of a study. A
process that has imported torch anyway, such as a training, needs no child.

Answers are kept while the model's file, the files of the project that it imports, and the versions
of the packages are the same: in the user's cache folder, as `.snakemake` is another one in each
clone. A folder that cannot be written, such as some clusters' homes on a node, is only read.
"""

import importlib
import inspect
import json
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from lib.core import provenance, subprocesses
from lib.core.code_digests import SCRIPTS, combined_digest, files_of
from lib.core.errors import TemporaryError, UserError, errors_named
from lib.core.files import read_object, select, write_json

MODULES = {"optimizer": "torch.optim", "scheduler": "torch.optim.lr_scheduler"}
# Arguments of constructors that are not for the config to give.
GIVEN = {
    "model": {"input_shape", "image_size", "num_classes"},
    "optimizer": {"params"},
    "scheduler": {"optimizer", "last_epoch", "total_steps", "epochs", "steps_per_epoch"},
}
# Arguments that are not those of a class but ours, with their defaults.
OWN = {"scheduler": {"every": "epoch"}}
CHILD = "import sys; sys.path[:0] = sys.argv[1:]; from lib.core.signatures import answer; answer()"
TIMEOUT = 300.0  # seconds: on a slow file system, importing torch takes some minutes
MOST_KEPT = 300  # answers

Question = tuple[str, str]  # a module, and the name of a class or function in it
_known: dict[Question, dict | str] = {}  # the fields of a signature, or why there is none


@dataclass(frozen=True)
class Signature:
    """What a constructor takes, or a function that returns a model."""

    names: list  # of its arguments
    required: list  # those without a default
    defaults: dict  # those that a config can have, tuples as lists
    open_ended: bool  # it takes **keywords
    output: object  # the default of its argument `output`, or the class's attribute


def signature(module: str, name: str) -> Signature:
    """Return the signature of a class or function.

    Raises:
        UserError: it cannot be imported; the message names the line of a model's file.
    """
    learn([(module, name)])
    found = _described(module, name) if "torch" in sys.modules else _known[module, name]
    if isinstance(found, str):
        raise UserError(found)
    return Signature(**found)


def learn(questions: Iterable[Question]) -> None:
    """Ask for many signatures at once: this starts one process, or none.

    Raises:
        UserError: that process did not survive an import, or a model's file cannot be parsed.
    """
    new = sorted(set(questions) - _known.keys())
    if not new or "torch" in sys.modules:
        return
    home = os.environ.get("HOME", os.devnull)
    folder = os.environ.get("XDG_CACHE_HOME") or f"{home}/.cache"
    path = Path(folder, "slurm-classifiers", "signatures.json")
    keys = {each: f"{':'.join(each)} {_state(each[0])}" for each in new}
    kept = (read_object(path, {"signatures": dict}) or {}).get("signatures", {})
    known = {each: select(kept.get(keys[each]), Signature.__annotations__) for each in new}
    missing = [each for each in new if not known[each]]
    if missing:
        known |= zip(missing, _ask(missing), strict=True)
        kept |= {keys[each]: known[each] for each in missing if not isinstance(known[each], str)}
        with suppress(TemporaryError):
            write_json(path, {"signatures": dict(list(kept.items())[-MOST_KEPT:])})
    _known.update(known)


def with_defaults(kind: str, component: dict[str, Any]) -> dict[str, Any]:
    """Return a component with the defaults of its class's constructor filled in.

    So a default that is left out and one that is written out compare equal. A component whose
    class is not found is returned as it is.

    Args:
        kind: `model`, `optimizer` or `scheduler`.
        component: its `name`, and the arguments of its class.
    """
    name = str(component.get("name"))
    try:
        defaults = signature(MODULES.get(kind, f"models.{name.lower()}"), name).defaults
    except UserError:
        return component
    own = OWN.get(kind, {})
    return {key: each for key, each in defaults.items() if key not in GIVEN[kind]} | own | component


def answer() -> None:
    """Answer the questions on standard input, each with a line of JSON, and end the process."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a model prints is no answer
    for question in json.load(sys.stdin):
        print(json.dumps(_described(*question)), file=answers, flush=True)
    os._exit(0)  # not waiting for what a model has left running


def _ask(questions: list[Question]) -> list[dict | str]:
    """Let a child process answer."""
    command = [sys.executable, "-P", "-c", CHILD, SCRIPTS]
    done = subprocesses.run(command, timeout=TIMEOUT, stdin=json.dumps(questions))
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if len(answers) < len(questions):
        why = replace(done, stdout="").message.splitlines()[-1]
        raise UserError(f"{questions[len(answers)][0]} cannot be imported: {why}")
    return answers


def _described(module: str, name: str) -> dict | str:
    """Return the fields of a signature, or why there is none."""
    try:
        with errors_named(name):
            found = getattr(importlib.import_module(module), name)
            parameters = inspect.signature(found).parameters.values()
    except UserError as error:
        return str(error)
    named = [
        each for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]
    values = {each.name: each.default for each in named} | {"": getattr(found, "output", None)}
    literals = {}
    for key, value in values.items():
        with suppress(TypeError, ValueError, RecursionError):  # no config can have it
            literals[key] = json.loads(json.dumps(value, allow_nan=False))
    attribute = literals.pop("", None)
    return {
        "names": [each.name for each in named],
        "required": [each.name for each in named if each.default is each.empty],
        "defaults": literals,
        "open_ended": any(each.kind is each.VAR_KEYWORD for each in parameters),
        "output": literals.get("output") or attribute,
    }


@cache
def _state(module: str) -> str:
    """Return what an answer depends on: the digest of the files, and the packages' versions."""
    package, _, name = module.partition(".")
    model = [SCRIPTS / package / f"{name}.py"] if package == "models" else []
    digest = combined_digest(files_of(Path(__file__), *model))
    return " ".join([digest, *map(str, provenance.versions().values())])
