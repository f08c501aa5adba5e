"""What Slurm knows of this pipeline's jobs, by experiment and seed rather than by UUID.

Snakemake's Slurm plugin names a job by a UUID and writes rule and wildcards into its comment;
the working directory tells whose it is.
"""

import math
import re
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

DAYS_BACK = 30
FIELDS = (
    "JobID,Comment,State,ExitCode,Partition,NodeList,Submit,Start,ElapsedRaw,TimelimitRaw,"
    "ReqCPUS,ReqMem,TotalCPU,MaxRSS,Reason,WorkDir"
).split(",")
ENDED_WELL = "COMPLETED"


@dataclass
class Job:
    """One Slurm job of the pipeline. Times are as Slurm prints them, local; memory is in MiB."""

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
            "CANCELLED": "it was cancelled (scancel, or Ctrl-C of Snakemake)",
            "PREEMPTED": "a job of higher priority took its place",
            "NODE_FAIL": "its node failed",
            "FAILED": f"it ended with exit code {self.exit_code}; its log says why",
            "PENDING": f"it waits in the queue ({self.reason})",
            "RUNNING": "it is running",
            ENDED_WELL: "it ended well",
        }.get(self.state, self.state)


def accounting_works() -> bool:
    """Whether `sacct` is there and answers."""
    return bool(shutil.which("sacct")) and _output("sacct", "--noheader", "-X") is not None


def jobs(workdir: Path) -> list[Job]:
    """Return the pipeline's jobs that were submitted from a folder, oldest first.

    Without accounting, only those that squeue still knows; without Slurm, none.
    """
    found = _from_sacct(workdir) if accounting_works() else {}
    # sacct learns a job's comment only when it ends, and lags some seconds behind.
    found |= _from_squeue(workdir)
    return sorted(found.values(), key=lambda job: [int(n) for n in re.findall(r"\d+", job.job_id)])


def _from_sacct(workdir: Path) -> dict[str, Job]:
    since = datetime.now(UTC).astimezone() - timedelta(days=DAYS_BACK)
    text = _output(
        "sacct",
        "--noheader",
        "--parsable2",
        "--duplicates",
        f"--starttime={since:%Y-%m-%dT%H:%M}",
        f"--format={','.join(FIELDS)}",
        "--units=M",
    )
    found: dict[str, Job] = {}
    for line in (text or "").splitlines():
        row = dict(zip(FIELDS, line.split("|"), strict=False))
        job_id, _, step = row["JobID"].partition(".")
        if step:
            # Memory and processor time are the steps'; the job's own row has no memory.
            if job_id in found:
                used = _megabytes(row["MaxRSS"])
                known = found[job_id].mem_used_mb
                found[job_id].mem_used_mb = max(filter(None, (used, known)), default=None)
            continue
        if Path(row["WorkDir"]) != workdir or not row["Comment"].startswith("rule_"):
            continue
        found[job_id] = _job(row)  # of a requeued job the last row counts
    return found


def _job(row: dict[str, str]) -> Job:
    return Job(
        job_id=row["JobID"],
        **_names(row["Comment"]),
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


def _from_squeue(workdir: Path) -> dict[str, Job]:
    columns = {
        "JobID": "%i", "Comment": "%k", "State": "%T", "Partition": "%P", "NodeList": "%N",
        "Submit": "%V", "Start": "%S", "Elapsed": "%M", "Limit": "%l", "ReqCPUS": "%C",
        "ReqMem": "%m", "Reason": "%r", "WorkDir": "%Z",
    }  # fmt: skip
    text = _output("squeue", "--me", "--noheader", f"--format={'|'.join(columns.values())}")
    found = {}
    for line in (text or "").splitlines():
        row = dict(zip(columns, line.split("|"), strict=False))
        if Path(row["WorkDir"]) != workdir or not row["Comment"].startswith("rule_"):
            continue
        limit = round(slurm_seconds(row["Limit"]) / 60)
        row |= {"ElapsedRaw": int(slurm_seconds(row["Elapsed"])), "TimelimitRaw": str(limit)}
        found[row["JobID"]] = _job(row | {"ExitCode": "", "TotalCPU": ""})
    return found


def _names(comment: str) -> dict:
    """Read `rule_train_wildcards_my_mlp_1`."""
    match = re.fullmatch(r"rule_(\w+?)(?:_wildcards_(.+)_(\d+))?", comment)
    return {
        "rule": match[1],
        "experiment": match[2] or "",
        "seed": int(match[3] or 0),
    }


def _megabytes(text: str) -> float | None:
    """Read Slurm's `3072M`, `1.5G`, `900K`, with a trailing `n` or `c` in old versions."""
    match = re.fullmatch(r"([\d.]+)([KMGT]?)[nc]?", text or "")
    scale = {"K": 1 / 1024, "": 1, "M": 1, "G": 1024, "T": 1024**2}
    return float(match[1]) * scale[match[2]] if match else None


def slurm_seconds(text: str) -> float:
    """Read Slurm's `[days-][hours:]minutes:seconds[.fraction]`; what is no time is 0."""
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


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
