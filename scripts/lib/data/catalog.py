"""The known data sets: what `config/datasets.yaml` says of each."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lib.core import strict_yaml
from lib.core.errors import TemporaryError, UserError
from lib.data import readers

NO_CONTENT = ("unreadable", "duplicates", "framing", "positive")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a data set."""
    parser.add_argument(
        "--dataset", required=True, metavar="NAME", help="the data set, an entry of the file below"
    )
    parser.add_argument(
        "--datasets-file",
        type=Path,
        default=Path("config/datasets.yaml"),
        metavar="FILE",
        help="describes the data sets (default: %(default)s)",
    )


def load(datasets_file: Path, name: str) -> dict:
    """Return the entry of a data set, as `workflow/schemas/datasets.schema.yaml` describes it.

    Raises:
        UserError: no such entry, or the entry is not valid; the message names the file.
    """
    entries = strict_yaml.load(datasets_file) or {}
    if not isinstance(entries, dict):
        raise UserError(f"{datasets_file}: expected a mapping of names to data sets")
    if name not in entries:
        hint = strict_yaml.nearest(name, sorted(map(str, entries)))
        raise UserError(f"dataset: {name!r} is not an entry of {datasets_file}{hint}")
    entry = entries[name]
    with errors_of(datasets_file, name):
        if not isinstance(entry, dict):
            raise UserError("expected a mapping of keys to values")
        strict_yaml.check(entry, schema_of(readers.kind_of(entry)), "")
    return entry


def schema_of(kind: str) -> dict:
    """Return the schema of the entries of a kind: the keys of all kinds, and its own."""
    schema, module = strict_yaml.schema("datasets"), readers.module(kind)
    return schema | {
        "properties": schema["properties"] | module.SCHEMA,
        "required": [kind, *getattr(module, "REQUIRED", ())],
    }


@contextmanager
def errors_of(datasets_file: Path, name: str) -> Iterator[None]:
    """Let each line of an error begin with the file of data sets and the name of the entry."""
    try:
        yield
    except TemporaryError:  # it is not the entry's fault
        raise
    except UserError as error:
        lines = str(error).splitlines()
        raise UserError(
            "\n".join(f"{datasets_file}: {name}: {line.removeprefix(': ')}" for line in lines)
        ) from error


def raw_dir(data_dir: Path, name: str) -> Path:
    """Return the folder of the files that are downloaded: torchvision's own layout."""
    return data_dir / name / "raw"


def content_of(entry: dict) -> dict:
    """Return the part of an entry that decides what the prepared data is, as JSON holds it.

    Where downloaded files come from is not in it, nor what is done where something is wrong: that
    shows in the data itself. Nor is which class is the positive one.
    """
    left = (*NO_CONTENT, *(("npm", "torchvision") if "files" in entry else ()))
    content = {key: value for key, value in entry.items() if key not in left}
    if isinstance(content.get("classes"), dict):
        content["classes"] = [list(each) for each in content["classes"].items()]  # in their order
    if "files" in entry:
        content["files"] = {
            role: file.get("sha256") or file["archive_md5"] for role, file in entry["files"].items()
        }
    return content | ({"duplicates": "drop"} if entry.get("duplicates") == "drop" else {})
