"""The models: one file each, found by name.

A model `Name` is the class `Name` in `name.py` of this folder, a `torch.nn.Module` whose
constructor takes `image_size` ([height, width] in pixels), `num_classes` and whatever the config's
`model` mapping gives. What it returns for images [N, 1, height, width] is [N, classes]; its
`output`, an argument or a class attribute, says what that is: `log_softmax`, `softmax` or `logits`.
"""

import importlib
import inspect
from pathlib import Path

from lib.core.errors import UserError
from lib.core.signatures import class_attribute, classes, signature

FOLDER = Path(__file__).parent


def available() -> dict[str, Path]:
    """Return the models' names and files, without importing any of them."""
    return {
        name: path
        for path in sorted(FOLDER.glob("*.py"))
        for name in classes(path)
        if name.lower() == path.stem
    }


def output_of(model: dict) -> str | None:
    """Return what a model of `available()` returns, or None where it does not say."""
    path = available()[model["name"]]
    default = signature(path, model["name"]).defaults.get("output")
    return model.get("output") or default or class_attribute(path, model["name"], "output")


def find(name: str) -> type:
    """Import and return the model class of that name.

    Raises:
        UserError: there is none; the message lists those that there are.
    """
    if name not in available():
        raise UserError(f"no model {name!r} in scripts/models; there are: {', '.join(available())}")
    return getattr(importlib.import_module(f"models.{name.lower()}"), name)


def build(model: dict, image_size: tuple[int, int], num_classes: int):
    """Return a new `torch.nn.Module`, its weights drawn from torch's global generator.

    Args:
        model: its `name` and the arguments of its constructor.
        image_size: height and width of the images in pixels.
        num_classes: the number of classes.

    Raises:
        UserError: there is no such model, or an argument does not fit it.
    """
    name = model["name"]
    model_class = find(name)
    arguments = {key: value for key, value in model.items() if key != "name"}
    try:
        inspect.signature(model_class).bind(image_size, num_classes, **arguments)
        return model_class(image_size, num_classes, **arguments)
    except (TypeError, ValueError, KeyError) as error:
        raise UserError(f"model {name} with {arguments}: {error}") from error
