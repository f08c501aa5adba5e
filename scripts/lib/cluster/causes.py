"""Why a Slurm job has ended without success, and what follows: nothing but retries cures some.

Slurm's state says little: a training that saves a checkpoint when its time is up FAILED, and so did
one that has diverged, and one whose node lacks the environment. So the logs are read too: the rules
begin that of a job with its number, and end it with its exit status.
"""

import dataclasses
import os
import re
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path

from lib.core.errors import NodeError

TAIL = 20_000  # bytes of a log that are read
LAST_LINES = 5
KILLED = (128 + 9, 128 + 15)  # exit statuses of what Slurm, or somebody, has ended
NOTICE = 90.0  # seconds before the time limit from which on Slurm may ask a training to end

BEGAN = re.compile(r"^(\S+) on (\S+), Slurm job (\S+)$", re.MULTILINE)
EXIT_STATUS = re.compile(r"^exit status (\d+)$", re.MULTILINE)
OUT_OF_MEMORY = re.compile(
    r"exceeded memory limit|oom[-_ ]?kill|out[- ]of[- ]memory handler", re.IGNORECASE
)
OUT_OF_TIME = re.compile(r"DUE TO TIME LIMIT")
CANCELED = re.compile(r"\*\*\* (JOB|STEP) \S+ ON .* CANCELLED AT")
# Words of the shell, of Slurm's daemon and of the operating system where a job could not begin.
NODE_FAULT = re.compile(
    r"(?:slurm_script|sh|bash|srun|execve|slurmstepd)\b.*"
    r"(?:not found|No such file or directory|can't cd|couldn't chdir|Permission denied|"
    r"cannot execute|Prolog)|No space left on device|Read-only file system|Stale file handle|"
    r"Input/output error|Transport endpoint is not connected|Bus error",
    re.IGNORECASE,
)


class Cause(Enum):
    """Why a job has ended, as far as it decides what follows."""

    MEMORY = "it was killed for using more memory than it asked for"
    TIME = "it reached its time limit"
    EXTERNAL = "it was preempted or canceled, or its node failed"
    NODE = "its node cannot run it"
    DETERMINISTIC = "it fails whenever it is tried"
    UNKNOWN = "it failed"


@dataclass(frozen=True)
class End:
    """How a job has ended. What Slurm has forgotten is empty.

    Attributes:
        job_id: Slurm's number of the job.
        state: Slurm's word for it.
        exit_code: of Slurm's accounting, such as `127:0`.
        limit_minutes: the time that the job asked for.
        log: the job's own.
        slurm_log: what was written outside of the job's own commands.
    """

    job_id: str
    state: str
    exit_code: str
    limit_minutes: float
    log: Path | None
    slurm_log: Path | None

    @property
    def began(self) -> re.Match | None:
        """The line with which the job's own log begins; None if there is none of this job."""
        lines = [line for line in BEGAN.finditer(whole(self.log)) if line[3] == self.job_id]
        return lines[-1] if lines else None

    @property
    def exit_status(self) -> int | None:
        """The exit status of the job's own commands; None if it is not known."""
        return exit_status(self.log) if self.began else None

    @property
    def out_of_time(self) -> bool:
        """Whether it was asked to end within the last seconds of its time."""
        if self.exit_status != 128 + 15 or self.log is None:
            return False
        start = datetime.fromisoformat(self.began[1]).timestamp()
        return self.log.stat().st_mtime - start >= 60 * self.limit_minutes - NOTICE


def cause_of(end: End) -> Cause:
    """Return why a job has ended without success."""
    said = tail(end.slurm_log)
    if end.state == "OUT_OF_MEMORY" or OUT_OF_MEMORY.search(said):
        return Cause.MEMORY
    if end.state == "TIMEOUT" or OUT_OF_TIME.search(said) or end.out_of_time:
        return Cause.TIME
    if end.state in ("CANCELLED", "PREEMPTED", "NODE_FAIL", "REVOKED") or CANCELED.search(said):
        return Cause.EXTERNAL
    if end.state == "BOOT_FAIL" or _could_not_begin(end, said):
        return Cause.NODE
    if end.state == "DEADLINE":
        return Cause.DETERMINISTIC
    return {1: Cause.DETERMINISTIC, NodeError.status: Cause.NODE}.get(
        end.exit_status, Cause.UNKNOWN
    )


def cause_in_pack(end: End) -> Cause:
    """Return why a run has ended without success that was one of many in its Slurm job.

    Such a job fails where another run fails. If this one has failed of itself, its own log says
    why. If it was killed, or never began, the cause is what has ended the Slurm job, if anything
    has: the log of that says so.
    """
    if end.exit_status not in (None, *KILLED):
        return cause_of(dataclasses.replace(end, state="FAILED", slurm_log=None))
    cause = cause_of(dataclasses.replace(end, log=end.slurm_log))
    return Cause.UNKNOWN if cause is Cause.DETERMINISTIC else cause


def _could_not_begin(end: End, said: str) -> bool:
    """Return whether a job ended before its own commands began, for a reason of its node's."""
    if end.began:
        return False
    status = end.exit_code.partition(":")[0]
    no_log = end.slurm_log is not None and not end.slurm_log.exists()
    return status in ("126", "127") or no_log or bool(NODE_FAULT.search(said))


def exit_status(log: Path | None) -> int | None:
    """Return the exit status with which a job's own log ends; None if it does not."""
    last = tail(log, 200).rstrip("\n").rpartition("\n")[2]
    match = EXIT_STATUS.fullmatch(last)
    return int(match[1]) if match else None


def tail(path: Path | None, size: int = TAIL) -> str:
    """Return the end of a log; nothing where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            return file.read().decode(errors="replace")
    except (OSError, AttributeError):
        return ""


def whole(path: Path | None) -> str:
    """Return a log; nothing where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (OSError, AttributeError):
        return ""


def last_words(end: End) -> str:
    """Return the last lines of what says why a job has ended: its own log, or Slurm's."""
    said = whole(end.log)[end.began.end() :] if end.began else tail(end.slurm_log)
    lines = [line for line in EXIT_STATUS.sub("", said).splitlines() if line.strip()]
    return "\n".join(lines[-LAST_LINES:]) or "it left no log"
