"""The record of a prepared data set: its digests, and the catalog's entry of which it was made.

It is a small file beside the large one, so that a start of Snakemake can tell whether the data is
what it should be without reading it. This module imports no torch.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from lib.core import records
from lib.core.errors import UserError
from lib.core.files import sha256
from lib.core.layout import audit_file, images_file, prepared_record
from lib.data import catalog, readers
from lib.data.readers import Reader

AT_ONCE = 4096  # images
FORM = ("resize", "max_value", "framing")  # keys of an entry that an image for `predict` needs


@dataclass(frozen=True)
class Facts:
    """What a study has to know of its data set.

    Attributes:
        classes: their names, in the order of the labels 0, 1, ...
        train_size: the number of training images.
        test_size: the number of test images.
        input_shape: channels, height and width of an image.
    """

    classes: list[str]
    train_size: int
    test_size: int
    input_shape: list[int]


@dataclass(frozen=True)
class Identity:
    """Which data is in a prepared file.

    Attributes:
        names: the digests by which results may name it. The first is that of its content, see
            `content_sha256`.
        dataset: the name of the data set; None if the file has no record.
        form: how its images were brought into one form, as the entry says; None if not known.
    """

    names: tuple[str, ...]
    dataset: str | None = None
    form: dict | None = None

    @property
    def sha256(self) -> str:
        """The digest by which new results name it."""
        return self.names[0]


def content_sha256(prepared: Path) -> str:
    """Return the SHA-256 of what a prepared file holds, in whatever way the file holds it.

    That is the images and the labels of both splits, mean and standard deviation, the names of the
    classes, which say what the labels mean, and the list of the images, where they have names.

    Raises:
        UserError: the file cannot be read; the message names it.
    """
    digest = hashlib.sha256()
    with _opened(prepared) as file:
        digest.update((file.metadata() or {}).get("classes", "").encode())
        for name in sorted(file.keys()):
            sizes = file.get_slice(name).get_shape()
            for number, array in enumerate(_parts(file, name, sizes)):
                if number == 0:
                    about = _without_channel(name, array)
                    shape = [*sizes[:1], *about.shape[1:]] if about.ndim else []
                    digest.update(f"\n{name} {about.dtype} {shape}\n".encode())
                digest.update(np.ascontiguousarray(array))
        digest.update((file.metadata() or {}).get("images_sha256", "").encode())
    return digest.hexdigest()


def _parts(file: safe_open, name: str, shape: list[int]) -> Iterator[np.ndarray]:
    """Yield a tensor, in parts if it may be large."""
    if len(shape) < 2:
        yield file.get_tensor(name)
        return
    for start in range(0, shape[0], AT_ONCE):
        yield file.get_slice(name)[start : min(start + AT_ONCE, shape[0])]


@contextmanager
def _opened(prepared: Path) -> Iterator[safe_open]:
    try:
        with safe_open(prepared, framework="numpy") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read {prepared}: {error}") from error


def _without_channel(name: str, array: np.ndarray) -> np.ndarray:
    """Return a tensor of a prepared file as version 0.2 has written it, where it could."""
    if name.endswith("_images") and array.ndim == 4 and array.shape[1] == 1:
        return array[:, 0]
    return array.reshape(()) if name in ("mean", "std") and array.size == 1 else array


def _file_sha256_of_version_0_2(prepared: Path) -> str:
    """Return the digest of the file that version 0.2 would have written.

    By it, the results of that version name their data.
    """
    with _opened(prepared) as file:
        names = list(file.keys())
        arrays = {name: _without_channel(name, file.get_tensor(name)) for name in names}
        return hashlib.sha256(save(arrays, file.metadata())).hexdigest()


def write(prepared: Path, dataset: str, entry: dict, reader: Reader) -> None:
    """Write the record of a prepared file, with what is beside it.

    Args:
        prepared: the file.
        dataset: the name of the data set.
        entry: of the catalog, of which the file was made.
        reader: of the images.
    """
    content = {
        "dataset": dataset,
        "content": catalog.content_of(entry),
        "size": prepared.stat().st_size,
        "data_sha256": content_sha256(prepared),
        "earlier_sha256": _file_sha256_of_version_0_2(prepared) if "files" in entry else None,
        "facts": asdict(_facts_in(prepared)),
        "form": _form(entry),
        "sources": reader.watched,
        "listing_sha256": readers.listing_sha256(reader),
    }
    beside = [path for path in (images_file(prepared), audit_file(prepared)) if path.is_file()]
    records.write(prepared_record(prepared), content, [prepared, *beside])


def _facts_in(prepared: Path) -> Facts:
    with _opened(prepared) as file:
        train, test = (file.get_slice(f"{split}_images").get_shape() for split in ("train", "test"))
        classes = json.loads((file.metadata() or {}).get("classes", "[]"))
    return Facts(classes, train[0], test[0], train[1:])


def verified(prepared: Path) -> Identity:
    """Return which data is in a prepared file, which is read and compared with its record.

    Raises:
        UserError: the file cannot be read, or is not the one that its record describes.
    """
    path = prepared_record(prepared)
    if not path.is_file():
        return Identity((content_sha256(prepared), _file_sha256_of_version_0_2(prepared)))
    record = records.read(path)
    try:
        digest = sha256(prepared)
    except OSError as error:
        raise UserError(f"cannot read {prepared}: {error.strerror}") from error
    if record["files"].get(prepared.name) != digest:
        # Newer than its record: so the next start of Snakemake reads it, and makes it again.
        with suppress(OSError):
            prepared.touch()
        raise UserError(
            f"{prepared} is truncated or corrupt: its digest is not the one in {path}. "
            "The next start of snakemake makes it again"
        )
    return Identity(_names(record, prepared), record["dataset"], record.get("form"))


def names_in_record(prepared: Path) -> tuple[str, ...] | None:
    """Return the digests by which results may name the data; None without a valid record."""
    with suppress(UserError):
        return _names(records.read(prepared_record(prepared)), prepared)
    return None


def _names(record: dict, prepared: Path) -> tuple[str, ...]:
    # The record of that version describes its own file.
    earlier = record.get("earlier_sha256") or record["files"].get(prepared.name)
    content = record.get("data_sha256")  # version 0.2 has not recorded it
    if not content and prepared.is_file():
        content = content_sha256(prepared)
    return tuple(filter(None, (content, earlier)))


def is_of(prepared: Path, entry: dict) -> bool:
    """Return whether a prepared file was made of an entry of the catalog; if not known, True.

    What it was made of must not have changed since, as far as it is still there.
    """
    with suppress(UserError):
        record = records.read(prepared_record(prepared))
        same = record["content"] == catalog.content_of(entry)
        return (
            same and record.get("form", _form(entry)) == _form(entry) and _is_there(record, entry)
        )
    return True


def _form(entry: dict) -> dict:
    return {key: entry.get(key) for key in FORM}


def _is_there(record: dict, entry: dict) -> bool:
    """Return whether the images are those that were prepared, as far as they are still there."""
    changed = [path for path, time in record.get("sources", {}).items() if _changed(path, time)]
    if not changed:
        return True
    if not record["listing_sha256"]:
        return False
    try:  # only something beside the images has changed, or a list that says the same
        return readers.listing_sha256(readers.open_reader(entry)) == record["listing_sha256"]
    except UserError:
        return False


def _changed(path: str, mtime_ns: int) -> bool:
    try:
        return Path(path).stat().st_mtime_ns != mtime_ns
    except OSError:
        return False


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
        for name in record["files"]:
            if not path.with_name(name).is_file():
                return f"{path.with_name(name)} is missing"
        if found.st_size != record["size"]:
            return f"{prepared} is truncated or corrupt: it has another size than {path} says"
        if found.st_mtime_ns > written.st_mtime_ns:
            records.check_files(path, record)
    except UserError as error:
        return str(error)
    return None
