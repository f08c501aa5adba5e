"""Where a run's numbers come from: time, machine, Slurm job, versions, git commit."""

import functools
import os
import platform
import re
import resource
import sys
from datetime import UTC, datetime
from importlib import metadata

from lib.core import subprocesses
from lib.core.code_digests import SCRIPTS

PACKAGES = ("torch", "torchvision", "snakemake", "safetensors", "numpy")


def now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def peak_memory_mb() -> float:
    """Return the largest resident size that this process has had, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return round(peak / (1024**2 if sys.platform == "darwin" else 1024), 1)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that make the numbers."""
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def git_state() -> dict:
    """Return `git_commit`, and as `git_dirty` whether `scripts/` or `workflow/` differ from it.

    Both are None where the project is no git checkout, or git is not installed.
    """
    commit = _output("git", "rev-parse", "HEAD")
    status = _output("git", "status", "--porcelain", "--", "scripts", "workflow")
    return {"git_commit": commit, "git_dirty": None if status is None else bool(status)}


@functools.cache  # asked for at the start and at the end
def slurm_job() -> dict | None:
    """Return id, partition, submit and start time of the Slurm job that this is, or None."""
    job_id = os.environ.get("SLURM_JOB_ID")
    if not job_id:
        return None
    details = _output("scontrol", "show", "job", "--oneliner", job_id) or ""
    fields = dict(re.findall(r"(\w+)=(\S*)", details))
    return {
        "job_id": job_id,
        "partition": os.environ.get("SLURM_JOB_PARTITION") or fields.get("Partition"),
        "submit_time": fields.get("SubmitTime"),
        "start_time": fields.get("StartTime"),
    }


def _output(*command: str) -> str | None:
    """Return what a command prints, or None where it cannot run or fails."""
    plain = {"LC_ALL": "C", "SLURM_TIME_FORMAT": "standard"}  # a user may have set others
    done = subprocesses.run(command, timeout=30, cwd=SCRIPTS.parent, env=os.environ | plain)
    return done.stdout.strip() if done.ok else None
