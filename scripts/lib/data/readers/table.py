"""A table with one row per image: its file, its label, maybe its split and its group."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from lib.core.errors import UserError
from lib.data.readers import SPLITS, Item, existing, raise_problems, read_bytes

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

    def __init__(self, entry: dict, files: dict):
        path = existing(entry["table"], "table")
        self.watched, self.notes, self.folder = [path], [], path.parent
        rows = parquet_rows(path) if path.suffix == ".parquet" else self.text_rows(path)
        columns = dict(entry.get("columns", {}))
        group = entry.get("group")
        if group is not None and "(" not in str(group):  # else it is a pattern over the name
            columns.setdefault("group", group)
        where, rows = find_columns(path, columns, rows)
        self.items = list(self.items_of(path, where, rows))
        if not self.items:
            raise UserError(f"table: {path} has no rows")

    def text_rows(self, path: Path) -> list[tuple[int, list[str]]]:
        """Return the rows of a text file that are not empty, each with its line."""
        content = read_bytes(path)
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("latin-1")
            self.notes.append(f"{path} is not UTF-8: it was read as Latin-1")
        lines = text.splitlines()
        first = next((line for line in lines if line.strip()), "")
        counts = {each: first.count(each) for each in DELIMITERS}
        delimiter = "\t" if path.suffix == ".tsv" else max(counts, key=counts.get)
        if not counts[delimiter]:
            return [(line, row.split()) for line, row in enumerate(lines, 1) if row.strip()]
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        try:
            return [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
        except csv.Error as error:
            raise UserError(f"table: {path}, line {reader.line_num}: {error}") from error

    def items_of(self, path: Path, where: dict[str, int], rows: Iterable) -> Iterable[Item]:
        """Yield an item for each row.

        Raises:
            UserError: a row lacks something, or names a file twice; one line for each.
        """
        problems, lines = [], {}
        for line, row in rows:
            at = f"table: {path}, line {line}"
            if len(row) <= max(where.values()):
                problems.append(f"{at}: it has only {len(row)} columns")
                continue
            value = {name: str(row[index]).strip() for name, index in where.items()}
            split = SPLITS.get(value["split"].lower()) if "split" in value else None
            if not value["path"] or not value["label"]:
                problems.append(f"{at}: {'no label' if value['path'] else 'no path'}")
            elif "split" in value and split is None:
                problems.append(f"{at}: the split {value['split']!r} is not train, val or test")
            elif value["path"] in lines:
                problems.append(f"{at}: {value['path']} is in line {lines[value['path']]} already")
            else:
                lines[value["path"]] = line
                yield Item(value["path"], value["label"], split, value.get("group"),
                           self.folder / value["path"])  # fmt: skip
        raise_problems(problems)

    def read(self, item: Item) -> bytes:
        """Return the content of a file."""
        return read_bytes(item.source)


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

    table = pyarrow_parquet().read_table(path)
    columns = [column.to_pylist() for column in table.columns]
    return list(enumerate([table.column_names, *map(list, zip(*columns, strict=True))]))
