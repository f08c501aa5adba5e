"""Folders of classes: `CLASS/*`, or `train/CLASS/*` and `test/CLASS/*`."""

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from PIL import Image

from lib.core import strict_yaml
from lib.core.errors import UserError
from lib.data.readers import SPLITS, Item, existing, raise_problems, times_of

SCHEMA = {"folder": {"type": "string", "minLength": 1}}
# What file managers and notebooks leave behind, beside names that begin with a dot.
LEFTOVERS = ("thumbs.db", "desktop.ini", "__macosx")
# Formats that Pillow only knows by name, or draws by starting another program.
NO_PICTURES = ("PDF", "MPEG", "EPS", "WMF", "HDF5", "GRIB", "BUFR", "FITS")


class Reader:
    """Reads the images in the folders of their classes.

    Where there are images for validation and none for testing, they are for testing. Where there
    are both, those for validation belong to the training set, of which `validation_size` holds out.
    """

    lists = True

    def __init__(self, entry: dict, files: dict):
        self.root = existing(entry["folder"], "folder", folder=True)
        self.watched, self.notes, self.problems = times_of(self.root), [], []
        self.others, self.items = [], []
        for split, place in self.places():
            for folder in self.class_folders(place):
                found = list(image_files(folder, self.others, self.watched, self.problems))
                if not found:
                    self.problems.append(f"there is no image in the class {folder}: remove it")
                label = folder.name
                self.items += [Item(self.name(path), label, split, None, path) for path in found]
        self.items.sort(key=lambda item: natural(item.name))
        odd = [item.name for item in self.items if not strict_yaml.is_text(item.name)]
        self.problems += [f"{name!r}: this name is not valid UTF-8: rename it" for name in odd]
        if not self.items and not self.problems:
            self.problems.append(f"there is no image in folders of classes in {self.root}")
        raise_problems(self.problems, "folder: ")
        if self.others:
            names = [self.name(path) for path in self.others]
            shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            self.notes.append(f"{len(names):,} files are no images of a class: {shown}")

    def name(self, path: Path) -> str:
        """Return the name of a file, relative to the data's folder."""
        return path.relative_to(self.root).as_posix()

    def class_folders(self, folder: Path) -> list[Path]:
        """Return the folders of the classes in a folder; files beside them are of no class."""
        inside = visible(folder)
        self.others += [path for path in inside if not path.is_dir()]
        return [path for path in inside if path.is_dir()]

    def places(self) -> list[tuple[str | None, Path]]:
        """Return the folders of the splits, which have those of the classes, and their splits.

        A folder that is called like a split, and has images in it, is one of a class.

        Raises:
            UserError: it cannot be told what is a split.
        """
        folders = [each for each in visible(self.root) if each.is_dir()]
        named = [each for each in folders if each.name.lower() in SPLITS]
        if not named or any(is_image(path) for each in named for path in visible(each)):
            return [(None, self.root)]
        splits = [SPLITS[each.name.lower()] for each in named]
        names = ", ".join(each.name for each in folders)
        if "train" not in splits or len(set(splits)) < len(splits):
            raise UserError(f"folder: {names}: there must be one folder train, and test or val")
        left = [each.name for each in folders if each not in named]
        if len(named) == 1 and left:
            raise UserError(f"folder: {names}: the folder of the test images must be called test")
        if left:
            self.notes.append(f"{len(left)} folders beside the splits: {', '.join(left[:5])}")
        self.watched |= times_of(*named)
        return list(zip(splits if len(named) > 1 else [None], named, strict=True))

    def read(self, item: Item) -> Path:
        """Return the file of an image."""
        return item.source


def image_files(
    folder: Path, others: list[Path], folders: dict[str, int], problems: list[str]
) -> Iterator[Path]:
    """Yield the images in a folder and those below it.

    Args:
        folder: where to look.
        others: files that are no images by their names are added.
        folders: those that were looked at are added, with the times of their last change.
        problems: folders that cannot be read are added.
    """
    seen = set()  # against links that lead in circles

    def cannot(error: OSError) -> None:
        problems.append(f"cannot read {error.filename}: {error.strerror}")

    for place, below, files in os.walk(folder, onerror=cannot, followlinks=True):
        here = Path(place)
        real = here.resolve()
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        folders |= times_of(here)
        below[:] = [name for name in below if not hidden(name)]
        for path in (here / name for name in files if not hidden(name)):
            if is_image(path):
                yield path
            else:
                others.append(path)


def hidden(name: str) -> bool:
    """Return whether a file or folder is none of the data."""
    return name.startswith(".") or name.lower() in LEFTOVERS


def visible(folder: Path) -> list[Path]:
    """Return the files and folders in a folder, sorted, but for those that are hidden.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if not hidden(path.name))
    except OSError as error:
        raise UserError(f"folder: cannot read {folder}: {error.strerror}") from error


def is_image(path: Path) -> bool:
    """Return whether a path is that of an image, by its name."""
    return path.suffix.lower() in extensions() and not path.is_dir()


@cache
def extensions() -> frozenset[str]:
    """Return how the names of images end."""
    known = Image.registered_extensions().items()
    return frozenset(end for end, kind in known if kind in Image.OPEN and kind not in NO_PICTURES)


def natural(name: str) -> tuple:
    """Return a key that sorts by the file's own name first, numbers in it by their value.

    So the images of a set that was exported to files of its classes, named by their numbers, have
    the order of that set, and classes are mixed.
    """
    place, _, file = name.rpartition("/")
    parts = re.split("([0-9]+)", file)
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts], file, place
