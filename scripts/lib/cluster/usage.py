"""What each job asked for, compared with what it used, one row per job: resources.csv.

The figures are those of `sacct` where there is accounting, else of the runs' own records. The last
column names a request that is enough: a fifth more than was used, rounded up.
"""

import math
from pathlib import Path

from lib.cluster.jobs import COMPLETED, Job, jobs
from lib.core import records
from lib.core.files import write_csv
from lib.study.study import Study

COLUMNS = (
    "rule,experiment,seed,slurm_job_id,state,partition,cpus_asked,cpu_efficiency,mem_asked_mb,"
    "mem_used_mb,time_asked_minutes,elapsed_seconds,queue_seconds,suggestion"
).split(",")


def write(study: Study) -> Path:
    """Write `resources.csv` and return its path."""
    runs = set(study.runs)
    known = [job for job in jobs(study.layout) if (job.experiment, job.seed) in runs]
    rows = [job_row(job) for job in known]
    trained = {(job.experiment, job.seed) for job in known if job.rule == "train"}
    rows += [row for run in study.runs if run not in trained and (row := record_row(study, *run))]
    write_csv(study.layout.resources, COLUMNS, rows)
    return study.layout.resources


def job_row(job: Job) -> dict:
    """Return the row of a Slurm job."""
    return {
        "rule": job.rule,
        "experiment": job.experiment,
        "seed": job.seed,
        "slurm_job_id": job.job_id,
        "state": job.state,
        "partition": job.partition,
        "cpus_asked": job.cpus,
        "cpu_efficiency": job.cpu_efficiency,
        "mem_asked_mb": job.mem_asked_mb,
        "mem_used_mb": job.mem_used_mb,
        "time_asked_minutes": job.limit_minutes,
        "elapsed_seconds": job.elapsed_seconds,
        "queue_seconds": job.queue_seconds,
        "suggestion": suggestion(job),
    }


def record_row(study: Study, experiment: str, seed: int) -> dict | None:
    """Return the row of a training without Slurm's accounting, from its own record.

    Raises:
        UserError: the record is not as it was written; the message names it.
    """
    path = study.layout.run(experiment, seed).record
    if not path.is_file():
        return None
    record, asked = records.read(path), study.experiments[experiment]
    slurm = record["slurm"] or {}
    used = record["peak_memory_mb"]
    return {
        "rule": "train",
        "experiment": experiment,
        "seed": seed,
        "slurm_job_id": slurm.get("job_id"),
        "state": COMPLETED,
        "partition": slurm.get("partition"),
        "cpus_asked": asked.cpus,
        "mem_asked_mb": asked.mem_mb,
        "mem_used_mb": used,
        "time_asked_minutes": asked.runtime,
        "elapsed_seconds": record["seconds"],
        "suggestion": memory_suggestion(asked.mem_mb, used),
    }


def suggestion(job: Job) -> str:
    """Name a fitting request for memory and time of a job that succeeded."""
    if job.out_of_memory:
        return f"asked {job.mem_asked_mb:.0f} MB, needs more"
    if job.state != COMPLETED:
        return ""
    parts = []
    if job.mem_asked_mb and job.mem_used_mb:
        parts.append(memory_suggestion(job.mem_asked_mb, job.mem_used_mb))
    if job.limit_minutes:
        enough = max(1, math.ceil(1.2 * job.elapsed_seconds / 60))
        verb = "would do" if enough < job.limit_minutes else "is a fitting request"
        used = f"asked {job.limit_minutes} min, used {job.elapsed_seconds / 60:.1f} min"
        parts.append(f"{used}: {enough} min {verb}")
    return "; ".join(parts)


def memory_suggestion(asked: float, used: float) -> str:
    """Say `asked 3072 MB, used 780 MB: 1000 MB would do`."""
    enough = 100 * math.ceil(1.2 * used / 100)
    verb = "would do" if enough < asked else "is a fitting request"
    return f"asked {asked:.0f} MB, used {used:.0f} MB: {enough} MB {verb}"
