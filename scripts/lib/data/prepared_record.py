"""The record of a prepared data set: its digests, and the catalog's entry of which it was made.

It is a small file beside the large one, so that a start of Snakemake can tell whether the data is
what it should be without reading it. This module imports no torch.
"""

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from lib.core import records
from lib.core.errors import UserError
from lib.core.files import sha256
from lib.core.layout import prepared_record
from lib.data import catalog


@dataclass(frozen=True)
class Identity:
    """Which data is in a prepared file.

    Attributes:
        sha256: the digest of its content, see `content_sha256`: by this, results name their data.
        file_sha256: the digest of the file: by this, results of version 0.2 do.
        dataset: the name of the data set; None if the file has no record.
    """

    sha256: str
    file_sha256: str
    dataset: str | None = None

    @property
    def names(self) -> tuple[str, str]:
        """The digests by which results may name it."""
        return self.sha256, self.file_sha256


def content_sha256(prepared: Path) -> str:
    """Return the SHA-256 of what a prepared file holds, in whatever way the file holds it.

    That is the images and the labels of both splits, mean and standard deviation, and the names of
    the classes, which say what the labels mean.

    Raises:
        UserError: the file cannot be read; the message names it.
    """
    digest = hashlib.sha256()
    try:
        with safe_open(prepared, framework="numpy") as file:
            digest.update((file.metadata() or {}).get("classes", "").encode())
            for name in sorted(file.keys()):
                array = file.get_tensor(name)
                digest.update(f"\n{name} {array.dtype} {list(array.shape)}\n".encode())
                digest.update(array.tobytes())
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read {prepared}: {error}") from error
    return digest.hexdigest()


def write(prepared: Path, dataset: str, entry: dict) -> None:
    """Write the record of a prepared file, made of a data set's entry of the catalog."""
    content = {
        "dataset": dataset,
        "content": catalog.content_of(entry),
        "size": prepared.stat().st_size,
        "data_sha256": content_sha256(prepared),
    }
    records.write(prepared_record(prepared), content, [prepared])


def verified(prepared: Path) -> Identity:
    """Return which data is in a prepared file, which is read and compared with its record.

    Raises:
        UserError: the file cannot be read, or is not the one that its record describes.
    """
    path = prepared_record(prepared)
    try:
        digest = sha256(prepared)
    except OSError as error:
        raise UserError(f"cannot read {prepared}: {error.strerror}") from error
    if not path.is_file():
        return Identity(content_sha256(prepared), digest)
    record = records.read(path)
    if record["files"].get(prepared.name) != digest:
        # Newer than its record: so the next start of Snakemake reads it, and makes it again.
        with suppress(OSError):
            prepared.touch()
        raise UserError(
            f"{prepared} is truncated or corrupt: its digest is not the one in {path}. "
            "The next start of snakemake makes it again"
        )
    # The record of version 0.2 names only the digest of the file.
    content = record.get("data_sha256") or content_sha256(prepared)
    return Identity(content, digest, record["dataset"])


def names_in_record(prepared: Path) -> tuple[str, ...] | None:
    """Return the digests by which results may name the data; None without a valid record."""
    with suppress(UserError):
        record = records.read(prepared_record(prepared))
        names = [record["files"].get(prepared.name)]
        # That of version 0.2 has only this.
        if "data_sha256" in record or prepared.is_file():
            names.append(record.get("data_sha256") or content_sha256(prepared))
        return tuple(names)
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
