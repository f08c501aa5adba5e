"""When Slurm is asked about the jobs of a run, and how: rarely, with one query for all of them.

The runs' own files cost Slurm nothing. So they are looked at often, and Slurm is asked at a long
interval, and soon after a file says that a job has ended.
"""

import shutil
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from lib.cluster import causes, jobs, slurm

GAP = 10.0  # seconds between queries because of a file, at the least
FRESH = 60.0  # seconds for which a file is a reason to ask

# What a job's files looked like when it was submitted, and when it was seen that it has ended.
FILES_BEFORE, ENDED = "files", "ended"


@dataclass(frozen=True)
class Status:
    """What a query says of one job. Without accounting, the exit code is empty."""

    state: str
    node: str
    exit_code: str = ""


class Polling:
    """When to ask.

    Args:
        interval: seconds between queries while no file changes.
    """

    def __init__(self, interval: float):
        self.interval = interval
        self.asked = time.monotonic()

    def is_due(self, active: Iterable) -> bool:
        """Return whether to ask now, and count that as asked."""
        now = time.monotonic()
        fresh = False
        for some in by_slurm_job(active).values():
            ended = all(_ended(job, now) for job in some)
            fresh = fresh or (ended and now - max(job.aux[ENDED] for job in some) < FRESH)
        wait = min(GAP, self.interval) if fresh else self.interval
        if now - self.asked < wait:
            return False
        self.asked = now
        return True


def by_slurm_job(active: Iterable) -> dict[str, list]:
    """Return submitted jobs by Slurm's number: those of a pack have the same."""
    found = defaultdict(list)
    for job in active:
        found[job.external_jobid].append(job)
    return found


def _ended(job, now: float) -> bool:
    """Return whether a submitted job's own files say that it has ended; note when that was seen."""
    if (
        ENDED not in job.aux
        and FILES_BEFORE in job.aux
        and has_ended(job.job, job.aux[FILES_BEFORE])
    ):
        job.aux[ENDED] = now
    return ENDED in job.aux


def has_ended(job, before: list[tuple[int, int] | None]) -> bool:
    """Return whether a job's own files say that it has ended: a new record, or an exit status.

    That is a reason to ask Slurm. What the job has done is in the record.
    """
    record, log = signatures(job)
    failed = log != before[1] and causes.exit_status(log_of(job)) is not None
    return failed or record not in (None, before[0])


def signatures(job) -> list[tuple[int, int] | None]:
    """Return time and size of what a job writes last, its record, and of its log, if they exist."""
    return [_signature(Path(str(job.output[-1]))), _signature(log_of(job))]


def _signature(path: Path | None) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except (OSError, AttributeError):
        return None
    return found.st_mtime_ns, found.st_size


def log_of(job) -> Path | None:
    """Return a job's own log, if its rule has one."""
    return Path(str(job.log[0])) if job.log else None


def query(command: list[str]) -> dict[str, Status] | None:
    """Ask Slurm; return what it says by job id, or None if it does not answer."""
    done = slurm.run(command)
    if not done.ok:
        return None
    rows = [line.split("|") for line in done.stdout.splitlines()]
    # A state can have more words, such as `CANCELLED by 1000`.
    return {
        row[0]: Status(row[1].split()[0], *row[2:])
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
    began = (datetime.now() - jobs.CLOCK_SKEW).isoformat(timespec="seconds")
    return [
        *("sacct", "-X", "--parsable2", "--noheader", "--clusters", "all"),
        *("--format", "JobIdRaw,State,NodeList,ExitCode"),
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
        done = slurm.run(sacct(run_id))
        if done.ok:
            return sacct(run_id)
        problem = done.message.splitlines()[-1]
    logger.warning(f"no accounting here (sacct: {problem}): the jobs are looked for in squeue")
    return squeue(run_id)
