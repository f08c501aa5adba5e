"""The record of a prepared data set: its digest, and the catalog's entry of which it was made.

It is a small file beside the large one, so that a start of Snakemake can tell whether the data is
what it should be without reading it. This module imports no torch.
"""

from contextlib import suppress
from pathlib import Path

from lib.core import records
from lib.core.errors import UserError
from lib.core.files import sha256
from lib.core.layout import prepared_record
from lib.data import catalog


def write(prepared: Path, dataset: str, entry: dict) -> None:
    """Write the record of a prepared file, made of a data set's entry of the catalog."""
    content = {
        "dataset": dataset,
        "content": catalog.content_of(entry),
        "size": prepared.stat().st_size,
    }
    records.write(prepared_record(prepared), content, [prepared])


def verified_digest(prepared: Path) -> tuple[str, str | None]:
    """Return the SHA-256 of a prepared file, and the data set's name if the file has a record.

    Raises:
        UserError: the file cannot be read, or is not the one that its record describes.
    """
    path = prepared_record(prepared)
    try:
        digest = sha256(prepared)
    except OSError as error:
        raise UserError(f"cannot read {prepared}: {error.strerror}") from error
    if not path.is_file():
        return digest, None
    record = records.read(path)
    if record["files"].get(prepared.name) != digest:
        # Newer than its record: so the next start of Snakemake reads it, and makes it again.
        with suppress(OSError):
            prepared.touch()
        raise UserError(
            f"{prepared} is truncated or corrupt: its digest is not the one in {path}. "
            "The next start of snakemake makes it again"
        )
    return digest, record["dataset"]


def digest_in_record(prepared: Path) -> str | None:
    """Return the digest that the record of a prepared file names; None without a valid record."""
    with suppress(UserError):
        return records.read(prepared_record(prepared))["files"].get(prepared.name)
    return None


def is_of(prepared: Path, entry: dict) -> bool:
    """Return whether a prepared file was made of an entry of the catalog; if not known, True."""
    with suppress(UserError):
        return records.read(prepared_record(prepared))["content"] == catalog.content_of(entry)
    return True


def damage(prepared: Path) -> str | None:
    """Return what is wrong with a prepared file and its record, or None.

    The file is read only if it has changed since its record was written. Missing files are no
    damage.
    """
    path = prepared_record(prepared)
    try:
        found, written = prepared.stat(), path.stat()
    except OSError:
        return None
    try:
        record = records.read(path)
        if found.st_size != record["size"]:
            return f"{prepared} is truncated or corrupt: it has another size than {path} says"
        if found.st_mtime_ns > written.st_mtime_ns:
            records.check_files(path, record)
    except UserError as error:
        return str(error)
    return None
