"""What Slurm knows of a study's jobs, by experiment and seed rather than by number.

The executor writes down each job that it submits. So one query of sacct, bounded by the names of
the study's runs and by the time of the first one, is enough; a second one, of squeue, adds why a
job is pending, where there are any that have not ended.
"""

import csv
import math
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from lib.core import subprocesses
from lib.core.layout import Layout

SUBMISSION = "slurm_job_id,rule,experiment,seed,submitted,slurm_job_name".split(",")
FIELDS = (
    "JobID,State,ExitCode,Partition,NodeList,Submit,Start,ElapsedRaw,TimelimitRaw,ReqCPUS,ReqMem,"
    "TotalCPU,MaxRSS,Reason"
).split(",")
COMPLETED = "COMPLETED"
ACTIVE = "PENDING RUNNING CONFIGURING COMPLETING SUSPENDED REQUEUED PREEMPTED RESIZING".split()


_APPENDING = threading.Lock()  # submissions run in several threads
CLOCK_SKEW = timedelta(minutes=10)  # between this machine and Slurm's


@dataclass
class Job:
    """One Slurm job of a study. Times are as Slurm prints them, local; memory is in MiB."""

    job_id: str
    rule: str
    experiment: str
    seed: int
    state: str
    exit_code: str
    partition: str
    node: str
    submit: str
    start: str
    elapsed_seconds: int
    limit_minutes: int | None
    cpus: int
    mem_asked_mb: float | None
    mem_used_mb: float | None
    cpu_seconds: float
    reason: str

    @property
    def queue_seconds(self) -> float | None:
        """Seconds between the last submission and the start, or None if it never started."""
        try:
            return (_time(self.start) - _time(self.submit)).total_seconds()
        except ValueError:
            return None

    @property
    def cpu_efficiency(self) -> float | None:
        """Share of the cores' time that was used, 0 to 1."""
        available = self.elapsed_seconds * self.cpus
        return self.cpu_seconds / available if available else None

    @property
    def out_of_memory(self) -> bool:
        """Whether it was killed for using more memory than it asked for.

        Where Slurm enforces memory without cgroups (jobacct_gather with OverMemoryKill), such a job
        is FAILED, and only the memory that was counted tells why.
        """
        over = (self.mem_used_mb or 0) >= (self.mem_asked_mb or math.inf)
        return self.state == "OUT_OF_MEMORY" or (self.state == "FAILED" and over)

    @property
    def cause(self) -> str:
        """Say in words how the job ended, or what it is doing."""
        if self.out_of_memory:
            return "it used more memory than it asked for"
        return {
            "TIMEOUT": "it reached its time limit",
            "CANCELLED": "it was canceled (scancel, or Ctrl-C in Snakemake)",
            "PREEMPTED": "a job of higher priority took its place",
            "NODE_FAIL": "its node failed",
            "FAILED": f"it ended with exit code {self.exit_code}; its log says why",
            "PENDING": f"it is pending ({self.reason})",
            "RUNNING": "it is running",
            COMPLETED: "it succeeded",
        }.get(self.state, self.state)


def record_submission(files: Layout, job_id: str, name: str, job) -> None:
    """Append a job to the list of those that were submitted.

    Args:
        files: of the study.
        job_id: Slurm's number of the job.
        name: Slurm's name of the job, which all jobs of one run of Snakemake share.
        job: what Snakemake submitted: a rule's `name`, and `wildcards`.

    Raises:
        OSError: the list cannot be written.
    """
    files.submissions.parent.mkdir(parents=True, exist_ok=True)
    wildcards = dict(job.wildcards.items())
    row = [job_id, job.name, wildcards.get("experiment", ""), wildcards.get("seed", "")]
    with _APPENDING, files.submissions.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if not file.tell():
            writer.writerow(SUBMISSION)
        writer.writerow([*row, datetime.now().isoformat(timespec="seconds"), name])


def jobs(files: Layout) -> list[Job]:
    """Return the study's jobs, in the order in which they were submitted.

    Without accounting, only those that squeue still knows; without Slurm, none.
    """
    submitted = _submissions(files)
    if not submitted:
        return []
    names = ",".join(dict.fromkeys(each["slurm_job_name"] for each in submitted.values()))
    first = min(each["submitted"] for each in submitted.values())
    since = (_time(first) - CLOCK_SKEW).isoformat()
    found = _from_sacct(names, since, submitted)
    if any(job_id not in found or found[job_id].state in ACTIVE for job_id in submitted):
        # sacct is some seconds behind, and does not know why a job is pending.
        found |= _from_squeue(names, submitted)
    return [found[job_id] for job_id in submitted if job_id in found]


def _submissions(files: Layout) -> dict[str, dict[str, str]]:
    """Return the rows of the list by job id; none if nothing was submitted yet."""
    try:
        text = files.submissions.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    rows = {}
    for line in text.splitlines():
        try:
            row = dict(zip(SUBMISSION, *csv.reader([line]), strict=True))
        except (ValueError, TypeError, csv.Error):
            continue  # cut off while it is being written, or because the disk was full
        if _is_submission(row):
            rows[row["slurm_job_id"]] = row
    return rows


def _is_submission(row: dict[str, str]) -> bool:
    """Return whether a row is as `record_submission` writes it."""
    try:
        after_slurm_began = _time(row["submitted"]) > datetime(2000, 1, 1)
    except (ValueError, TypeError):
        return False
    numbers = re.fullmatch(r"[0-9]{1,18},[0-9]{0,19}", f"{row['slurm_job_id']},{row['seed']}")
    name = row["slurm_job_name"]
    return bool(after_slurm_began and numbers and name and name.isprintable())


def _from_sacct(names: str, since: str, submitted: dict) -> dict[str, Job]:
    text = _output(
        "sacct",
        "--noheader",
        "--parsable2",
        "--duplicates",
        f"--name={names}",
        f"--starttime={since}",
        f"--format={','.join(FIELDS)}",
        "--units=M",
    )
    found: dict[str, Job] = {}
    for row in _rows(text, FIELDS):
        job_id, _, step = row["JobID"].partition(".")
        if step and job_id in found:
            # Memory and processor time are the steps'; the job's own row has no memory.
            used, known = _megabytes(row["MaxRSS"]), found[job_id].mem_used_mb
            found[job_id].mem_used_mb = max(filter(None, (used, known)), default=None)
        elif job_id in submitted and not step:
            found[job_id] = _job(row, submitted[job_id])  # of a requeued job the last row counts
    return found


def _from_squeue(names: str, submitted: dict) -> dict[str, Job]:
    columns = {
        "JobID": "%i", "State": "%T", "Partition": "%P", "NodeList": "%N", "Submit": "%V",
        "Start": "%S", "Elapsed": "%M", "Limit": "%l", "ReqCPUS": "%C", "ReqMem": "%m",
        "Reason": "%r",
    }  # fmt: skip
    text = _output(
        "squeue", f"--name={names}", "--noheader", f"--format={'|'.join(columns.values())}"
    )
    found = {}
    for row in _rows(text, list(columns)):
        if row["JobID"] in submitted:
            limit = round(slurm_seconds(row["Limit"]) / 60)
            row |= {"ElapsedRaw": int(slurm_seconds(row["Elapsed"])), "TimelimitRaw": str(limit)}
            row |= {"ExitCode": "", "TotalCPU": ""}
            found[row["JobID"]] = _job(row, submitted[row["JobID"]])
    return found


def _rows(text: str, columns: list[str]) -> Iterator[dict[str, str]]:
    """Yield the rows of a table of Slurm's; a line that is none, such as a warning, is left out."""
    for line in text.splitlines():
        cells = line.split("|", len(columns) - 1)
        if len(cells) == len(columns) and cells[columns.index("State")].strip():
            yield dict(zip(columns, cells, strict=True))


def _job(row: dict[str, str], submission: dict[str, str]) -> Job:
    return Job(
        job_id=row["JobID"],
        rule=submission["rule"],
        experiment=submission["experiment"],
        seed=int(submission["seed"] or 0),
        state=row["State"].split()[0],  # CANCELLED by 1000
        exit_code=row["ExitCode"],
        partition=row["Partition"],
        node=row["NodeList"],
        submit=row["Submit"],
        start=row["Start"],
        elapsed_seconds=int(row["ElapsedRaw"] or 0),
        limit_minutes=int(row["TimelimitRaw"]) if row["TimelimitRaw"].isdigit() else None,
        cpus=int(row["ReqCPUS"] or 1),
        mem_asked_mb=_megabytes(row["ReqMem"]),
        mem_used_mb=None,
        cpu_seconds=slurm_seconds(row["TotalCPU"]),
        reason=row["Reason"],
    )


def _megabytes(text: str) -> float | None:
    """Read Slurm's `3072M`, `1.5G`, `900K`, with a trailing `n` or `c` in old versions."""
    match = re.fullmatch(r"([\d.]+)([KMGT]?)[nc]?", text or "")
    scale = {"K": 1 / 1024, "": 1, "M": 1, "G": 1024, "T": 1024**2}
    return float(match[1]) * scale[match[2]] if match else None


def slurm_seconds(text: str) -> float:
    """Read Slurm's `[days-][hours:]minutes:seconds[.fraction]`; what is not a time is 0."""
    days, _, rest = (text or "").rpartition("-")
    try:
        total = 0.0
        for part in rest.split(":"):
            total = total * 60 + float(part)
        return total + 86400 * int(days or 0)
    except ValueError:
        return 0.0


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _output(*command: str) -> str:
    """Return what a command prints; nothing where it cannot run or fails."""
    done = subprocesses.run(command)
    return done.stdout if done.ok else ""
