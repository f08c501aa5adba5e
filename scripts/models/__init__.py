"""The models: one file each, found by name.

A model `Name` is the class `Name` in `name.py` of this folder, a `torch.nn.Module` whose
constructor takes `image_size` ([height, width] in pixels), `num_classes` and whatever the config's
`model` mapping gives. What it returns for images [N, 1, height, width] is [N, classes]; its
`output`, an argument or a class attribute, says what that is: `log_softmax`, `softmax` or `logits`.
"""

import importlib
import inspect
import itertools
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lib.core.errors import UserError
from lib.core.signatures import class_attribute, classes, signature
from lib.core.spelling import nearest

FOLDER = Path(__file__).parent
OUTPUTS = ("log_softmax", "softmax", "logits")


def available() -> dict[str, Path]:
    """Return the models' names and files, without importing any of them.

    A file that cannot be parsed, such as one that an editor is writing, is left out.
    """
    found = {}
    for path in sorted(FOLDER.glob("[!.]*.py")):
        with suppress(UserError):
            found |= {name: path for name in classes(path) if name.lower() == path.stem}
    return found


def file_of(name: str) -> Path:
    """Return the file of a model, looking at no other file.

    Raises:
        UserError: there is no such model, or its file cannot be parsed; the message names the file
            and the line.
    """
    path = FOLDER / f"{name.lower()}.py"
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name) or not path.is_file():
        other = [each.name for each in FOLDER.glob("*.py") if each.name.lower() == path.name]
        hint = f": rename {other[0]} to {path.name}" if other else nearest(name, list(available()))
        raise UserError(f"model: there is no {name!r} in scripts/models{hint}")
    if name not in classes(path):
        raise UserError(
            f"model: there is no {name!r} in scripts/models: {path.name} defines no class of that "
            f"name{nearest(name, list(available()))}"
        )
    return path


def output_of(model: dict) -> str | None:
    """Return what a model returns, one of `OUTPUTS`, or None where it does not say.

    Raises:
        UserError: there is no such model, or what it says is none of `OUTPUTS`.
    """
    name = model["name"]
    path = file_of(name)
    default = signature(path, name).defaults.get("output")
    output = model.get("output") or default or class_attribute(path, name, "output")
    if output is not None and output not in OUTPUTS:
        raise UserError(
            f"model: the output {output!r} of {name} is not known{nearest(output, list(OUTPUTS))}"
        )
    return output


def find(name: str) -> type:
    """Import and return the model class of that name.

    Raises:
        UserError: there is none, or its file cannot be imported.
    """
    file_of(name)
    with errors_named(name):
        return getattr(importlib.import_module(f"models.{name.lower()}"), name)


def build(model: dict, image_size: tuple[int, int], num_classes: int):
    """Return a new `torch.nn.Module`, its weights drawn from torch's global generator.

    Args:
        model: its `name` and the arguments of its constructor.
        image_size: height and width of the images in pixels.
        num_classes: the number of classes.

    Raises:
        UserError: there is no such model, an argument does not fit it, or it cannot be made.
    """
    name = model["name"]
    model_class = find(name)
    arguments = {key: value for key, value in model.items() if key != "name"}
    with errors_named(f"{name} with {arguments}" if arguments else name):
        inspect.signature(model_class).bind(image_size, num_classes, **arguments)
        return initialized(model_class(image_size, num_classes, **arguments), image_size)


def initialized(model, image_size: tuple[int, int]):
    """Return the model with its lazy layers initialized, by the shapes of two black images.

    Raises:
        ValueError: it is no `torch.nn.Module`, or a lazy layer is not reached.
    """
    import torch  # the Snakefile imports this file, and needs no torch
    from torch.nn.parameter import is_lazy

    if not isinstance(model, torch.nn.Module):
        raise ValueError("it is not a torch.nn.Module")

    def lazy():
        tensors = itertools.chain(model.named_parameters(), model.named_buffers())
        return [name for name, tensor in tensors if is_lazy(tensor)]

    if lazy():
        model.eval()  # no statistics of a layer count the black images
        with torch.no_grad():
            model(torch.zeros(2, 1, *image_size))
        model.train()
    if lazy():
        raise ValueError(f"forward does not reach its lazy parameters {', '.join(lazy())}")
    return model


@contextmanager
def errors_named(name: str) -> Iterator[None]:
    """Turn an exception inside the block into a `UserError` that names a model and its line.

    Args:
        name: of the model, and whatever else the message should say of it.

    Raises:
        UserError: instead of any exception; the message has the name, the line in `scripts/models`
            that was running, and what the exception says.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"model {name}: {_line_of(error)}{_said(error)}") from error


def _line_of(error: Exception) -> str:
    """Return `FILE, line N: ` of the last line of a model's code that an exception came through."""
    lines = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        lines.append((error.filename, error.lineno))
    for file, number in reversed(lines):
        if Path(file).is_relative_to(FOLDER) and Path(file) != Path(__file__):
            return f"{file}, line {number}: "
    return ""


def _said(error: Exception) -> str:
    """Return what an exception says; with its type, unless it was raised to be read."""
    if isinstance(error, ValueError):
        return str(error)
    return f"{type(error).__name__}: {error}"
