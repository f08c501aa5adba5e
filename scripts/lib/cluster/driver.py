"""Snakemake itself as a small Slurm job, the driver, where login nodes end long processes.

There is one driver per study. Slurm knows it by its name, which follows from `results_dir`. Shortly
before its time is up, the driver stops Snakemake as Ctrl-C does, which cancels the jobs, and goes
back into the queue. The jobs are submitted again and resume from their checkpoints.

Snakemake locks the files that it makes. The locks of a driver are written down, so that the next
one can remove them, and nobody else's, where the driver was killed.
"""

import hashlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.cluster import jobs, slurm
from lib.core import strict_yaml, subprocesses
from lib.core.errors import UserError
from lib.core.files import read_json, write_json
from lib.core.layout import Layout

MEM_MB = 1024
WARNING = 120  # seconds before the time limit at which Slurm signals the driver
PATIENCE = 120.0  # seconds in which canceled jobs must leave the queue
LOCKS = Path(".snakemake", "locks")


@dataclass(frozen=True)
class Driver:
    """A driver that is in the queue."""

    job_id: str
    state: str
    node: str
    elapsed: str
    limit: str

    def __str__(self) -> str:
        where = f" on {self.node}" if self.node else ""
        return (
            f"Driver: Slurm job {self.job_id}, {self.state}{where}, "
            f"elapsed {self.elapsed} of {self.limit}"
        )


def job_name(files: Layout) -> str:
    """Return the name of a study's driver in Slurm: one for each `results_dir`."""
    return f"driver-{hashlib.sha256(os.fsencode(files.results.resolve())).hexdigest()[:12]}"


def find(files: Layout) -> Driver | None:
    """Return the study's driver in the queue.

    Raises:
        UserError: Slurm does not answer, or is not there.
    """
    query = ["squeue", "--all", "--noheader", "--format=%i|%T|%N|%M|%l"]
    for line in slurm.run([*query, f"--name={job_name(files)}"]).checked().splitlines():
        if line.count("|") == 4:
            return Driver(*(cell.strip() for cell in line.split("|")))
    return None


def line(files: Layout) -> str:
    """Return a line about the driver; nothing where there is none or no Slurm.

    Slurm is asked only where the study has ever had one.
    """
    if not log_folder(files).is_dir():
        return ""
    try:
        return str(find(files) or "")
    except UserError:
        return ""


def log_folder(files: Layout) -> Path:
    """Return the folder of the drivers' logs."""
    return files.slurm_logs / "driver"


def marker_of(files: Layout) -> Path:
    """Return the file that is there while a driver runs, and after one that was killed."""
    return log_folder(files) / "running.json"


def request(profile: Path, minutes: int) -> list[str]:
    """Return the options of sbatch that say what the driver asks for, and on whose account."""
    settings = strict_yaml.load(profile / "config.yaml")
    defaults = settings.get("default-resources") or {}
    named = settings.get("slurm-partition-config")
    partitions = strict_yaml.load(profile / named)["partitions"] if named else {}
    partition = _unquoted(defaults.get("slurm_partition"))
    if not partition:
        without_gpu = {name: it for name, it in partitions.items() if not it.get("max_gpu")}
        partition = max(
            without_gpu, key=lambda name: without_gpu[name].get("max_runtime", 0), default=""
        )
    minutes = min(minutes, (partitions.get(partition) or {}).get("max_runtime", minutes))
    options = [f"--time={minutes}", "--ntasks=1", "--cpus-per-task=1"]
    # 0 in the profile: the site refuses the option.
    options += [] if str(defaults.get("mem_mb")) == "0" else [f"--mem={MEM_MB}"]
    asked = {
        "partition": partition,
        "account": defaults.get("slurm_account"),
        "qos": settings.get("slurm-qos") or defaults.get("qos"),
        "reservation": settings.get("slurm-reservation"),
        "constraint": defaults.get("constraint"),
    }
    options += [f"--{option}={_unquoted(value)}" for option, value in asked.items() if value]
    return options + shlex.split(_unquoted(defaults.get("slurm_extra")))


def _unquoted(value: object) -> str:
    """Return a value of the profile, which quotes a string within a string."""
    text = str(value or "")
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def submit(files: Layout, command: Sequence[str], options: Sequence[str]) -> str:
    """Submit the driver; return its job id.

    `singleton` lets no two of one name run at once, even if both are submitted at the same moment.
    """
    log_folder(files).mkdir(parents=True, exist_ok=True)
    done = subprocesses.run(
        [
            *("sbatch", "--parsable", f"--job-name={job_name(files)}", "--dependency=singleton"),
            *("--requeue", "--open-mode=append", "--export=ALL"),
            f"--signal=B:USR1@{WARNING}",
            f"--output={log_folder(files)}/%j.log",
            *options,
            f"--wrap=exec {shlex.join(command)}",
        ]
    )
    return done.checked().strip().split(";")[0]


def drive(files: Layout, snakemake: Sequence[str]) -> int:
    """Run Snakemake within the driver's job; return its exit status.

    At SIGUSR1, when the time is nearly up, it ends in order and is put back into the queue. At
    SIGTERM (make cancel, scancel) it ends in order.
    """
    received: list[int] = []
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: received.append(number))
    job = os.environ["SLURM_JOB_ID"]
    clear_after_dead_driver(files, job)
    marker = marker_of(files)
    write_json(marker, {"job": job, "locks": {}})
    before = locks_of(files)  # of somebody else
    known: dict[str, int] = {}
    process = subprocess.Popen(list(snakemake), env=environment(os.environ))
    interrupted = False
    while process.poll() is None:
        found = locks_of(files).items()
        locks = {**known, **{name: made for name, made in found if before.get(name) != made}}
        if locks != known:
            known = locks
            write_json(marker, {"job": job, "locks": known})
        if received and not interrupted:
            interrupted = True
            process.send_signal(signal.SIGINT)
        time.sleep(0.5)
    marker.unlink(missing_ok=True)
    if signal.SIGUSR1 in received and signal.SIGTERM not in received and process.returncode:
        print("The driver's time is up: it goes back into the queue", flush=True)
        slurm.run(["scontrol", "requeue", job]).checked()
        time.sleep(PATIENCE)  # Slurm ends this process
    return process.returncode if process.returncode >= 0 else 1


def environment(variables: dict[str, str]) -> dict[str, str]:
    """Return the variables without those of the driver's own job, which sbatch would follow."""
    return {
        name: value
        for name, value in variables.items()
        if not name.startswith("SLURM_") or name == "SLURM_CONF"
    }


def locks_of(files: Layout) -> dict[str, int]:
    """Return Snakemake's locks on the study's files, and when each was made."""
    found = {}
    for path in LOCKS.glob("*.lock"):
        try:
            first = path.read_text(errors="replace").splitlines()
            made = path.stat().st_mtime_ns
        except OSError:
            continue  # removed meanwhile
        if any(line.startswith(f"{files.results.as_posix()}/") for line in first):
            found[path.name] = made
    return found


def clear_after_dead_driver(files: Layout, own_job: str = "") -> None:
    """Remove the locks of a driver that was killed, and cancel the jobs that it has left.

    Raises:
        UserError: the driver is still in the queue, or Slurm does not say.
    """
    marker = marker_of(files)
    if not marker.exists():
        return
    left = read_json(marker)
    other = find(files)
    if other and other.job_id not in (own_job, ""):
        raise UserError(f"the study has a driver: Slurm job {other.job_id}")
    present = locks_of(files)
    own = [name for name, made in left["locks"].items() if present.get(name) == made]
    if own:  # else somebody has unlocked the folder since, and the jobs may be another run's
        print(f"The driver {left['job']} was killed: its jobs are canceled, and resume", flush=True)
        cancel_jobs(files)
    for name in own:
        (LOCKS / name).unlink(missing_ok=True)
    marker.unlink(missing_ok=True)


def cancel_driver(files: Layout) -> str:
    """End the study's driver in order; return its job id, or nothing where there is none."""
    driver = find(files)
    if not driver:
        return ""
    named = f"--name={job_name(files)}"
    slurm.run(["scancel", "--state=PENDING", named]).checked()
    if driver.state == "RUNNING":
        slurm.run(["scancel", "--batch", "--signal=TERM", driver.job_id])
        if _wait(lambda: find(files) is None, PATIENCE / 2):
            return driver.job_id
    slurm.run(["scancel", named]).checked()
    if not _wait(lambda: find(files) is None, PATIENCE):
        raise UserError(f"the driver is still in the queue: Slurm job {driver.job_id}")
    return driver.job_id


def cancel_jobs(files: Layout) -> list[str]:
    """Cancel the study's jobs that are in the queue, and wait until they are gone; return them."""
    found = jobs.in_queue(files)
    if not found:
        return []
    slurm.run(["scancel", *found]).checked()
    if not _wait(lambda: not jobs.in_queue(files), PATIENCE):
        raise UserError(f"jobs are still in the queue: {' '.join(jobs.in_queue(files))}")
    return found


def _wait(condition, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(1)
    return True
