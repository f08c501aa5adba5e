"""Why a job has ended without success: nothing but retries cures some.

Slurm's state says little: a training that saves a checkpoint when its time is up FAILED, and so did
one that has diverged, and one whose node lacks the environment. What the job itself has noted (see
`job_report`) says the rest. Slurm's own log is read only for Slurm's own words, since a cluster
without accounting soon forgets a job's state.
"""

import os
import re
import signal
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from lib.core.errors import NodeError, UserError

TAIL = 20_000  # bytes of a log that are read
LAST_LINES = 5
STOPPED = 128 + signal.SIGTERM  # the exit status of what was asked to end
KILLED = (128 + signal.SIGKILL, STOPPED)
NOTICE = 90.0  # seconds before the time limit from which on Slurm may ask a training to end

OUT_OF_MEMORY = re.compile(
    r"exceeded memory limit|oom[-_ ]?kill|out[- ]of[- ]memory handler", re.IGNORECASE
)
OUT_OF_TIME = re.compile(r"DUE TO TIME LIMIT")
CANCELED = re.compile(r"\*\*\* (JOB|STEP) \S+ ON .* CANCELLED AT")


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
    """How a job of Snakemake's has ended.

    Attributes:
        state: Slurm's word for the end of the Slurm job; empty if Slurm has forgotten it.
        slurm_log: what was written outside of the job's own commands.
        log: the job's own; Slurm's where its commands have not begun.
        began: whether the Slurm job has begun.
        alone: whether the Slurm job was for no other.
        status: the exit status of its commands; None if they have not ended.
        noted: why, as the Slurm job itself has noted it.
    """

    state: str
    slurm_log: Path | None
    log: Path | None
    began: bool = True
    alone: bool = True
    status: int | None = None
    noted: Cause | None = None


def cause_of_status(status: int, seconds_left: float) -> Cause:
    """Return why commands have ended with an exit status other than 0.

    Args:
        status: the exit status.
        seconds_left: until the time limit of the job.
    """
    if status == STOPPED and seconds_left < NOTICE:
        return Cause.TIME
    return {UserError.status: Cause.DETERMINISTIC, NodeError.status: Cause.NODE}.get(
        status, Cause.UNKNOWN
    )


def cause_of(end: End) -> Cause:
    """Return why a job has ended without success.

    A Slurm job of many runs fails where one of them fails. If a run has failed of itself, its own
    exit status says why. If it was killed, or has never begun, the cause is what has ended the
    Slurm job.
    """
    if not end.alone and end.status not in (None, *KILLED):
        return end.noted
    said = tail(end.slurm_log)
    if end.state == "OUT_OF_MEMORY" or OUT_OF_MEMORY.search(said):
        return Cause.MEMORY
    if end.state == "TIMEOUT" or OUT_OF_TIME.search(said) or end.noted is Cause.TIME:
        return Cause.TIME
    if end.state in ("CANCELLED", "PREEMPTED", "NODE_FAIL", "REVOKED") or CANCELED.search(said):
        return Cause.EXTERNAL
    if end.state == "BOOT_FAIL":
        return Cause.NODE
    if end.state == "DEADLINE":
        return Cause.DETERMINISTIC
    return end.noted or (Cause.UNKNOWN if end.began else Cause.NODE)


def tail(path: Path | None) -> str:
    """Return the end of a log; nothing where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            return file.read().decode(errors="replace")
    except (OSError, AttributeError):
        return ""


def last_words(end: End) -> str:
    """Return the last lines of the log of a job that has ended."""
    lines = [line for line in tail(end.log).splitlines() if line.strip()]
    return "\n".join(lines[-LAST_LINES:]) or "it left no log"
