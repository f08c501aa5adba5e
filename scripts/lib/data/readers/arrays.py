"""Arrays of numpy: one `.npz` file, or `.npy` files: `x_train`, `y_train`, `x_test`, `y_test`."""

from pathlib import Path

import numpy as np

from lib.core.errors import UserError
from lib.data.readers import Item, existing

NAMES = ("x_train", "y_train", "x_test", "y_test")
FILE = {"type": "string", "minLength": 1}
SCHEMA = {
    "arrays": {
        "oneOf": [
            FILE,
            {
                "type": "object",
                "additionalProperties": False,
                "required": list(NAMES[:2]),
                "properties": dict.fromkeys(NAMES, FILE),
            },
        ]
    }
}


class Reader:
    """Reads images and labels of arrays. Without a test set, `test_share` makes one."""

    def __init__(self, entry: dict, files: dict):
        self.watched, self.notes, self.items = [], [], []
        arrays = self.load(entry["arrays"])
        self.images = {}
        for split in ("train", "test"):
            if f"x_{split}" in arrays or f"y_{split}" in arrays:
                self.add(split, arrays, is_alone="x_test" not in arrays)

    def load(self, source: str | dict[str, str]) -> dict[str, np.ndarray]:
        """Return the arrays by their names; those of files of their own stay on the disk.

        Raises:
            UserError: a file is none of arrays, or one of pickled objects, which can run code.
        """
        if isinstance(source, str):
            path = existing(source, "arrays")
            self.watched.append(path)
            with opened(path) as archive:
                if not hasattr(archive, "files"):
                    raise UserError(f"arrays: {path} holds one array, not {', '.join(NAMES)}")
                return {
                    name: member(archive, name, path) for name in archive.files if name in NAMES
                }
        paths = {name: existing(each, f"arrays.{name}") for name, each in source.items()}
        self.watched += paths.values()
        return {name: opened(path, mmap_mode="r") for name, path in paths.items()}

    def add(self, split: str, arrays: dict[str, np.ndarray], is_alone: bool) -> None:
        """Add the images of a split.

        Raises:
            UserError: an array is missing, or has another shape.
        """
        for name in (f"x_{split}", f"y_{split}"):
            if name not in arrays:
                raise UserError(f"arrays: there is no {name}, only {', '.join(arrays)}")
        images, labels = arrays[f"x_{split}"], arrays[f"y_{split}"]
        self.images[split] = channels_last(images, f"x_{split}")
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.shape != (len(images),):
            found = list(arrays[f"y_{split}"].shape)
            raise UserError(f"arrays: y_{split} is {found}, for {len(images)} images")
        for index, label in enumerate(labels.tolist()):
            label = label.decode(errors="replace") if isinstance(label, bytes) else str(label)
            where = None if is_alone else split
            self.items.append(Item(f"x_{split}[{index}]", label, where, None, (split, index)))

    def read(self, item: Item) -> np.ndarray:
        """Return the pixels of an image."""
        split, index = item.source
        return self.images[split][index]


def opened(path: Path, **options):
    """Return what a file of numpy holds.

    Raises:
        UserError: it cannot be read, or would have to be unpickled.
    """
    try:
        return np.load(path, allow_pickle=False, **options)
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
    if images.ndim == 4 and images.shape[3] not in (1, 3) and images.shape[1] in (1, 3):
        images = np.moveaxis(images, 1, 3)
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)):
        raise UserError(
            f"arrays: {name} is {list(images.shape)}, not [N, height, width], or that with 1 or 3 "
            "channels"
        )
    return images
