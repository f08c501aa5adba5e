"""Parquet files as the Hugging Face Hub serves image classification: `image`, with bytes; `label`.

pyarrow reads them, an extra of this project: `pip install pyarrow`.
"""

import json
import re
import threading
from functools import lru_cache
from pathlib import Path

from lib.core.errors import UserError
from lib.data.readers import SPLITS, Item, existing, group_column, times_of

NAMES = ("image", "label", "group")
COLUMN = {"type": "string", "minLength": 1}
SCHEMA = {
    "parquet": {"type": "string", "minLength": 1},
    "columns": {
        "type": "object",
        "additionalProperties": False,
        "properties": dict.fromkeys(NAMES, COLUMN),
    },
}


def pyarrow_parquet():
    """Return `pyarrow.parquet`.

    Raises:
        UserError: it is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UserError("reading Parquet files needs pyarrow: pip install pyarrow") from error
    return pyarrow.parquet


class Reader:
    """Reads a file, or all files of a folder; of which split each is, its name says."""

    lists = False

    def __init__(self, entry: dict, files: dict):
        root = Path(entry["parquet"]).expanduser()
        if root.is_dir():
            paths = sorted(root.rglob("*.parquet"))
            self.watched = times_of(root, *paths)
            if not paths:
                raise UserError(f"parquet: {root} has no .parquet files")
        else:
            paths = [existing(entry["parquet"], "parquet")]
            self.watched = times_of(*paths)
        self.notes, self.items, self.paths, self.lock = [], [], paths, threading.Lock()
        self.names = [path.relative_to(root).as_posix() if root.is_dir() else path.name
                      for path in paths]  # fmt: skip
        self.columns = {name: name for name in NAMES} | entry.get("columns", {})
        if (group := group_column(entry)) is not None:
            self.columns["group"] = str(group)
        self.has_group = "group" in entry.get("columns", {}) or bool(entry.get("group"))
        for number in range(len(paths)):
            self.add(number)

    def add(self, number: int) -> None:
        """Add the images of one of the files.

        Raises:
            UserError: it is damaged, or has no such column.
        """
        path = self.paths[number]
        file, split = self.opened(number), split_of(path)
        names, wanted = file.schema_arrow.names, ["image", "label"]
        wanted += ["group"] if self.has_group and self.columns["group"] in names else []
        for name in wanted:
            if self.columns[name] not in names:
                raise UserError(
                    f"parquet: {path} has no column {self.columns[name]!r}, only "
                    f"{', '.join(names)}: name it in `columns`, such as {{{name}: {names[0]}}}"
                )
        classes = class_names(file.schema_arrow, self.columns["label"])
        row = 0
        for part in range(file.num_row_groups):
            read = [self.columns[name] for name in wanted[1:]]
            table = self.columns_of(number, part, read)
            groups = table.get(self.columns["group"])
            for index, label in enumerate(table[self.columns["label"]]):
                text = "" if label is None or label != label else str(label)
                if classes and isinstance(label, int) and 0 <= label < len(classes):
                    text = classes[label]
                if not text:
                    raise UserError(f"parquet: {path}, row {row}: no label")
                if groups and groups[index] is None:
                    raise UserError(f"parquet: {path}, row {row}: no group")
                group = str(groups[index]) if groups else None
                source = (number, part, index)
                self.items.append(Item(f"{self.names[number]}[{row}]", text, split, group, source))
                row += 1

    @lru_cache(maxsize=8)  # noqa: B019 - a reader lives as long as the process needs it
    def opened(self, number: int):
        """Return one of the files, open."""
        try:
            return pyarrow_parquet().ParquetFile(self.paths[number])
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"parquet: cannot read {self.paths[number]}: {error}") from error

    def columns_of(self, number: int, part: int, names: list[str]) -> dict[str, list]:
        """Return some columns of a row group.

        Raises:
            UserError: it is damaged.
        """
        try:
            return self.opened(number).read_row_group(part, columns=names).to_pydict()
        except UserError:
            raise
        except Exception as error:  # of nearly any type where a file is damaged
            raise UserError(f"parquet: cannot read {self.paths[number]}: {error}") from error

    @lru_cache(maxsize=4)  # noqa: B019
    def images(self, number: int, part: int) -> list:
        """Return the images of a row group."""
        column = self.columns["image"]
        return self.columns_of(number, part, [column])[column]

    def read(self, item: Item) -> bytes:
        """Return the content of an image file.

        Raises:
            UserError: there is none.
        """
        number, part, index = item.source
        with self.lock:  # several threads decode images
            image = self.images(number, part)[index]
        content = image.get("bytes") if isinstance(image, dict) else image
        if not isinstance(content, bytes):
            raise UserError("there are no bytes of an image in this row")
        return content


def split_of(path: Path) -> str | None:
    """Return the split that the name of a file begins with, or that of its folder."""
    for name in (path.name, path.parent.name):
        found = re.match("[a-z]+", name.lower())
        if found and found[0] in SPLITS:
            return SPLITS[found[0]]
    return None


def class_names(schema, column: str) -> list[str]:
    """Return the names of the classes that the Hub's library has stored in a file, if it has."""
    try:
        stored = json.loads((schema.metadata or {})[b"huggingface"])
        return list(map(str, stored["info"]["features"][column]["names"]))
    except (KeyError, TypeError, ValueError):
        return []
