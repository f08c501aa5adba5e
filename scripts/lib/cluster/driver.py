"""Snakemake itself as a small Slurm job, the driver, where login nodes end long processes.

There is one driver per study. Slurm knows it by its name, which follows from `results_dir`. Shortly
before its time is up, the driver stops Snakemake as Ctrl-C does, which cancels the jobs, and goes
back into the queue. The jobs are submitted again and resume from their checkpoints.

A driver that was killed leaves its jobs, and Snakemake's locks (see `locks`). While those are
there, nobody else has run the study since.
"""

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lib.cluster import locks, slurm, submissions
from lib.cluster.profile import Profile
from lib.core import subprocesses
from lib.core.errors import UserError
from lib.core.layout import Layout

MEM_MB = 1024
KEPT = ("SLURM_CONF", "SLURM_ACCOUNT", "SLURM_CLUSTER_NAME")  # of the environment of its job
WARNING = 120  # seconds before the time limit at which Slurm signals the driver
PATIENCE = 120.0  # seconds in which canceled jobs must leave the queue


def job_name(files: Layout) -> str:
    """Return the name of a study's driver in Slurm: one for each `results_dir`."""
    return f"driver-{locks.study_id(files)}"


def find(files: Layout) -> tuple[str, str]:
    """Return the job id of the study's driver in the queue, and what it is doing; else nothing.

    Raises:
        UserError: Slurm does not answer, or is not there.
    """
    query = ["squeue", "--all", "--noheader", "--format=%i|%T on %N, elapsed %M of %l"]
    for row in slurm.run([*query, f"--name={job_name(files)}"]).checked().splitlines():
        job, found, doing = row.partition("|")
        if found:
            return job, doing.replace(" on ,", ",")  # while it has no node
    return "", ""


def line(files: Layout) -> str:
    """Return a line about the driver; nothing where there is none, or no Slurm."""
    try:
        # Slurm is asked only where the study has ever had a driver.
        job, doing = find(files) if log_folder(files).is_dir() else ("", "")
    except UserError:
        return ""
    return f"Driver: Slurm job {job}, {doing}" if job else ""


def log_folder(files: Layout) -> Path:
    """Return the folder of the drivers' logs."""
    return files.slurm_logs / "driver"


def request(profile: Profile, minutes: int) -> list[str]:
    """Return the options of sbatch that say what the driver asks for, and on whose account."""
    asked, limits = profile.for_all_jobs, profile.partitions
    minutes_in = {
        name: each.get("max_runtime", 0) for name, each in limits.items() if not each.get("max_gpu")
    }
    partition = asked("slurm_partition") or max(minutes_in, key=minutes_in.get, default="")
    minutes = min(minutes, limits.get(partition, {}).get("max_runtime", minutes))
    options = [f"--time={minutes}", "--ntasks=1", "--cpus-per-task=1"]
    # 0 in the profile: the site refuses the option.
    options += [] if asked("mem_mb") == "0" else [f"--mem={MEM_MB}"]
    named = {"partition": partition, "account": asked("slurm_account")}
    named |= {name: asked(name) for name in ("qos", "reservation", "constraint")}
    options += [f"--{name}={value}" for name, value in named.items() if value]
    return options + shlex.split(asked("slurm_extra"))


def submit(files: Layout, command: Sequence[str], options: Sequence[str]) -> str:
    """Submit the driver; return its job id.

    `singleton` lets no two of one name run at once, even if both are submitted at the same moment.
    """
    log_folder(files).mkdir(parents=True, exist_ok=True)
    words = ["sbatch", "--parsable", f"--job-name={job_name(files)}", "--dependency=singleton"]
    words += ["--requeue", "--open-mode=append", "--export=ALL", f"--signal=B:USR1@{WARNING}"]
    words += [f"--output={log_folder(files)}/%j.log", *options]
    words.append(f"--wrap=exec {shlex.join(command)}")
    done = slurm.patiently(lambda: subprocesses.run(words, env=slurm.sbatch_environment()))
    return done.checked().strip().split(";")[0]


def drive(files: Layout, snakemake: Sequence[str]) -> int:
    """Run Snakemake within the driver's job; return its exit status.

    At SIGUSR1, when the time is nearly up, it ends in order and is requeued. At SIGTERM (make
    cancel, scancel) it ends in order.
    """
    job, received = os.environ["SLURM_JOB_ID"], []
    clear_after_killed_driver(files)  # of that name, none but this one runs now
    process = subprocess.Popen(snakemake, env=environment(os.environ) | {locks.DRIVER: job})

    def stop(number: int, _) -> None:
        received.append(number)
        if len(received) == 1:
            process.send_signal(signal.SIGINT)

    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    status = process.wait()
    if signal.SIGUSR1 in received and signal.SIGTERM not in received and status:
        print("The driver's time is up: it goes back into the queue", flush=True)
        slurm.run(["scontrol", "requeue", job]).checked()
        time.sleep(PATIENCE)  # Slurm ends this process
    return status if status >= 0 else 1


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables without those of the driver's own job, which sbatch would follow."""
    return {
        name: value
        for name, value in variables.items()
        if not name.startswith("SLURM_") or name in KEPT
    }


def clear_after_killed_driver(files: Layout) -> None:
    """Cancel the jobs that a killed driver has left. Call it while no driver runs.

    Snakemake itself then removes the locks.
    """
    holder = locks.holder(files)
    job = locks.driver_job(holder)
    if job and (log_folder(files) / f"{job}.log").exists() and locks.is_dead(holder):
        print(f"The driver {job} was killed: its jobs are canceled, and resume", flush=True)
        cancel_jobs(files)


def cancel_driver(files: Layout) -> str:
    """End the study's driver in order; return its job id, or nothing where there is none."""
    (job, _), named = find(files), f"--name={job_name(files)}"
    if not job:
        return ""
    slurm.run(["scancel", "--state=PENDING", named], PATIENCE).checked()
    slurm.run(["scancel", "--state=RUNNING", "--batch", "--signal=TERM", named])
    if _left(lambda: find(files)[0], PATIENCE / 2):
        slurm.run(["scancel", named], PATIENCE).checked()
        if left := _left(lambda: find(files)[0], PATIENCE):
            raise UserError(f"the driver is still in the queue: Slurm job {left}")
    return job


def cancel_jobs(files: Layout) -> list[str]:
    """Cancel the study's jobs that are in the queue, and wait until they are gone; return them."""
    found = submissions.in_queue(files)
    if found:
        slurm.run(["scancel", *found], PATIENCE).checked()
        if left := _left(lambda: submissions.in_queue(files), PATIENCE):
            raise UserError(f"jobs are still in the queue: {' '.join(left)}")
    return found


def _left(query: Callable, seconds: float):
    """Repeat a query until it finds nothing, or for so long; return what it found last."""
    end = time.monotonic() + seconds
    while (found := query()) and time.monotonic() < end:
        time.sleep(1)
    return found
