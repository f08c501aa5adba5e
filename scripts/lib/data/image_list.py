"""The list of the images of a prepared data set: what their files are called."""

import csv
import gzip
import hashlib
import io
import zlib
from pathlib import Path

from lib.core.errors import UserError
from lib.core.layout import images_file
from lib.data.tensor_file import TensorFile


def names(prepared: Path, split: str | None) -> list[str] | None:
    """Return the names of the images of a split, in their order; None where they have none."""
    return _column(prepared, split, "file")


def names_of_test(prepared: Path, fold: int | None) -> list[str] | None:
    """Return the names of the test images: of a fold, where there are folds."""
    return names(prepared, "test" if fold is None else f"fold{fold}")


def groups(prepared: Path, split: str | None) -> list[str] | None:
    """Return the group of each image of a split; None where each image is on its own."""
    found = _column(prepared, split, "group")
    return found if found and len(set(found)) < len(found) and any(found) else None


def _column(prepared: Path, split: str | None, column: str) -> list[str] | None:
    """Return a column of the list of images; None where there is no list.

    Args:
        prepared: the prepared file, beside which the list is.
        split: `train`, `test`, or `fold1` and so on; None: all images.
        column: its name.

    Raises:
        UserError: the list is missing, or is not the one of this file.
    """
    path = images_file(prepared)
    try:
        expected = TensorFile(prepared).metadata.get("images_sha256")
        if expected is None:
            return None
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {path}, which belongs to {prepared}: {reason}") from error
    if hashlib.sha256(content).hexdigest() != expected:
        raise UserError(f"{path} is not the list of the images in {prepared}: remove both")
    rows = csv.DictReader(io.StringIO(content.decode(), newline=""))
    return [row[column] for row in rows if split in (None, row["split"])]
