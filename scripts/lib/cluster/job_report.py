"""What a Slurm job says of itself: which of its runs have ended, and how.

`scripts/job.py` keeps it in a small file beside Slurm's own log. The executor sees there that a job
has ended, without asking Slurm, and how; so do `make why` and `resources.csv` (see `submissions`).
The executor removes the file once the job has succeeded, and of a job that failed with Slurm's log.
"""

import json
import threading
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Self

from lib.cluster.causes import Cause, End, cause_of_status
from lib.core.files import read_object, replace_text, select

KINDS = {
    "job_id": str, "attempt": int, "host": str, "began": str, "ended": str | None, "runs": dict,
}  # fmt: skip
END = {"status": int, "cause": str | None}


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
        content = read_object(path, KINDS)
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
        return select(stages.get(stage), END) if isinstance(stages, dict) else None


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


def end_of(
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
