"""How a Slurm job has ended, and why: nothing but retries cures some ends.

Slurm's state says little: a training that saves a checkpoint when its time is up FAILED, and so
did one that has diverged, and one whose node lacks the environment. So the job reports: in a small
file beside Slurm's own log, `scripts/job.py` notes which of its runs have ended, and how. The
executor sees there, without asking Slurm, that a job has ended, and why; so do `make why` and
`resources.csv` (see `submissions`). The executor removes the file once the job has succeeded, and
that of a job that failed together with Slurm's log.

Slurm's own log is read only for Slurm's own words, since a cluster without accounting soon forgets
a job's state.
"""

import json
import os
import re
import signal
import threading
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Self

from lib.core.errors import NodeError, UserError
from lib.core.files import read_object, replace_text, select

TAIL = 20_000  # bytes of a log that are read
LAST_LINES = 5
STOPPED = 128 + signal.SIGTERM  # the exit status of what was asked to end
KILLED = (128 + signal.SIGKILL, STOPPED)
NOTICE = 90.0  # seconds before the time limit from which on Slurm may ask a training to end

# What a report has, and what it says of the end of a stage of a run.
REPORT = {
    "job_id": str, "attempt": int, "host": str, "began": str, "ended": str | None, "runs": dict,
}  # fmt: skip
STAGE_END = {"status": int, "cause": str | None}

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


@dataclass
class JobReport:
    """The report of a job.

    Attributes:
        job_id: Slurm's number of the job.
        attempt: how often Slurm has started it before.
        host: the node.
        began: when it was started, in ISO 8601.
        ended: when it has ended; None before.
        runs: of each run that has begun, by stage, the exit status and the cause of what has ended.
    """

    job_id: str
    attempt: int
    host: str
    began: str
    ended: str | None = None
    runs: dict[str, dict[str, dict]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Return what a file says; None if there is none, or it is not readable as one."""
        content = read_object(path, REPORT)
        return cls(**content) if content else None

    def status(self, run: str, stage: str) -> int | None:
        """Return the exit status of a stage of a run; None if it has not ended."""
        end = self._end(run, stage)
        return end["status"] if end else None

    def cause(self, run: str, stage: str) -> Cause | None:
        """Return why a stage of a run has ended without success; None if it has not."""
        end = self._end(run, stage)
        failed = end is not None and end["status"] != 0
        return Cause.__members__.get(end["cause"], Cause.UNKNOWN) if failed else None

    def _end(self, run: str, stage: str) -> dict | None:
        stages = self.runs.get(run)
        return select(stages.get(stage), STAGE_END) if isinstance(stages, dict) else None


class Reporter:
    """Writes the report of this job.

    Args:
        path: of the file; None where this is no job of Slurm's.
        report: of a job that has begun.
        minutes: the job's time limit.
    """

    def __init__(self, path: Path | None, report: JobReport, minutes: float):
        self.path, self.report, self.minutes = path, report, minutes
        self.lock = threading.Lock()
        if path is not None:
            path.unlink(missing_ok=True)  # of an earlier start, or of another job of that number
        self.write()

    def began(self, run: str, stage: str) -> None:
        """Say that a stage of a run has begun, perhaps once more."""
        with self.lock:
            self.report.runs.setdefault(run, {}).pop(stage, None)
            self.write()

    def ended(self, run: str, stage: str, status: int) -> None:
        """Say how a stage of a run has ended."""
        cause = cause_of_status(status, self.seconds_left()).name if status else None
        with self.lock:
            self.report.runs.setdefault(run, {})[stage] = {"status": status, "cause": cause}
            self.write()

    def end(self) -> None:
        """Say that the job ends."""
        with self.lock:
            self.report.ended = now().isoformat()
            self.write()

    def seconds_left(self) -> float:
        """Return the seconds until the job's time limit."""
        return (
            60 * self.minutes - (now() - datetime.fromisoformat(self.report.began)).total_seconds()
        )

    def write(self) -> None:
        """Write the file, unless Slurm has meanwhile started the job again, on another node."""
        if self.path is None:
            return
        other = JobReport.read(self.path)
        if other is None or other.attempt <= self.report.attempt:
            replace_text(self.path, json.dumps(asdict(self.report)))


def find_end(
    report: JobReport | None,
    run: str,
    stage: str,
    state: str,
    slurm_log: Path,
    own_log: Path | None,
    alone: bool,
) -> End:
    """Return how a stage of a run has ended.

    Args:
        report: of the Slurm job; None if it has left none.
        run: its name.
        stage: its name.
        state: Slurm's word for the end of the job; empty if Slurm has forgotten it.
        slurm_log: beside the report.
        own_log: of the stage, if it has one.
        alone: whether the job was for no other run.
    """
    began = report is not None and run in report.runs
    return End(
        state=state,
        slurm_log=slurm_log,
        log=own_log if began and own_log else slurm_log,
        began=report is not None,
        alone=alone,
        status=report.status(run, stage) if report else None,
        noted=report.cause(run, stage) if report else None,
    )


def now() -> datetime:
    """Return the time, with its zone."""
    return datetime.now().astimezone()
