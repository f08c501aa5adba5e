"""Folders of classes: `CLASS/*`, or `train/CLASS/*` and `test/CLASS/*`."""

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from PIL import Image

from lib.core.errors import UserError
from lib.data.readers import SPLITS, Item, existing, raise_problems, read_bytes

SCHEMA = {"folder": {"type": "string", "minLength": 1}}
# What file managers and notebooks leave behind, beside names that begin with a dot.
LEFTOVERS = ("thumbs.db", "desktop.ini", "__macosx")


class Reader:
    """Reads the images in the folders of their classes.

    Where there are images for validation and none for testing, they are for testing. Where there
    are both, those for validation belong to the training set, of which `validation_size` holds out.
    """

    def __init__(self, entry: dict, files: dict):
        self.root = existing(entry["folder"], "folder", folder=True)
        self.watched, self.notes, problems = [self.root], [], []
        others, self.items = [], []
        for split, place in self.places():
            for folder in visible(place, folders=True):
                found = list(image_files(folder, others, self.watched))
                if not found:
                    problems.append(f"folder: {folder}: there is no image in this class: remove it")
                label = folder.name
                self.items += [Item(self.name(path), label, split, None, path) for path in found]
        self.items.sort(key=lambda item: natural(item.name))
        odd = [item.name for item in self.items if not is_text(item.name)]
        problems += [f"folder: {name!r}: this name is not valid UTF-8: rename it" for name in odd]
        if not self.items and not problems:
            problems.append(f"folder: {self.root}: there is no image in folders of classes")
        raise_problems(problems)
        if others:
            shown = ", ".join(map(self.name, others[:5])) + (", ..." if len(others) > 5 else "")
            self.notes.append(f"{len(others):,} files are no images by their names: {shown}")

    def name(self, path: Path) -> str:
        """Return the name of a file, relative to the data's folder."""
        return path.relative_to(self.root).as_posix()

    def places(self) -> list[tuple[str | None, Path]]:
        """Return the folders of the splits, which have those of the classes, and their splits."""
        folders = {each.name.lower(): each for each in visible(self.root, folders=True)}
        named = {SPLITS[name]: each for name, each in folders.items() if name in SPLITS}
        if "train" not in named or len(named) == 1 < len(folders):
            return [(None, self.root)]  # or `train` is the name of a class
        left = [each.name for name, each in folders.items() if name not in SPLITS]
        if left:
            self.notes.append(f"{len(left)} folders beside the splits: {', '.join(left[:5])}")
        if len(named) == 1:
            return [(None, named["train"])]
        self.watched += named.values()
        return list(named.items())

    def read(self, item: Item) -> bytes:
        """Return the content of a file."""
        return read_bytes(item.source)


def image_files(folder: Path, others: list[Path], folders: list[Path]) -> Iterator[Path]:
    """Yield the images in a folder and those below it.

    Args:
        folder: where to look.
        others: files that are no images by their names are added.
        folders: those that were looked at are added.
    """
    seen = set()  # against links that lead in circles
    for place, below, files in os.walk(folder, followlinks=True):
        here = Path(place)
        real = here.resolve()
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        folders.append(here)
        below[:] = [name for name in below if not hidden(name)]
        for path in (here / name for name in files if not hidden(name)):
            if path.suffix.lower() in extensions():
                yield path
            else:
                others.append(path)


def hidden(name: str) -> bool:
    """Return whether a file or folder is none of the data."""
    return name.startswith(".") or name.lower() in LEFTOVERS


def visible(folder: Path, *, folders: bool) -> list[Path]:
    """Return what there is in a folder, sorted: its folders, or its files."""
    try:
        found = [path for path in folder.iterdir() if not hidden(path.name)]
    except OSError as error:
        raise UserError(f"folder: cannot read {folder}: {error.strerror}") from error
    return sorted(path for path in found if path.is_dir() == folders)


@cache
def extensions() -> frozenset[str]:
    """Return how the names of images end."""
    known = Image.registered_extensions().items()
    return frozenset(
        end for end, kind in known if kind in Image.OPEN and kind not in ("PDF", "MPEG")
    )


def natural(name: str) -> tuple:
    """Return a key that sorts by the file's own name first, numbers in it by their value.

    So the images of a set that was exported to files of its classes, named by their numbers, have
    the order of that set, and classes are mixed.
    """
    place, _, file = name.rpartition("/")
    parts = re.split("([0-9]+)", file)
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts], file, place


def is_text(name: str) -> bool:
    """Return whether a name can be written in UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
