"""The record of a prepared data set: its digests, and the catalog's entry of which it was made.

It is a small file beside the large one, so that a start of Snakemake can tell whether the data is
what it should be without reading it. This module imports no torch.
"""

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from lib.core import records
from lib.core.errors import TemporaryError, UserError
from lib.core.files import atomic_path, sha256
from lib.core.layout import audit_file, images_file, prepared_record
from lib.data import catalog, readers, tensor_file
from lib.data.readers import Reader
from lib.data.tensor_file import TensorFile

FORM = ("resize", "max_value", "framing")  # keys of an entry that an image for `predict` needs


@dataclass(frozen=True)
class Facts:
    """What a study has to know of its data set.

    Attributes:
        classes: their names, in the order of the labels 0, 1, ...
        train_size: the number of training images; with folds, where the most are tested.
        test_size: the number of test images, there.
        input_shape: channels, height and width of an image.
        folds: the number of test images of each fold, if there are folds.
    """

    classes: list[str]
    train_size: int
    test_size: int
    input_shape: list[int]
    folds: list[int] | None = None

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """The numbers of training and test images that a training may have."""
        images = self.train_size + self.test_size
        return [(images - test, test) for test in sorted(set(self.folds or [self.test_size]))]


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
    file, digest = TensorFile(prepared), hashlib.sha256()
    digest.update(file.metadata.get("classes", "").encode())
    for name in sorted(file.shapes):
        digest.update(f"\n{name} {file.dtypes[name]} {list(_earlier_shape(file, name))}\n".encode())
        for part in file.parts(name):
            digest.update(part)
    digest.update(file.metadata.get("images_sha256", "").encode())
    return digest.hexdigest()


def _earlier_shape(file: TensorFile, name: str) -> tuple[int, ...]:
    """Return the shape of a tensor as version 0.2 has written it, where it could."""
    shape = file.shapes[name]
    if name.endswith("_images") and len(shape) == 4 and shape[1] == 1:
        return shape[:1] + shape[2:]
    return () if name in ("mean", "std") and shape == (1,) else shape


def _file_sha256_of_version_0_2(prepared: Path) -> str:
    """Return the digest of the file that version 0.2 would have written.

    By it, the results of that version name their data.
    """
    file, digest = TensorFile(prepared), hashlib.sha256()
    shapes = {n: (dtype, _earlier_shape(file, n)) for n, dtype in file.dtypes.items()}
    parts = (part for name in tensor_file.in_order(file.dtypes) for part in file.parts(name))
    for part in tensor_file.content(shapes, file.metadata, parts):
        digest.update(part)
    return digest.hexdigest()


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
        "mtime_ns": prepared.stat().st_mtime_ns,
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
    file = TensorFile(prepared)
    classes = json.loads(file.metadata.get("classes", "[]"))
    if "fold" in file.shapes:
        (images, *shape), folds = file.shapes["images"], np.bincount(file.read("fold"))[1:].tolist()
        return Facts(classes, images - max(folds), max(folds), shape, folds)
    train, test = (list(file.shapes[f"{split}_images"]) for split in ("train", "test"))
    return Facts(classes, train[0], test[0], train[1:])


def verified(prepared: Path) -> Identity:
    """Return which data is in a prepared file, which is the one that its record describes.

    Raises:
        UserError: it is not, or cannot be read.
    """
    path = prepared_record(prepared)
    if not path.is_file():
        return Identity((content_sha256(prepared), _file_sha256_of_version_0_2(prepared)))
    record = records.read(path)
    try:
        check(prepared, path, record)
    except OSError as error:
        raise UserError(f"cannot read {prepared}: {error.strerror}") from error
    except UserError:
        # Newer than its record: so the next start of Snakemake reads it, and makes it again.
        with suppress(OSError):
            prepared.touch()
        raise
    return Identity(_names(record, prepared), record["dataset"], record.get("form"))


def check(prepared: Path, path: Path, record: dict) -> None:
    """Check that a prepared file is the one that its record, at `path`, describes.

    It is read only if its size or its time is another than when it was read last: the record then
    gets the time, and keeps its own.

    Raises:
        OSError: the file cannot be read.
        UserError: it is another one.
    """
    found = prepared.stat()
    if (found.st_size, found.st_mtime_ns) == (record["size"], record.get("mtime_ns")):
        return
    if found.st_size != record["size"] or sha256(prepared) != record["files"].get(prepared.name):
        raise UserError(
            f"{prepared} is truncated or corrupt: its digest is not the one in {path}. "
            "The next start of snakemake makes it again"
        )
    written = path.stat()
    with suppress(TemporaryError), atomic_path(path) as temporary:
        temporary.write_text(records.text(record | {"mtime_ns": found.st_mtime_ns}))
        os.utime(temporary, ns=(written.st_atime_ns, written.st_mtime_ns))


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

    Missing files are no damage.
    """
    path = prepared_record(prepared)
    if not (prepared.exists() and path.exists()):
        return None
    try:
        record = records.read(path)
        for name in record["files"]:
            if not path.with_name(name).is_file():
                return f"{path.with_name(name)} is missing"
        check(prepared, path, record)
    except OSError as error:
        return f"cannot read {prepared}: {error.strerror}"
    except UserError as error:
        return str(error)
    return None
