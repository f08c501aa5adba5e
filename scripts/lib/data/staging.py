"""A copy of the prepared data on a node's own disk: a shared file system is slow at random reads.

A Slurm job makes a folder there, which is gone when the job ends (`scripts/job.py`). The first of
its processes that needs the data copies it into this folder.
"""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from lib.core import records
from lib.core.errors import UserError
from lib.core.layout import prepared_record

VARIABLES = ("SLURM_TMPDIR", "TMPDIR")  # that name a folder of the node's own disk
FOLDER = "STAGING_FOLDER"  # the variable that names that of this job
BLOCK = 1 << 20  # bytes


@contextmanager
def folder_of_job() -> Iterator[dict[str, str]]:
    """Make a folder on the node's own disk, and remove it in the end; yield its variable."""
    named = (Path(os.environ[name]) for name in VARIABLES if os.environ.get(name))
    disk = next((folder for folder in named if folder.is_dir()), None)
    if disk is None:
        print(f"stage: none of {', '.join(VARIABLES)} names a folder: the data is not copied")
        yield {}
        return
    try:
        folder = tempfile.mkdtemp(prefix="staged-", dir=disk)
    except OSError as error:
        print(f"stage: cannot write to {disk}: {error.strerror}: the data is not copied")
        yield {}
        return
    try:
        yield {FOLDER: folder}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def staged(prepared: Path) -> Path:
    """Return the copy of a prepared file on this node; or the file itself, saying why.

    Where there is no folder for copies, it is the file itself.

    Raises:
        UserError: what was read is not what the file's record describes.
    """
    if FOLDER not in os.environ:
        return prepared
    found = prepared.stat()
    which = f"{prepared.absolute()} {found.st_size} {found.st_mtime_ns}"
    path = Path(os.environ[FOLDER], hashlib.sha256(which.encode()).hexdigest()[:16], prepared.name)
    try:
        path.parent.mkdir(exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not path.exists():
                copy(prepared, path)
    except OSError as error:
        print(f"stage: {prepared} is not copied to {path}: {error.strerror or error}")
        return prepared
    return path


def copy(prepared: Path, path: Path) -> None:
    """Copy a prepared file, completely or not at all.

    Raises:
        OSError: there is no room, or a file cannot be read or written.
        UserError: what was read is not what the file's record describes.
    """
    start, size = time.monotonic(), prepared.stat().st_size
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise OSError(f"it has {size / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free")
    part, digest = path.with_name(f"{path.name}.part"), hashlib.sha256()
    try:
        with prepared.open("rb") as source, part.open("wb") as target:
            for block in iter(lambda: source.read(BLOCK), b""):
                digest.update(block)
                target.write(block)
        record = prepared_record(prepared)
        expected = records.read(record)["files"].get(prepared.name) if record.is_file() else None
        if expected not in (None, digest.hexdigest()):
            raise UserError(f"{prepared} is truncated or corrupt: {record} describes another file")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    seconds = time.monotonic() - start
    print(f"stage: {prepared} was copied to {path}: {size / 1e6:,.0f} MB in {seconds:.1f} s")
