"""The models: one file each, found by name.

A model `Name` is the class `Name` in `name.py` of this folder, a `torch.nn.Module` whose
constructor takes `input_shape` ([channels, height, width]), `num_classes` and whatever the config's
`model` mapping gives. What it returns for images [N, channels, height, width] is [N, classes]; its
`output`, an argument or a class attribute, says what that is: `log_softmax`, `softmax` or `logits`.
"""

import ast
import importlib
import inspect
import itertools
from contextlib import suppress
from pathlib import Path

from lib.core.code_digests import parse
from lib.core.errors import UserError, errors_named
from lib.core.signatures import signature
from lib.core.spelling import nearest

FOLDER = Path(__file__).parent
OUTPUTS = ("log_softmax", "softmax", "logits")


def available() -> list[str]:
    """Return the models' names, without importing any of them.

    A file that cannot be parsed, such as one that an editor is writing, is left out.
    """
    found = []
    for path in sorted(FOLDER.glob("[!.]*.py")):
        with suppress(UserError):
            found += [name for name in _classes(path) if name.lower() == path.stem]
    return found


def _classes(path: Path) -> list[str]:
    """Return the names of the classes that a file defines at its top level."""
    return [node.name for node in parse(path).body if isinstance(node, ast.ClassDef)]


def file_of(name: str) -> Path:
    """Return the file of a model, looking at no other file.

    Raises:
        UserError: there is no such model, or its file cannot be parsed; the message names the file
            and the line.
    """
    path = FOLDER / f"{name.lower()}.py"
    found = name.isidentifier() and path.is_file()
    if found and name in _classes(path):
        return path
    hint = f": {path.name} defines no class of that name" if found else ""
    files = [each.name for each in FOLDER.glob("*.py")]
    other = [file for file in files if file.lower() == path.name != file]
    hint += f": rename {other[0]} to {path.name}" if other else nearest(name, available())
    raise UserError(f"model: there is no {name!r} in scripts/models{hint}")


def module_of(name: str) -> str:
    """Return the name of a model's module, or raise the error of `file_of`."""
    return f"models.{file_of(name).stem}"


def output_of(model: dict) -> str | None:
    """Return what a model returns, one of `OUTPUTS`, or None where it does not say.

    Raises:
        UserError: there is no such model, it cannot be imported, or what it says is none of
            `OUTPUTS`.
    """
    name = model["name"]
    output = model.get("output") or signature(module_of(name), name).output
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
    module = module_of(name)
    with errors_named(name):
        return getattr(importlib.import_module(module), name)


def build(model: dict, input_shape: tuple[int, int, int], num_classes: int):
    """Return a new `torch.nn.Module`, its weights drawn from torch's global generator.

    Args:
        model: its `name` and the arguments of its constructor.
        input_shape: channels, height and width of the images.
        num_classes: the number of classes.

    Raises:
        UserError: there is no such model, an argument does not fit it, or it cannot be made.
    """
    name = model["name"]
    model_class = find(name)
    arguments = {key: value for key, value in model.items() if key != "name"}
    with errors_named(f"{name} with {arguments}" if arguments else name):
        constructor = inspect.signature(model_class)
        shape = shape_for(constructor, input_shape)
        constructor.bind(shape, num_classes, **arguments)
        return initialized(model_class(shape, num_classes, **arguments), input_shape)


def shape_for(constructor: inspect.Signature, input_shape: tuple[int, int, int]) -> tuple[int, ...]:
    """Return what a constructor takes of a shape: before there were channels, it took the size.

    Raises:
        ValueError: it takes the size, and the images have more than one channel.
    """
    if "image_size" not in constructor.parameters:
        return tuple(input_shape)
    channels, *image_size = input_shape
    if channels != 1:
        raise ValueError(
            f"the images have {channels} channels, and its constructor takes image_size, which is "
            "for one. Let it take input_shape instead: (channels, height, width)"
        )
    return tuple(image_size)


def initialized(model, input_shape: tuple[int, int, int]):
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
            model(torch.zeros(2, *input_shape))
        model.train()
    if lazy():
        raise ValueError(f"forward does not reach its lazy parameters {', '.join(lazy())}")
    return model
