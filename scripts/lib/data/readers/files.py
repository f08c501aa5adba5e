"""The four IDX files of MNIST and its kin, which `download.py` has found or downloaded."""

from pathlib import Path

import numpy as np

from lib.core.errors import UserError
from lib.core.files import sha256
from lib.data.readers import Item

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


class Reader:
    """Reads the files that `download.py` has listed, by their digests. Images have no names."""

    lists = False

    def __init__(self, entry: dict, files: dict[str, dict]):
        self.watched, self.notes = {}, []
        arrays = {role: read_idx(check(files[role]), role, entry) for role in ROLES}
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


def check(file: dict) -> Path:
    """Return the path of a raw file.

    Raises:
        UserError: it is missing, or not the one that was listed.
    """
    path = Path(file["path"])
    again = f"remove {file['listing']} and run again: that downloads what is missing or damaged"
    if not path.is_file():
        raise UserError(f"{path} is missing; {again}")
    if sha256(path) != file["sha256"]:
        raise UserError(f"{path} has changed since it was downloaded; {again}")
    return path


def read_idx(path: Path, role: str, entry: dict) -> np.ndarray:
    """Read one IDX file: images uint8 [N, height, width], or labels uint8 [N].

    The format: http://yann.lecun.com/exdb/mnist, two zero bytes, the type of the values (8: bytes),
    the number of dimensions, and each of them as four bytes, the highest first.

    Raises:
        UserError: its shape, its number of items or its labels are not those of the entry.
    """
    split, _, kind = role.partition("_")
    count, dimensions = entry[f"{split}_size"], 3 if kind == "images" else 1
    content = path.read_bytes()
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) < 4 + 4 * dimensions:
        raise UserError(f"{path} is not an IDX file of {kind}")
    shape = np.frombuffer(content, ">u4", dimensions, 4).tolist()
    expected = [count, *entry["image_size"]] if kind == "images" else [count]
    if shape != expected:
        raise UserError(f"{path} holds {kind} of shape {shape}, expected {expected}")
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
    if len(values) != np.prod(shape):
        raise UserError(f"{path} is not an IDX file of {kind}: it has {len(values):,} values")
    classes = len(entry["classes"])
    if kind == "labels" and values.max() >= classes:
        raise UserError(
            f"{path} has labels from {values.min()} to {values.max()}, but there are {classes} "
            f"classes: 0 to {classes - 1}"
        )
    return values.reshape(shape)
