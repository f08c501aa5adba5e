"""Arrays of numpy: one `.npz` file, or `.npy` files: `x_train`, `y_train`, `x_test`, `y_test`.

`x_val` and `y_val` may be there, too.
"""

from pathlib import Path
from typing import BinaryIO

import numpy as np

from lib.core.errors import UserError
from lib.data.readers import SPLITS, Item, existing, times_of

SPLIT_NAMES = ("train", "val", "test")
# As the arrays are called here, and as in the files of MedMNIST.
NAMES = {
    f"{kind}_{split}": (kind, split) for kind in ("x", "y") for split in SPLIT_NAMES
} | {
    f"{split}_{name}": (kind, split)
    for kind, name in (("x", "images"), ("y", "labels"))
    for split in SPLIT_NAMES
}  # fmt: skip
FILE = {"type": "string", "minLength": 1}
SCHEMA = {
    "arrays": {
        "oneOf": [
            FILE,
            {
                "type": "object",
                "additionalProperties": False,
                "minProperties": 2,
                "properties": dict.fromkeys(NAMES, FILE),
            },
        ]
    }
}


class Reader:
    """Reads images and labels of arrays. Without a test set, `test_share` makes one."""

    lists = False

    def __init__(self, entry: dict, files: dict):
        self.watched, self.notes, self.items, self.images = {}, [], [], {}
        arrays = self.load(entry["arrays"])
        found = {NAMES[name]: name for name in arrays}
        if not found:
            raise UserError(f"arrays: there is none of {', '.join(NAMES)}")
        splits = [each for each in SPLIT_NAMES if {("x", each), ("y", each)} & found.keys()]
        for split in splits:
            for kind in ("x", "y"):
                if (kind, split) not in found:
                    raise UserError(f"arrays: there is no {kind}_{split}, only {', '.join(arrays)}")
            names = (found["x", split], found["y", split])
            where = None if splits == ["train"] else SPLITS[split]
            self.add(where, names, *(arrays[name] for name in names))

    def load(self, source: str | dict[str, str]) -> dict[str, np.ndarray]:
        """Return the arrays by their names; those of files of their own stay on the disk.

        Raises:
            UserError: a file is none of arrays, or one of pickled objects, which can run code.
        """
        if isinstance(source, str):
            path = existing(source, "arrays")
            self.watched |= times_of(path)
            with path.open("rb") as file:
                archive = opened(file, path)
                if isinstance(archive, np.ndarray):
                    raise UserError(f"arrays: {path} holds one array: name x_train, y_train, ...")
                others = [name for name in archive.files if name not in NAMES]
                if others:
                    self.notes.append(f"arrays that are not used: {', '.join(others[:10])}")
                used = [name for name in archive.files if name in NAMES]
                return {name: member(archive, name, path) for name in used}
        paths = {name: existing(each, f"arrays.{name}") for name, each in source.items()}
        self.watched |= times_of(*paths.values())
        arrays = {name: opened(path, path, mmap_mode="r") for name, path in paths.items()}
        for name, each in arrays.items():
            if not isinstance(each, np.ndarray):
                raise UserError(f"arrays.{name}: {paths[name]} holds several arrays: name it alone")
        return arrays

    def add(
        self, split: str | None, names: tuple[str, str], images: np.ndarray, labels: np.ndarray
    ) -> None:
        """Add the images of a split.

        Raises:
            UserError: an array has another shape, or a label is missing.
        """
        name, of_labels = names
        self.images[name] = channels_last(images, name)
        shape = labels.shape
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.shape != (len(images),):
            raise UserError(f"arrays: {of_labels} is {list(shape)}, for {len(images)} images")
        for index, label in enumerate(labels.tolist()):
            text = label.decode(errors="replace") if isinstance(label, bytes) else str(label)
            if text in ("", "nan"):
                raise UserError(f"arrays: {of_labels}[{index}] is no label")
            self.items.append(Item(f"{name}[{index}]", text, split, None, (name, index)))

    def read(self, item: Item) -> np.ndarray:
        """Return the pixels of an image."""
        name, index = item.source
        return self.images[name][index]


def opened(file: Path | BinaryIO, path: Path, **options):
    """Return what a file of numpy holds; `path` names it.

    Raises:
        UserError: it cannot be read, or would have to be unpickled.
    """
    try:
        return np.load(file, allow_pickle=False, **options)
    except Exception as error:  # of nearly any type where a file is damaged
        raise UserError(f"arrays: cannot read {path}: {error}") from error


def member(archive, name: str, path: Path) -> np.ndarray:
    """Return an array of a `.npz` file.

    Raises:
        UserError: it is damaged, or would have to be unpickled.
    """
    try:
        return archive[name]
    except Exception as error:
        raise UserError(f"arrays: cannot read {name} in {path}: {error}") from error


def channels_last(images: np.ndarray, name: str) -> np.ndarray:
    """Return images [N, height, width] or [N, height, width, 1 or 3].

    Raises:
        UserError: they have another shape.
    """
    if images.dtype.kind not in "buif":
        raise UserError(f"arrays: {name} is of {images.dtype}, which are no pixels")
    if images.ndim == 4 and images.shape[3] not in (1, 3) and images.shape[1] in (1, 3):
        images = np.moveaxis(images, 1, 3)
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)):
        raise UserError(
            f"arrays: {name} is {list(images.shape)}, not [N, height, width], or that with 1 or 3 "
            "channels"
        )
    return images
