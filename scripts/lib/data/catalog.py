"""The known data sets: what `config/datasets.yaml` says of each."""

import argparse
from pathlib import Path

from lib.core import strict_yaml
from lib.core.errors import UserError


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
    schema = strict_yaml.schema("datasets")
    strict_yaml.check(entries[name], schema, f"{datasets_file}: {name}")
    return entries[name]


def idx_size(entry: dict, role: str) -> int:
    """Return the bytes of a decompressed IDX file.

    It has a header of four bytes and four per dimension, then one byte per value.

    Args:
        entry: the data set's entry.
        role: `train_images`, `train_labels`, `test_images` or `test_labels`.
    """
    split, _, kind = role.partition("_")
    count = entry[f"{split}_size"]
    height, width = entry["image_size"]
    return 16 + count * height * width if kind == "images" else 8 + count


def raw_dir(data_dir: Path, name: str) -> Path:
    """Return the folder of the four IDX files: torchvision's own layout below `data_dir`."""
    return data_dir / name / "raw"


def content_of(entry: dict) -> dict:
    """Return the part of an entry that decides what the prepared data is, as JSON holds it.

    Where the files come from is not in it.
    """
    digests = {
        role: file.get("sha256") or file["archive_md5"] for role, file in entry["files"].items()
    }
    names = ("image_size", "train_size", "test_size", "classes", "mean", "std")
    return {"files": digests} | {name: entry[name] for name in names if name in entry}
