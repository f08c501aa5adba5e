"""What each job asked for, compared with what it used, one row per job: resources.csv.

The figures are those of `sacct` where there is accounting, else of the runs' own records. The
column `suggestion` names a request that is enough: a fifth more than was used, rounded up. A Slurm
job that works on many runs has a row of its own, `pack`; its runs' rows have each one's share.
"""

import dataclasses
import math
from contextlib import suppress

from lib.cluster.job_end import Cause
from lib.cluster.submissions import COMPLETED, UNKNOWN, Job, ask
from lib.core import records
from lib.core.errors import UserError
from lib.core.files import write_csv
from lib.core.seeds import Seed, parts
from lib.study.study import Study

COLUMNS = (
    "rule,experiment,seed,slurm_job_id,state,partition,cpus_asked,cpus_allocated,cpu_efficiency,"
    "mem_asked_mb,mem_used_mb,time_asked_minutes,elapsed_seconds,queue_seconds,suggestion,runs"
).split(",")


def write(study: Study) -> str:
    """Write `resources.csv`; return a line on what is missing in it, or nothing.

    Raises:
        UserError: it cannot be written, or a record is not as it was written.
    """
    answer, runs = ask(study.layout), set(study.runs)
    jobs = [completed(study, job) for job in answer.jobs if (job.experiment, job.seed) in runs]
    trained = {(job.experiment, job.seed) for job in jobs if job.rule == "train"}
    recorded = [recorded_job(study, "train", *run) for run in study.runs if run not in trained]
    packs = {job.job_id: pack_of(job) for job in answer.jobs if job.runs > 1}
    shares = [share(study, job) if job.runs > 1 else job for job in jobs]
    rows = [job_row(job) for job in (*packs.values(), *shares, *recorded) if job]
    write_csv(study.layout.resources, [*COLUMNS, *(["fold"] if study.folds[0] else [])], rows)
    return answer.no_accounting and (
        f"{study.layout.resources}: no accounting ({answer.no_accounting}). Of jobs that "
        "squeue has forgotten, cpus_allocated and cpu_efficiency are empty, and of those without "
        "results also what they asked for and used."
    )


def pack_of(job: Job) -> Job:
    """Return a Slurm job as a whole that works on many runs."""
    return dataclasses.replace(job, rule="pack", experiment="", seed=None, peak_mb=None)


def share(study: Study, job: Job) -> Job:
    """Return what one run has asked for and used of a Slurm job that works on many."""
    unknown = {"cpus_allocated": None, "cpu_seconds": None, "elapsed_seconds": None}
    asked = study.experiments[job.experiment]
    own = dataclasses.replace(
        job,
        **unknown,
        limit_minutes=asked.runtime if job.rule == "train" else None,
        cpus=asked.cpus,
        mem_asked_mb=asked.mem_mb,
        mem_used_mb=job.peak_mb,
        runs=1,
    )
    with suppress(UserError):
        recorded = recorded_job(study, job.rule, job.experiment, job.seed)
        if recorded and recorded.job_id == job.job_id:
            return recorded
    return own


def completed(study: Study, job: Job) -> Job:
    """Return what the record of a job adds to what Slurm knows of it."""
    try:
        recorded = recorded_job(study, job.rule, job.experiment, job.seed)
    except UserError:
        recorded = None  # what Slurm has counted is there all the same
    if recorded and job.state == UNKNOWN and job.job_id == recorded.job_id:
        return recorded
    return dataclasses.replace(job, peak_mb=recorded.peak_mb) if recorded else job


def recorded_job(study: Study, rule: str, experiment: str, seed: Seed) -> Job | None:
    """Return what the record of a training or evaluation says, and what the config asks for.

    Raises:
        UserError: the record is not as it was written; the message names it.
    """
    files, asked = study.layout.run(experiment, seed), study.experiments[experiment]
    path = files.record if rule == "train" else files.evaluation
    if not path.is_file():
        return None
    record = records.read(path)
    slurm, seconds = record.get("slurm") or {}, record.get("seconds")
    return Job(
        slurm.get("job_id") or "",
        rule,
        experiment,
        seed,
        COMPLETED,
        partition=slurm.get("partition") or "",
        submit=slurm.get("submit_time") or "",
        start=slurm.get("start_time") or "",
        elapsed_seconds=seconds,
        limit_minutes=asked.runtime if rule == "train" else None,
        cpus=asked.cpus,
        mem_asked_mb=asked.mem_mb,
        mem_used_mb=record.get("peak_memory_mb"),
        peak_mb=record.get("peak_memory_mb"),
    )


def job_row(job: Job) -> dict:
    """Return the row of a job."""
    seed, fold = parts(job.seed)
    return {
        "rule": job.rule,
        "experiment": job.experiment,
        "seed": seed,
        "slurm_job_id": job.job_id,
        "state": job.state,
        "partition": job.partition,
        "cpus_asked": job.cpus,
        "cpus_allocated": job.cpus_allocated,
        "cpu_efficiency": job.cpu_efficiency,
        "mem_asked_mb": job.mem_asked_mb,
        "mem_used_mb": job.mem_used_mb,
        "time_asked_minutes": job.limit_minutes,
        "elapsed_seconds": job.elapsed_seconds,
        "queue_seconds": job.queue_seconds,
        "suggestion": suggestion(job),
        "runs": job.runs,
        **({"fold": fold} if fold else {}),
    }


def suggestion(job: Job) -> str:
    """Name a fitting request for cores, memory and time of a job that succeeded."""
    if job.cause is Cause.MEMORY:
        asked = f"{job.mem_asked_mb:.0f} MB" if job.mem_asked_mb else "all memory of the node"
        return f"asked {asked}, needs more"
    if job.state != COMPLETED:
        return ""
    parts = []
    if job.cpus and (job.cpus_allocated or 0) > job.cpus:
        parts.append(f"asked {job.cpus} cores, got {job.cpus_allocated}: Slurm gives whole nodes")
    # sacct looks only now and then, and misses the peak of a short job.
    used_mb = max(job.mem_used_mb or 0, job.peak_mb or 0)
    if job.mem_asked_mb and used_mb:
        parts.append(memory_suggestion(job.mem_asked_mb, used_mb))
    if job.limit_minutes and job.elapsed_seconds is not None:
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
