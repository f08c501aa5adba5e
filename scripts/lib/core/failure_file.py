"""Why a training fails whenever it is tried: a small file that it writes, and anybody reads."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from lib.core.files import read_object, write_json


@dataclass(frozen=True)
class Failure:
    """The failure of a training that has this identity: settings, digests of data and code."""

    identity: dict[str, Any]
    message: str

    def write(self, path: Path) -> None:
        """Write the file, completely or not at all."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Return what a file says; None if there is none, or it is not readable as one."""
        content = read_object(path, {"identity": dict, "message": str})
        return cls(**content) if content else None
