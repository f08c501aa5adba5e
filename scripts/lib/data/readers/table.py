"""A table with one row per image: its file, its label, maybe its split and its group."""

import csv
import io
import os
import re
from collections.abc import Iterable
from pathlib import Path

from lib.core.errors import UserError
from lib.data.readers import (
    SPLITS,
    Item,
    existing,
    group_column,
    raise_problems,
    times_of,
)

COLUMN = {"oneOf": [{"type": "string", "minLength": 1}, {"type": "integer", "minimum": 1}]}
NAMES = ("path", "label", "split", "group")
SCHEMA = {
    "table": {"type": "string", "minLength": 1},
    "columns": {
        "type": "object",
        "additionalProperties": False,
        "properties": dict.fromkeys(NAMES, COLUMN),
    },
}
DELIMITERS = ",;\t"  # or blanks


class Reader:
    """Reads the images that a table names, relative to its folder."""

    lists = True

    def __init__(self, entry: dict, files: dict):
        path = existing(entry["table"], "table")
        self.watched, self.notes, self.folder = times_of(path), [], path.parent
        rows = parquet_rows(path) if path.suffix == ".parquet" else self.text_rows(path)
        columns = dict(entry.get("columns", {}))
        if (group := group_column(entry)) is not None:
            columns.setdefault("group", group)
        width = len(rows[0][1]) if rows else 0
        where, rows = find_columns(path, columns, rows)
        self.items = list(self.items_of(path, where, rows, width))
        if not self.items:
            raise UserError(f"table: {path} has no rows")

    def text_rows(self, path: Path) -> list[tuple[int, list[str]]]:
        """Return the rows of a text file that are not empty, each with its line."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"table: cannot read {path}: {error.strerror}") from error
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("latin-1")
            self.notes.append(f"{path} is not UTF-8: it was read as Latin-1")
        lines = text.splitlines()
        first = next((line for line in lines if line.strip()), "")
        unquoted = re.sub('"[^"]*"', "", first)
        counts = {each: unquoted.count(each) for each in DELIMITERS}
        delimiter = "\t" if path.suffix == ".tsv" else max(counts, key=counts.get)
        if not counts[delimiter]:
            return [(line, row.split()) for line, row in enumerate(lines, 1) if row.strip()]
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        try:
            return [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
        except csv.Error as error:
            raise UserError(f"table: {path}, line {reader.line_num}: {error}") from error

    def items_of(
        self, path: Path, where: dict[str, int], rows: Iterable, width: int
    ) -> Iterable[Item]:
        """Yield an item for each row.

        Raises:
            UserError: a row lacks something, has too much, or names a file twice; one line for
                each.
        """
        problems, lines = [], {}
        for line, row in rows:
            at = f"table: {path}, line {line}"
            if len(row) <= max(where.values()) or any(row[width:]):
                problems.append(f"{at}: it has {len(row)} columns, not {width}")
                continue
            value = {name: plain_text(row[index]) for name, index in where.items()}
            split = SPLITS.get(value["split"].lower()) if "split" in value else None
            missing = [name for name in ("path", "label", "group") if value.get(name) == ""]
            file = os.path.normpath(value["path"])
            if missing:
                problems.append(f"{at}: no {missing[0]}")
            elif "split" in value and split is None:
                problems.append(f"{at}: the split {value['split']!r} is not train, val or test")
            elif file in lines:
                problems.append(f"{at}: {value['path']} is in line {lines[file]} already")
            else:
                lines[file] = line
                yield Item(
                    value["path"], value["label"], split, value.get("group"), self.folder / file
                )
        raise_problems(problems)

    def read(self, item: Item) -> Path:
        """Return the file of an image."""
        return item.source


def plain_text(value: object) -> str:
    """Return what is in a cell; nothing where there is no value, or one that is no number."""
    text = "" if value is None else str(value).strip()
    return "" if text.lower() == "nan" else text


def find_columns(path: Path, columns: dict, rows: list) -> tuple[dict[str, int], list]:
    """Return which column is which, and the rows without the header line.

    Columns that are named by numbers, counted from 1, mean that there is no header line.

    Raises:
        UserError: a column is not there.
    """
    if not rows:
        raise UserError(f"table: {path} is empty")
    numbers = {name: each - 1 for name, each in columns.items() if isinstance(each, int)}
    if len(numbers) == len(columns) and {"path", "label"} <= numbers.keys():
        return numbers, rows
    header = [str(each).strip() for each in rows[0][1]]
    where, problems = numbers, []
    for name in NAMES:
        wanted = columns.get(name, name)
        if wanted in header:
            where[name] = header.index(wanted)
        elif name not in numbers and (name in columns or name in ("path", "label")):
            problems.append(f"table: {path} has no column {wanted!r}")
    if problems:
        problems.append(
            f"its first line is: {', '.join(header)}. Name the columns in `columns`, such as "
            "{path: file, label: class}; or by number where there is no header line: "
            "{path: 1, label: 2}"
        )
    raise_problems(problems)
    return where, rows[1:]


def parquet_rows(path: Path) -> list[tuple[int, list]]:
    """Return the rows of a Parquet file, the names of its columns first."""
    from lib.data.readers.parquet import pyarrow_parquet

    try:
        table = pyarrow_parquet().read_table(path)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"table: cannot read {path}: {error}") from error
    columns = [column.to_pylist() for column in table.columns]
    return list(enumerate([table.column_names, *map(list, zip(*columns, strict=True))]))
