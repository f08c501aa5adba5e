"""Records: the JSON files that say what a run's files are, and that are as they were written.

A record holds the SHA-256 of each file that it describes, and a seal: the SHA-256 of all the rest
of its content. So a file that was damaged, edited, or put in the place of another is found by
whoever reads the record, and nobody needs to ask whether a record is complete.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lib.core import seeds
from lib.core.errors import UserError
from lib.core.files import read_json, sha256, write_text
from lib.core.layout import RunFiles

SEAL = "sha256"


def write(path: Path, content: dict[str, Any], files: Iterable[Path]) -> None:
    """Write a record of files in its own folder.

    Args:
        path: of the record.
        content: what it says; it gets the keys `files` and `sha256`.
        files: the files that it describes, as they are now.
    """
    content = content | {"files": {file.name: sha256(file) for file in files}}
    write_text(path, text(content))


def text(content: dict[str, Any]) -> str:
    """Return a record as it is in its file, with its seal."""
    return json.dumps(content | {SEAL: seal(content)}, indent=2) + "\n"


def read(path: Path) -> dict[str, Any]:
    """Read a record.

    Raises:
        UserError: it is missing, or is not as it was written; the message names it.
    """
    content = read_json(path)
    if not isinstance(content, dict) or SEAL not in content:
        raise UserError(f"{path} was not written by this version of the project, or is damaged")
    if content[SEAL] != seal(content):
        raise UserError(f"{path} was changed after it was written: its digest is another one")
    return content


def seal(content: dict[str, Any]) -> str:
    """Return the SHA-256 of a record's content, in whatever order, without its seal."""
    rest = {key: value for key, value in content.items() if key != SEAL}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def kept_row(record: dict[str, Any]) -> int:
    """Return the index, in a run's history, of the epoch whose weights are kept: -1 for the last.

    Args:
        record: of its training.
    """
    best = record.get("best")  # earlier versions have kept the last epoch
    return best["epoch"] - 1 if best else -1


def check_seed(files: RunFiles, record: dict[str, Any]) -> None:
    """Check that a run's folder is not named after another seed, or another fold.

    Raises:
        UserError: it is; the message names the record.
    """
    seed = seeds.of(record["settings"]["seed"], record["settings"].get("fold"))
    if files.seed not in (None, seed):
        raise UserError(f"{files.record} is of seed {seed}, not of seed {files.seed}")


def is_evaluation_of(evaluation: dict[str, Any], trained: dict[str, Any]) -> bool:
    """Return whether the record of an evaluation is of a training, and not of an earlier one."""
    return evaluation.get("run_sha256") == trained[SEAL]


def check_files(path: Path, record: dict[str, Any], newer: bool = False, but: str = "") -> None:
    """Check the files that a record describes.

    Args:
        path: of the record.
        record: its content.
        newer: whether to read only those that are newer than the record. All must be there.
        but: the name of a file that is not looked at.

    Raises:
        UserError: one is missing, or is another than the record describes; the message names it.
    """
    written = path.stat().st_mtime_ns if newer else 0
    for name, digest in record["files"].items():
        file = path.with_name(name)
        if name == but:
            continue
        try:
            if newer and file.stat().st_mtime_ns <= written:
                continue
            found = sha256(file)
        except OSError as error:
            raise UserError(f"cannot read {file}: {error.strerror}") from error
        if found != digest:
            raise UserError(f"{file} is truncated, corrupt, or not the file that {path} describes")
