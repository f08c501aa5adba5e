"""Adoptions: which runs stay valid for other code than they were trained and evaluated by, and why.

`results/adoptions.json` has a list of them, and is sealed as a record is. The records of the runs
stay as they are. An adoption names the seals of the records that it is about, and the code for
which they are valid: of each of its files, the digest of what it means.
"""

from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lib.core import records
from lib.core.errors import UserError
from lib.core.layout import RunFiles


@dataclass(frozen=True)
class Adoption:
    """An adoption of one run.

    Attributes:
        run: its name, such as `cnn/seed1`.
        records: the seals of its records.
        code: the digest of what each file of the code means, by its path below `scripts/`.
        proof: what has shown that the code computes the same, in words; None where nothing has.
        reason: why it is adopted without proof; else None.
        date: when, in UTC, ISO 8601.
        version: of this project.
        git_commit: of the code; None if it is not known.
    """

    run: str
    records: list[str]
    code: dict[str, str]
    proof: str | None
    reason: str | None
    date: str
    version: str
    git_commit: str | None

    @property
    def text(self) -> str:
        """Say it, but for the run's name."""
        how = f"by {self.proof}" if self.proof else f"without proof: {self.reason}"
        return f"valid for later code {how} ({self.date[:10]}, version {self.version})"


def read(path: Path) -> list[Adoption]:
    """Return the adoptions in a file, the earliest first; none if there is no such file.

    Raises:
        UserError: it is not as it was written; the message names it.
    """
    return list(_read(path, path.stat().st_mtime_ns)) if path.exists() else []


@lru_cache(maxsize=8)
def _read(path: Path, _changed: int) -> tuple[Adoption, ...]:
    try:
        return tuple(Adoption(**each) for each in records.read(path)["adoptions"])
    except UserError as error:
        hint = "Remove it to do without it: what it kept is then out of date"
        raise UserError(f"{error}. {hint}") from error


def add(path: Path, new: list[Adoption]) -> None:
    """Add adoptions to a file.

    Raises:
        UserError: it is not as it was written, or cannot be written; the message names it.
    """
    known = {(each.run, *sorted(each.code.items())): each for each in (*read(path), *new)}
    records.write(path, {"adoptions": [asdict(each) for each in known.values()]}, [])


def of(files: RunFiles, record: dict[str, Any]) -> list[Adoption]:
    """Return the adoptions of a record of a run, the earliest first.

    Raises:
        UserError: the file of the adoptions is not as it was written; the message names it.
    """
    every = read(files.adoptions) if files.adoptions else []
    return [each for each in every if record.get(records.SEAL) in each.records]


def codes_of(files: RunFiles, record: dict[str, Any]) -> list[dict[str, str]]:
    """Return the codes for which a record is valid: its own, and those that it was adopted for.

    Raises:
        UserError: the file of the adoptions is not as it was written; the message names it.
    """
    return [record["code"], *(each.code for each in of(files, record))]
