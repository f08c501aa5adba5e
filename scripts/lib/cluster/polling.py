"""When Slurm is asked about the jobs of a run, and how: rarely, with one query for all of them.

The jobs' own reports cost Slurm nothing. So they are looked at often, and Slurm is asked at a long
interval, and soon after a report says that its job has ended.
"""

import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from lib.cluster import slurm, submissions
from lib.cluster.job_end import JobReport

GAP = 10.0  # seconds between queries because of a report, at the least
FRESH = 60.0  # seconds for which a report is a reason to ask


@dataclass(frozen=True)
class Status:
    """What a query says of one job."""

    state: str
    node: str


class Polling:
    """When to ask.

    Args:
        interval: seconds between queries while no job reports its end.
    """

    def __init__(self, interval: float):
        self.interval = interval
        self.asked = time.monotonic()
        self.ends: dict[Path, tuple[str, float]] = {}  # by report: the end, and when it was seen

    def is_due(self, reports: Iterable[Path]) -> bool:
        """Return whether to ask now, and count that as asked."""
        now = time.monotonic()
        fresh = [path for path in reports if self._says_an_end(path, now)]
        wait = min(GAP, self.interval) if fresh else self.interval
        if now - self.asked < wait:
            return False
        self.asked = now
        return True

    def _says_an_end(self, path: Path, now: float) -> bool:
        """Return whether a report has said for less than a minute that its job has ended."""
        report = JobReport.read(path)
        if report is None or report.ended is None:
            return False
        if self.ends.get(path, ("", 0.0))[0] != report.ended:
            self.ends[path] = report.ended, now
        return now - self.ends[path][1] < FRESH


def query(command: list[str]) -> dict[str, Status] | None:
    """Ask Slurm; return what it says by job id, or None if it does not answer."""
    done = slurm.run(command)
    if not done.ok:
        return None
    rows = [line.split("|") for line in done.stdout.splitlines()]
    # A state can have more words, such as `CANCELLED by 1000`.
    return {
        row[0]: Status(row[1].split()[0], row[2])
        for row in rows
        if len(row) >= 3 and row[1].strip()
    }


def status_of(job_id: str, found: dict[str, Status]) -> Status | None:
    """Return what a query says of a job; None if it is not known.

    A task of an array, such as 7_3, may be known by the number of the array only.
    """
    return found.get(job_id) or found.get(job_id.partition("_")[0])


def sacct(run_id: str) -> list[str]:
    """Return the query of accounting, which knows each job of a run, also long after its end."""
    began = (datetime.now() - submissions.CLOCK_SKEW).isoformat(timespec="seconds")
    return [
        *("sacct", "-X", "--parsable2", "--noheader", "--clusters", "all"),
        *("--format", "JobIdRaw,State,NodeList"),
        *("--starttime", began, "--endtime", "now", "--name", run_id),
    ]


def squeue(run_id: str) -> list[str]:
    """Return the query of the queue, which soon forgets a job that has ended."""
    return ["squeue", "--all", "--states=all", "--noheader", "--format=%i|%T|%N", "--name", run_id]


def choose(wish: str, run_id: str, logger) -> list[str]:
    """Return the query to use: that of the profile, if it works.

    Args:
        wish: `slurm-status-command`.
        run_id: the name of the jobs.
        logger: is told where accounting does not answer.
    """
    if wish == "squeue":
        return squeue(run_id)
    problem = "it is not on the PATH"
    if shutil.which("sacct"):
        done = slurm.run(sacct(run_id), slurm.PATIENCE)
        if done.ok:
            return sacct(run_id)
        problem = done.message.splitlines()[-1]
    logger.warning(f"no accounting here (sacct: {problem}): the jobs are looked for in squeue")
    return squeue(run_id)
