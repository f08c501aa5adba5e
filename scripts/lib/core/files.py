"""Files that exist completely or not at all."""

import csv
import hashlib
import io
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from lib.core.errors import TemporaryError, UserError

# After so many seconds, a temporary file is taken for a leftover: of this machine if its process is
# dead (which may only be out of sight, in another container), of another machine in any case.
ABANDONED_HERE_AFTER, ABANDONED_ELSEWHERE_AFTER = 60, 24 * 3600


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; rename it to `path` when the block succeeds.

    The temporary file is removed when the block raises, and so is what a process that was killed
    has left of an earlier attempt. Missing parent folders are made.

    Raises:
        TemporaryError: the folder cannot be written, or is full.
    """
    temporary = temporary_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        # safetensors writes files that only their owner may read; ours are as any other.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TemporaryError(f"cannot write {path}: {reason}") from error
    finally:
        # Where the folder cannot be written there is nothing to remove.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def temporary_path(path: Path) -> Path:
    """Return a name beside `path` that no other living process uses."""
    return path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.part")


def sweep(path: Path) -> None:
    """Remove the temporary files of `path` whose process is dead."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.(.+)-([0-9]{{1,9}})\.part")
    with suppress(OSError):
        for other in path.parent.iterdir():
            match = pattern.fullmatch(other.name)
            if match and _abandoned(other, match[1], int(match[2])):
                with suppress(OSError):
                    other.unlink()


def _abandoned(temporary: Path, host: str, process: int) -> bool:
    """Return whether the process that writes a temporary file is dead, as far as can be seen."""
    age = time.time() - temporary.stat().st_mtime
    if host != socket.gethostname() or age < ABANDONED_HERE_AFTER:
        return age > ABANDONED_ELSEWHERE_AFTER
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False  # it lives, and is somebody else's
    return process == os.getpid()  # an earlier process of the same number


def _umask() -> int:
    """Return the process's umask, which can only be read by setting it."""
    umask = os.umask(0o022)
    os.umask(umask)
    return umask


def write_text(path: Path, text: str) -> None:
    """Write a text file, completely or not at all.

    What is not a character, such as a byte of a file's name that is not UTF-8, is written as its
    number.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def replace_text(path: Path, text: str) -> None:
    """Write a text file on which nothing depends: a reader sees it whole; a failure is ignored."""
    temporary = temporary_path(path)
    with suppress(OSError):
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
        return
    with suppress(OSError):
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as indented JSON, completely or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_csv(path: Path, columns: list[str], rows: list[dict]) -> None:
    """Write rows as CSV, completely or not at all; what is None or missing is left empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: it is missing or corrupt; the message names it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error


def read_object(path: Path, kinds: dict[str, Any]) -> dict[str, Any] | None:
    """Read a small JSON file that another process writes, and that may be damaged.

    Args:
        path: of the file.
        kinds: the keys that it must have, and the type of each, as `isinstance` takes it.

    Returns:
        The values of these keys; None if there is no such file, or it holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return select(content, kinds)


def select(content: Any, kinds: dict[str, Any]) -> dict[str, Any] | None:
    """Return the values of some keys; None if it is no mapping that has them with these types.

    An integer of more than 64 bits is none that we have written.
    """
    if not isinstance(content, dict):
        return None
    values = {key: content.get(key) for key in kinds}
    for key, value in values.items():
        too_large = isinstance(value, int) and abs(value) >= 2**63
        if not isinstance(value, kinds[key]) or too_large:
            return None
    return values


def check_folder(path: Path, where: str) -> None:
    """Check that a path is a folder, or can become one.

    Raises:
        UserError: a file is in its place, or in that of a folder above it; `where` names the key.
    """
    for each in (path, *path.parents):
        if each.exists() and not each.is_dir():
            raise UserError(f"{where}: {each} is a file, not a folder; name another folder")


def sha256(*paths: Path) -> str:
    """Return the SHA-256 of the files' contents, one after the other, in hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
    return digest.hexdigest()
