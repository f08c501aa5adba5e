"""Which process holds something, such as a run's folder or Snakemake's locks, and whether it lives.

Only of a process of this machine, and of this container, can that be known for sure.
"""

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

from lib.core.files import read_object

KINDS = {
    "host": str, "namespace": str, "user": int, "process": int, "process_start": int | float,
    "slurm_job": str | None,
}  # fmt: skip
MACHINE_ID = Path("/etc/machine-id")  # see its manual page; two machines may have one host name
# Between two looks at the start of one process: it is counted from the machine's start, by a clock
# that may have been set since.
TOLERANCE = 60.0  # seconds


@dataclass(frozen=True)
class Holder:
    """A process.

    Attributes:
        host: the name of its machine.
        namespace: in which its number is valid: its machine, and its container, if it is in one.
        user: whose it is, by number.
        process: its number.
        process_start: when it was started, in seconds since 1970.
        slurm_job: the id of its job, if it is one of Slurm's.
    """

    host: str
    namespace: str
    user: int
    process: int
    process_start: float
    slurm_job: str | None

    @classmethod
    def current(cls) -> Self:
        """Return this process."""
        process = psutil.Process()
        job = os.environ.get("SLURM_JOB_ID")
        place = (socket.gethostname(), _namespace(), os.getuid())
        return cls(*place, process.pid, process.create_time(), job)

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Return what a file says; None if there is none, or it is not readable as one."""
        content = read_object(path, KINDS)
        return cls(**content) if content else None

    def is_here(self) -> bool:
        """Return whether it is, or was, a process of this machine and container."""
        return (self.host, self.namespace) == (socket.gethostname(), _namespace())

    def has_ended(self) -> bool:
        """Return whether it was a process of this machine that has ended."""
        if not self.is_here():
            return False
        if not 0 < self.process < 2**31:
            return True  # no process has such a number
        try:
            os.kill(self.process, 0)  # psutil does not see what the system hides (hidepid)
            process = psutil.Process(self.process)
            if process.status() != psutil.STATUS_ZOMBIE:
                return abs(process.create_time() - self.process_start) > TOLERANCE
        except (PermissionError, psutil.AccessDenied):
            return False
        except (ProcessLookupError, psutil.NoSuchProcess):
            pass
        return True

    def __str__(self) -> str:
        """Name it."""
        job = f", Slurm job {self.slurm_job}" if self.slurm_job else ""
        return f"process {self.process} on {self.host}{job}"


def _namespace() -> str:
    """Return the namespace of this process's number; empty where the system has none."""
    found = []
    with suppress(OSError):
        found.append(MACHINE_ID.read_text(encoding="ascii").strip())
    with suppress(OSError):
        found.append(os.readlink("/proc/self/ns/pid"))  # noqa: PTH115 - its text is no path
    return " ".join(found)
