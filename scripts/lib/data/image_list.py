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


def names(prepared: Path, split: str) -> list[str] | None:
    """Return the names of the images of a split, in their order; None where they have none.

    Args:
        prepared: the prepared file, beside which the list is.
        split: `train` or `test`.

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
    return [row["file"] for row in rows if row["split"] == split]
