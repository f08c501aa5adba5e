"""A copy of the prepared data on a node's own disk: a shared file system is slow at random reads.

The first process of a Slurm job that needs the data copies it. `scripts/job.py` removes the copy at
the end of the job.
"""

import hashlib
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from lib.core import records
from lib.core.errors import UserError
from lib.core.layout import prepared_record

VARIABLES = ("SLURM_TMPDIR", "TMPDIR")  # that name a folder of the node's own disk
BLOCK = 1 << 20  # bytes


def staged(prepared: Path) -> Path:
    """Return the copy of a prepared file on this node; or the file itself, saying why.

    Raises:
        UserError: what was read is not what the file's record describes.
    """
    folder, job = local_folder(), os.environ.get("SLURM_JOB_ID")
    if not job:
        return prepared
    if folder is None:
        print(f"stage: neither of {', '.join(VARIABLES)} names a folder: {prepared} is not copied")
        return prepared
    path = folder / f"{prefix(job)}{prepared.name}"
    try:
        with FileLock(f"{path}.lock"):
            if not path.exists():
                copy(prepared, path)
    except OSError as error:
        print(f"stage: {prepared} is not copied to {folder}: {error.strerror or error}")
        return prepared
    return path


def local_folder() -> Path | None:
    """Return the folder for the files of a job on the node's own disk, if there is one."""
    named = (Path(os.environ[name]) for name in VARIABLES if os.environ.get(name))
    return next((folder for folder in named if folder.is_dir()), None)


def prefix(job: str) -> str:
    """Return how the names of a Slurm job's copies begin."""
    return f"staged-{job}-"


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


def remove() -> None:
    """Remove what this Slurm job has copied."""
    folder, job = local_folder(), os.environ.get("SLURM_JOB_ID")
    if folder and job:
        for path in folder.glob(f"{prefix(job)}*"):
            with suppress(OSError):
                path.unlink()
