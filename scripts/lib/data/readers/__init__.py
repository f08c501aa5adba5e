"""What a data set can be made of: one file in this folder per kind.

A kind is the key in an entry of `config/datasets.yaml` that says where the images are, and the
module of that name here. Such a module has

- `SCHEMA`, the JSON schema of the keys that the kind has, its own among them, and maybe `REQUIRED`,
  those that an entry must have; the keys of all kinds are in `workflow/schemas`;
- `Reader`, a class that is made with an entry and with what `download.py` has found for it by its
  role (nothing, where the data is on this machine), reads what there is to list, and has
    - `items`: a list of `Item`, in the order that the data set is to have,
    - `read(item)`: the image, as a file, as the bytes of one, or as pixels: [height, width] or
      [height, width, channels],
    - `watched`: the files and folders that change where the data changes, with the time of their
      last change, before anything was listed (`times_of`),
    - `lists`: whether they are only lists of the images, which may mean the same after a change,
    - `notes`: what was left out, in words,
    - maybe `classes`: their names, in the order of their labels.

The module of a kind that is downloaded also has three functions of an entry:

- `downloads`, the files by their roles, each with its `name`, its `size` in bytes, and its digest:
  `sha256` of the decompressed content, `archive_md5` of the compressed file, or `md5` of the file,
  which is kept as it is,
- `mirrors`, the folders on the web that have them,
- `facts`, what is known before they are downloaded: see `lib.data.prepared_record.Facts`.
"""

import hashlib
import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lib.core.errors import UserError
from lib.core.files import sha256

MOST_SHOWN = 10  # problems of one kind of mistake
SPLITS = {
    "train": "train", "training": "train", "training_set": "train", "test": "test",
    "testing": "test", "test_set": "test", "val": "validation", "valid": "validation",
    "validation": "validation", "validation_set": "validation",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a data set.

    Attributes:
        name: by which people know it, such as its file relative to the data's folder; each once.
        label: as the data has it, in words.
        split: one of the values of `SPLITS`; None where `test_share` decides.
        group: what must not be in two splits, such as a patient; None if there are no groups.
        source: by which the reader finds it.
    """

    name: str
    label: str
    split: str | None = None
    group: str | None = None
    source: Any = None


class Reader(Protocol):
    """What a kind of data offers."""

    items: list[Item]
    watched: dict[str, int]
    lists: bool
    notes: list[str]

    def read(self, item: Item) -> Path | bytes | np.ndarray:
        """Return an image."""


def kinds() -> list[str]:
    """Return the kinds of data: the names of the modules in this folder."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))


def module(kind: str):
    """Return the module of a kind."""
    return importlib.import_module(f"lib.data.readers.{kind}")


def module_file(kind: str) -> Path:
    """Return the file of a kind, on which the prepared data depends."""
    return Path(__file__).with_name(f"{kind}.py")


def kind_of(entry: dict) -> str:
    """Return the kind of an entry: the key that says where its images are.

    Raises:
        UserError: it has none of them, or several.
    """
    found = [kind for kind in kinds() if kind in entry]
    more = {key for kind in found for key in module(kind).SCHEMA if key != kind}
    found = [kind for kind in found if kind not in more]  # a key of another kind, there
    if len(found) != 1:
        has = f"it has {' and '.join(found)}" if found else f"it has none of {', '.join(kinds())}"
        raise UserError(f"one key must say where the images are: {has}")
    return found[0]


def open_reader(entry: dict, files: dict | None = None) -> Reader:
    """Return the reader of an entry; `files` are those that `download.py` has listed, if it has.

    Raises:
        UserError: what it names is not there, or is not what it should be; one line for each
            problem, naming the key, and the file or the line.
    """
    return module(kind_of(entry)).Reader(entry, files or {})


def downloads(entry: dict) -> dict[str, dict]:
    """Return the files that are to be downloaded, by their roles; none for data that is here."""
    kind = module(kind_of(entry))
    return kind.downloads(entry) if hasattr(kind, "downloads") else {}


def group_column(entry: dict) -> str | int | None:
    """Return the column of the groups, if `group` is one: a pattern over names has parentheses."""
    group = entry.get("group")
    return None if "(" in str(group) else group


def listing_sha256(reader: Reader) -> str | None:
    """Return a digest of what a reader lists; None where it reads the images themselves.

    Of each image it has the name, what is said of it, and the size of its file.
    """
    if not reader.lists:
        return None
    digest = hashlib.sha256()
    for item in reader.items:
        try:
            size = item.source.stat().st_size
        except (OSError, ValueError):
            size = None
        about = (item.name, item.label, item.split, item.group, size)
        digest.update(f"{about}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def times_of(*paths: Path) -> dict[str, int]:
    """Return when each of some files and folders has changed last, by its path."""
    return {str(path): path.stat().st_mtime_ns for path in paths}


def raise_problems(problems: Iterable[str], where: str = "") -> None:
    """Raise one error for all problems, of which the first ones are shown; none where none are."""
    problems = list(problems)
    if problems:
        more = len(problems) - MOST_SHOWN
        shown = problems[:MOST_SHOWN] + ([f"... and {more:,} more"] if more > 0 else [])
        raise UserError("\n".join(f"{where}{line}" for line in shown))


def existing(path: str, key: str, *, folder: bool = False) -> Path:
    """Return a path that an entry names, absolute or relative to the project's folder.

    Raises:
        UserError: there is no such file, or no such folder.
    """
    try:
        found = Path(path).expanduser()
        there = found.is_dir() if folder else found.is_file()
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{key}: {path!r}: {error}") from error
    if not there:
        other = "a file" if found.is_file() else "a folder" if found.is_dir() else None
        what = "folder" if folder else "file"
        raise UserError(f"{key}: {path} is {other}, not a {what}" if other else
                        f"{key}: there is no {what} {path}")  # fmt: skip
    return found


def downloaded(file: dict) -> Path:
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
