"""What `run.json` tells of a run: where its numbers come from."""

import functools
import os
import platform
import re
import resource
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from files import sha256

SCRIPTS = Path(__file__).absolute().parent
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


def code_digest() -> str:
    """Return the SHA-256 of the project's own files that this process has imported."""
    return sha256(*code_files())


def code_digests() -> dict[str, str]:
    """Return the SHA-256 of each of them, by its path below `scripts/`."""
    return {path.relative_to(SCRIPTS).as_posix(): sha256(path) for path in code_files()}


def code_files() -> list[Path]:
    """Return the project's own files that this process has imported, sorted."""
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    # Not resolved: torch alone has some thousand modules.
    paths = {Path(file).absolute() for file in files if file}
    return sorted(path for path in paths if path.is_relative_to(SCRIPTS))


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
    try:
        done = subprocess.run(
            command, cwd=SCRIPTS.parent, capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
