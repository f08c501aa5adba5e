"""Why a training fails whenever it is tried: a small file that it writes, and anybody reads."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from lib.core.files import read_object, write_json


@dataclass(frozen=True)
class Failure:
    """The failure of a training of these settings, of data and files of the code by digest."""

    settings: dict[str, Any]
    data_sha256: str
    code: dict[str, str]
    message: str

    def write(self, path: Path) -> None:
        """Write the file, completely or not at all."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Return what a file says; None if there is none, or it is not readable as one."""
        kinds = {"settings": dict, "data_sha256": str, "code": dict, "message": str}
        content = read_object(path, kinds)
        return cls(**content) if content else None
