"""What Slurm knows of a study's jobs, by experiment and seed rather than by number.

The executor writes down each job that it submits. So one query of sacct, bounded by the names of
the study's runs and by the time of the first one, is enough; a second one, of squeue, adds why a
job is pending, where there are any that have not ended. Two studies in one clone have two lists.
"""

import csv
import dataclasses
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from lib.cluster import slurm
from lib.cluster.job_end import Cause, End, JobReport, cause_of, find_end
from lib.core import seeds, subprocesses
from lib.core.layout import STAGES, Layout, run_name
from lib.core.seeds import Seed

SUBMISSION = "slurm_job_id,rule,experiment,seed,submitted,slurm_job_name".split(",")
FIELDS = (
    "JobID,State,ExitCode,Partition,NodeList,Submit,Start,ElapsedRaw,TimelimitRaw,ReqCPUS,AllocCPUS,"
    "ReqMem,TotalCPU,MaxRSS,Reason"
).split(",")
# Of squeue. For `%C`, a job that runs has the cores that it got; `%c` is what it asked for.
COLUMNS = {
    "JobID": "%i", "State": "%T", "Partition": "%P", "NodeList": "%N", "Submit": "%V",
    "Start": "%S", "Elapsed": "%M", "Limit": "%l", "ReqCPUS": "%c", "AllocCPUS": "%C",
    "ReqMem": "%m", "Reason": "%r",
}  # fmt: skip
COMPLETED = "COMPLETED"
UNKNOWN = "UNKNOWN"  # of a job that Slurm does not know any more
WAITING = "PENDING CONFIGURING REQUEUED REQUEUE_FED REQUEUE_HOLD".split()
ACTIVE = [*WAITING, *"RUNNING COMPLETING SUSPENDED STOPPED SIGNALING STAGE_OUT RESIZING".split()]


_APPENDING = threading.Lock()  # submissions run in several threads
CLOCK_SKEW = timedelta(minutes=10)  # between this machine and Slurm's
LARGEST_MB = 2**40  # slurmdbd has 2**64 for what it does not know yet


@dataclass
class Job:
    """One Slurm job of a study. Times are as Slurm prints them, local; memory is in MiB.

    What is not known is None, or empty.
    """

    job_id: str
    rule: str
    experiment: str
    seed: Seed
    state: str
    exit_code: str = ""
    partition: str = ""
    node: str = ""
    submit: str = ""
    start: str = ""
    elapsed_seconds: int | None = None
    limit_minutes: int | None = None
    cpus: int | None = None
    cpus_allocated: int | None = None
    mem_asked_mb: float | None = None
    mem_used_mb: float | None = None
    cpu_seconds: float | None = None
    reason: str = ""
    peak_mb: float | None = None  # of the training or evaluation, by its own record
    runs: int = 1  # that the Slurm job works on
    end: End | None = None  # what its own files say of its end

    @property
    def queue_seconds(self) -> float | None:
        """Seconds between the last submission and the start, or None if it has not started."""
        if self.state in WAITING:
            return None  # squeue says when it may start
        try:
            return (_time(self.start) - _time(self.submit)).total_seconds()
        except (ValueError, TypeError):
            return None

    @property
    def cpu_efficiency(self) -> float | None:
        """Share of the allocated cores' time that was used, 0 to 1."""
        available = (self.elapsed_seconds or 0) * (self.cpus_allocated or 0)
        return self.cpu_seconds / available if self.cpu_seconds and available else None

    @property
    def cause(self) -> Cause | None:
        """Why it has ended without success; None if it has not, or if nothing is known of it."""
        if self.succeeded or self.state in ACTIVE or (self.state == UNKNOWN and self.end is None):
            return None
        return cause_of(self.end or End(self.state, None, None))

    @property
    def succeeded(self) -> bool:
        """Whether it has succeeded: of a Slurm job with several stages or runs, this one."""
        return self.state == COMPLETED or (self.end is not None and self.end.status == 0)

    @property
    def what(self) -> str:
        """Say in words how the job ended, or what it is doing."""
        if self.succeeded:
            return "it succeeded"
        code = f" with exit code {self.exit_code}" if self.exit_code else ""
        known = {
            "CANCELLED": "it was canceled (scancel, or Ctrl-C in Snakemake)",
            "PREEMPTED": "a job of higher priority took its place",
            "NODE_FAIL": "its node failed",
            "PENDING": f"it is pending ({self.reason})",
            "RUNNING": "it is running",
            UNKNOWN: "Slurm does not know it any more",
        }
        slurm_knows = self.cause is Cause.EXTERNAL and self.state != UNKNOWN
        if self.state in known and (self.cause is None or slurm_knows):
            return known[self.state]
        if self.cause is Cause.UNKNOWN:
            return f"it failed{code}; its log says why"
        return self.cause.value if self.cause else self.state


def record(files: Layout, job_id: str, name: str, job) -> None:
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


@dataclass
class Answer:
    """The jobs of a study, and why accounting could not be asked about them, if so."""

    jobs: list[Job]
    no_accounting: str = ""


def ask(files: Layout) -> Answer:
    """Ask Slurm about the study's jobs, which come in the order in which they were submitted.

    Without accounting, Slurm soon forgets a job that has ended.
    """
    every = _submissions(files)
    submitted = {job: rows for job, rows in every.items() if rows[0]["rule"] in STAGES}
    if not submitted:
        return Answer([])
    rows = [row for some in submitted.values() for row in some]
    names = ",".join(dict.fromkeys(row["slurm_job_name"] for row in rows))
    first = min(row["submitted"] for row in rows)
    accounting = _sacct(names, (_time(first) - CLOCK_SKEW).isoformat())
    found = _from_sacct(accounting.stdout if accounting.ok else "", submitted)
    ended = {job for job, each in found.items() if each.state not in (*ACTIVE, "PREEMPTED")}
    if submitted.keys() - ended:
        # sacct is some seconds behind, and does not know why a job is pending.
        queue = _from_squeue(_squeue(names), submitted)
        found |= {job: each for job, each in queue.items() if job not in ended}
    jobs = [
        dataclasses.replace(found.get(job) or _unknown(some[0]), **_run(row), runs=len(some))
        for job, some in submitted.items()
        for row in some
    ]
    _look_at_ends(files, [job for job in jobs if job.state not in (*ACTIVE, COMPLETED)])
    return Answer(jobs, "" if accounting.ok else accounting.message.splitlines()[-1])


def _look_at_ends(files: Layout, ended: list[Job]) -> None:
    """Note what the own files of jobs say of their ends; those of successful jobs are removed."""
    logs = {path.stem: path for path in files.slurm_logs.rglob("*.log")} if ended else {}
    for job in ended:
        log, run = logs.get(job.job_id), (job.experiment, job.seed)
        report = JobReport.read(log.with_suffix(".json")) if log else None
        # Without its log, only Slurm's word is known; with it and no report, it may have succeeded.
        if report or (log and job.state != UNKNOWN):
            state, own_log = "" if job.state == UNKNOWN else job.state, files.log(job.rule, *run)
            alone = job.runs == 1
            job.end = find_end(report, run_name(*run), job.rule, state, log, own_log, alone)


def jobs(files: Layout) -> list[Job]:
    """Return the study's jobs, in the order in which they were submitted."""
    return ask(files).jobs


def in_queue(files: Layout) -> list[str]:
    """Return the ids of the study's jobs that are in the queue.

    Raises:
        UserError: Slurm does not answer.
    """
    rows = [row for some in _submissions(files).values() for row in some]
    names = ",".join(dict.fromkeys(row["slurm_job_name"] for row in rows))
    if not names:
        return []
    query = ["squeue", "--all", f"--name={names}", "--noheader", "--format=%i"]
    return [word for word in slurm.run(query).checked().split() if word[0].isdigit()]


def _submissions(files: Layout) -> dict[str, list[dict[str, str]]]:
    """Return the rows of the list by job id: one, or one for each run of a pack."""
    try:
        text = files.submissions.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    rows: dict[str, list[dict[str, str]]] = {}
    for line in text.splitlines():
        try:
            row = dict(zip(SUBMISSION, *csv.reader([line]), strict=True))
        except (ValueError, TypeError, csv.Error):
            continue  # cut off while it is being written, or because the disk was full
        if _is_submission(row):
            rows.setdefault(row["slurm_job_id"], []).append(row)
    return rows


def _is_submission(row: dict[str, str]) -> bool:
    """Return whether a row is as `record` writes it."""
    try:
        after_slurm_began = _time(row["submitted"]) > datetime(2000, 1, 1)
    except (ValueError, TypeError):
        return False
    numbers = f"{row['slurm_job_id']},{row['seed']}"  # 7_3 is of an array
    seed = "([0-9]{1,19}(-fold[1-9][0-9]{0,8})?)?"
    numbers = re.fullmatch(f"[0-9]{{1,18}}(_[0-9]{{1,9}})?,{seed}", numbers)
    name = row["slurm_job_name"]
    return bool(after_slurm_began and numbers and name and name.isprintable())


def _sacct(names: str, since: str) -> subprocesses.Finished:
    options = ("--noheader", "--parsable2", "--duplicates", "--units=M")
    choice = (f"--name={names}", f"--starttime={since}", f"--format={','.join(FIELDS)}")
    return slurm.run(["sacct", *options, *choice])


def _squeue(names: str) -> str:
    """Return all jobs that squeue knows, also those that ended lately or are in a hidden part."""
    options = ("--noheader", "--all", "--states=all", f"--format={'|'.join(COLUMNS.values())}")
    done = slurm.run(["squeue", *options, f"--name={names}"])
    return done.stdout if done.ok else ""


def _from_sacct(text: str, submitted: dict) -> dict[str, Job]:
    found: dict[str, Job] = {}
    for row in _rows(text, FIELDS):
        job_id, _, step = row["JobID"].partition(".")
        if step and job_id in found:
            # Memory and processor time are the steps'; the job's own row has no memory.
            used, known = _megabytes(row["MaxRSS"]), found[job_id].mem_used_mb
            found[job_id].mem_used_mb = max(filter(None, (used, known)), default=None)
        elif job_id in submitted and not step:
            found[job_id] = _job(row, submitted[job_id][0])  # of a requeued job the last row counts
    return found


def _from_squeue(text: str, submitted: dict) -> dict[str, Job]:
    found = {}
    for row in _rows(text, list(COLUMNS)):
        if row["JobID"] in submitted:
            row |= {"ElapsedRaw": str(int(slurm_seconds(row["Elapsed"])))}
            row |= {"TimelimitRaw": str(round(slurm_seconds(row["Limit"]) / 60))}
            row |= {"ExitCode": "", "TotalCPU": ""}
            found[row["JobID"]] = _job(row, submitted[row["JobID"]][0])
    return found


def _unknown(submission: dict[str, str]) -> Job:
    row = dict.fromkeys(FIELDS, "") | {"JobID": submission["slurm_job_id"], "State": UNKNOWN}
    return _job(row | {"Submit": submission["submitted"]}, submission)


def _rows(text: str, columns: list[str]) -> Iterator[dict[str, str]]:
    """Yield the rows of a table of Slurm's; a line that is none, such as a warning, is left out."""
    for line in text.splitlines():
        cells = line.split("|", len(columns) - 1)
        if len(cells) == len(columns) and cells[columns.index("State")].strip():
            yield dict(zip(columns, cells, strict=True))


def _job(row: dict[str, str], submission: dict[str, str]) -> Job:
    state = row["State"].split()[0]  # CANCELLED by 1000
    cpus = _number(row["ReqCPUS"])
    return Job(
        job_id=row["JobID"],
        **_run(submission),
        state=state,
        exit_code=row["ExitCode"],
        partition=row["Partition"],
        node=row["NodeList"],
        submit=row["Submit"],
        start=row["Start"],
        elapsed_seconds=_number(row["ElapsedRaw"], zero=True),
        limit_minutes=_number(row["TimelimitRaw"]),
        cpus=cpus,
        cpus_allocated=None if state in WAITING else _number(row["AllocCPUS"]),
        mem_asked_mb=_megabytes(row["ReqMem"], cpus),
        cpu_seconds=slurm_seconds(row["TotalCPU"]),
        reason=row["Reason"],
    )


def _run(submission: dict[str, str]) -> dict:
    """Return what a row of the list says of a job: what it does."""
    experiment, seed = submission["experiment"], seeds.parse(submission["seed"] or "0")
    return {"rule": submission["rule"], "experiment": experiment, "seed": seed}


def _number(text: str, zero: bool = False) -> int | None:
    """Read a whole number; None for what is none, such as `UNLIMITED`, and for an unset 0."""
    number = int(text) if re.fullmatch("[0-9]{1,9}", text) else None
    return number if number or zero else None


def _megabytes(text: str, cpus: int | None = 1) -> float | None:
    """Read Slurm's `3072M`, `1.5G`, `900K`; None for what is no memory, and for 0.

    Before Slurm 21.08, memory that was asked for ends in `n` (per node) or `c` (per core).
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?)([KMGTP]?)([nc]?)", text)
    if not match:
        return None
    scale = {"K": 1 / 1024, "": 1, "M": 1, "G": 1024, "T": 1024**2, "P": 1024**3}
    amount = float(match[1]) * scale[match[2]] * ((cpus or 1) if match[3] == "c" else 1)
    return amount if 0 < amount < LARGEST_MB else None


def slurm_seconds(text: str) -> float:
    """Read Slurm's `[days-][hours:]minutes:seconds[.fraction]`; what is not a time is 0."""
    match = re.fullmatch(r"(?:(\d{1,9})-)?((?:\d{1,9}:){0,2})(\d{1,9}(?:\.\d+)?)", text, re.ASCII)
    if not match:
        return 0.0
    minutes = 0
    for part in match[2].split(":")[:-1]:
        minutes = 60 * minutes + int(part)
    return 86400 * int(match[1] or 0) + 60 * minutes + float(match[3])


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
