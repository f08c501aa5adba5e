"""The four IDX files of MNIST and its kin, which `download.py` has found or downloaded."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lib.core.errors import UserError
from lib.data.readers import Item, downloaded

ROLES = ("train_images", "train_labels", "test_images", "test_labels")
REQUIRED = ("files", "image_size", "train_size", "test_size", "classes")
COUNT = {"type": "integer", "minimum": 1}
DIGEST = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name"],
    "oneOf": [{"required": ["sha256"]}, {"required": ["archive_md5"]}],
    "properties": {
        "name": {"type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.-]*\\Z"},
        "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}\\Z"},
        "archive_md5": {"type": "string", "pattern": "^[0-9a-f]{32}\\Z"},
    },
}
SCHEMA = {
    "classes": {
        "description": "the name of each class in the order of its label",
        "type": "array",
        "minItems": 2,
        "uniqueItems": True,
        "items": {"$ref": "#/$defs/class"},
    },
    "files": {
        "type": "object",
        "additionalProperties": False,
        "required": list(ROLES),
        "properties": dict.fromkeys(ROLES, DIGEST),
    },
    "train_size": COUNT,
    "test_size": COUNT,
    # The class in torchvision.datasets whose mirrors are tried.
    "torchvision": {"type": "string", "pattern": "^[A-Za-z0-9]+\\Z"},
    # No path: npm would run the scripts of a package in a local folder.
    "npm": {
        "type": "string",
        "pattern": "^(@[a-z0-9][a-z0-9._-]*/)?[a-z0-9][a-z0-9._-]*@[0-9.]+\\Z",
    },
}


def facts(entry: dict) -> dict:
    """Return what is known of data that may be not downloaded yet: see `Facts`."""
    return {
        "classes": entry["classes"],
        "train_size": entry["train_size"],
        "test_size": entry["test_size"],
        "input_shape": [entry.get("channels", 1), *entry["image_size"]],
    }


def downloads(entry: dict) -> dict[str, dict]:
    """Return what is known of each file, by its role, and the bytes that it must have.

    An IDX file has a header of four bytes and four per dimension, then one byte per value.
    """
    height, width = entry["image_size"]
    found = {}
    for role, file in entry["files"].items():
        split, _, kind = role.partition("_")
        count = entry[f"{split}_size"]
        size = 16 + count * height * width if kind == "images" else 8 + count
        found[role] = file | {"size": size}
    return found


def mirrors(entry: dict) -> Iterator[str]:
    """Yield where they are on the web: what torchvision tries."""
    if "torchvision" in entry:
        # Imported when it comes to that: it takes seconds.
        import torchvision.datasets

        yield from getattr(torchvision.datasets, entry["torchvision"]).mirrors


class Reader:
    """Reads the files that `download.py` has listed, by their digests. Images have no names."""

    lists = False

    def __init__(self, entry: dict, files: dict[str, dict]):
        self.watched, self.notes = {}, []
        arrays = {role: read_idx(downloaded(files[role]), role, entry) for role in ROLES}
        self.images = {split: arrays[f"{split}_images"] for split in ("train", "test")}
        self.items = [
            Item("", entry["classes"][label], split, None, (split, index))
            for split in self.images
            for index, label in enumerate(arrays[f"{split}_labels"].tolist())
        ]

    def read(self, item: Item) -> np.ndarray:
        """Return the pixels of an image."""
        split, index = item.source
        return self.images[split][index]


def read_idx(path: Path, role: str, entry: dict) -> np.ndarray:
    """Read one IDX file: images uint8 [N, height, width], or labels uint8 [N].

    The format: http://yann.lecun.com/exdb/mnist, two zero bytes, the type of the values (8: bytes),
    the number of dimensions, and each of them as four bytes, the highest first.

    Raises:
        UserError: its shape, its number of items or its labels are not those of the entry.
    """
    split, _, kind = role.partition("_")
    count, dimensions = entry[f"{split}_size"], 3 if kind == "images" else 1
    try:
        values = idx_array(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} is not an IDX file of {kind}: {error}") from error
    if values.ndim != dimensions:
        raise UserError(f"{path} is not an IDX file of {kind}")
    shape = list(values.shape)
    expected = [count, *entry["image_size"]] if kind == "images" else [count]
    if shape != expected:
        raise UserError(f"{path} holds {kind} of shape {shape}, expected {expected}")
    classes = len(entry["classes"])
    if kind == "labels" and values.max() >= classes:
        raise UserError(
            f"{path} has labels from {values.min()} to {values.max()}, but there are {classes} "
            f"classes: 0 to {classes - 1}"
        )
    return values


def idx_array(content: bytes) -> np.ndarray:
    """Return the array of an IDX file of bytes, uint8.

    Raises:
        ValueError: it is none.
    """
    if content[:3] != bytes([0, 0, 8]) or len(content) < 4 or len(content) < 4 + 4 * content[3]:
        raise ValueError("it has another header")
    shape = np.frombuffer(content, ">u4", content[3], 4).tolist()
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * content[3])
    if len(values) != math.prod(shape):
        raise ValueError(f"it has {len(values):,} values")
    return values.reshape(shape)
