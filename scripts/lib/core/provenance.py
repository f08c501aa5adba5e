"""Where a run's numbers come from: time, machine, Slurm job, versions, git commit."""

import functools
import os
import platform
import re
import resource
import sys
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from lib.core import code_digests, subprocesses
from lib.core.code_digests import SCRIPTS
from lib.core.files import read_object

PACKAGES = ("torch", "torchvision", "snakemake", "safetensors", "numpy")
ORIGIN = "origin.json"  # in a copy of the code: where it is from, when it was made
STATE = {
    "git_commit": str | None, "git_dirty": bool | None, "snapshot": str | None,
    "environment": str | None, "git_untracked": list,
}  # fmt: skip
# What decides a study: the code, and what is to be trained.
DECIDING = ("scripts", "workflow", "config", "Snakefile")
# Variables of the environment that may change what torch and its libraries compute.
VARIABLES = re.compile(
    "CUBLAS_WORKSPACE_CONFIG|NVIDIA_TF32_OVERRIDE|OPENBLAS_CORETYPE|PYTHONHASHSEED|"
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE|(DNNL|ONEDNN)_(MAX_CPU_ISA|DEFAULT_FPMATH_MODE)|"
    "MKL_(CBWR|DEBUG_CPU_TYPE|DYNAMIC|ENABLE_INSTRUCTIONS)"
)
# Of these, another version changes no number.
COMPUTE_NOTHING = ("python", "snakemake", "safetensors")


def now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def peak_memory_mb() -> float:
    """Return the largest resident size that this process has had, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return round(peak / (1024**2 if sys.platform == "darwin" else 1024), 1)


def versions(model: Path | None = None, others: Iterable[str] = ()) -> dict[str, str | None]:
    """Return the versions of Python, and of the packages that make the numbers.

    Args:
        model: the file of a model, whose own packages do so too.
        others: that do so too, by the names that pip knows.

    Raises:
        UserError: the file cannot be read or parsed; the message names it and the line.
    """
    names = dict.fromkeys((*PACKAGES, *others, *(packages_of(model) if model else ())))
    return {"python": platform.python_version()} | {name: version(name) for name in names}


def computing(recorded: dict[str, str | None]) -> dict[str, str | None]:
    """Return those of the versions in a record of which another may change a number."""
    return {name: each for name, each in recorded.items() if name not in COMPUTE_NOTHING}


def other_versions(recorded: dict[str, str | None]) -> list[str]:
    """Return which packages that compute are installed in other versions than a record names."""
    return [
        f"{name} {each or 'not installed'}, here {version(name) or 'not installed'}"
        for name, each in computing(recorded).items()
        if each != version(name)
    ]


def packages_of(model: Path) -> list[str]:
    """Return the installed packages that a model imports, sorted, by the names that pip knows.

    Those are the packages in its file, and in what that imports of the project but `lib`.
    """
    files = code_digests.files_of(model)
    own = (file for file in files if not file.is_relative_to(SCRIPTS / "lib"))
    imported = {name for file in own for name in code_digests.top_names(file)}
    others = imported - sys.stdlib_module_names - {"torch", "numpy", "torchvision"}
    known = metadata.packages_distributions() if others else {}  # it reads a file of each package
    return sorted({package for name in others for package in known.get(name, ())})


def packages() -> dict[str, str]:
    """Return the versions of all installed packages, by name, sorted."""
    every = [each.metadata for each in metadata.distributions()]
    found = {each["Name"]: each["Version"] for each in every if each["Name"]}  # no leftovers
    return dict(sorted(found.items()))


def processor() -> str:
    """Return the model of the processor, or what is known of it."""
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        if match := re.search(r"^model name\s*:\s*(.+)$", text, flags=re.MULTILINE):
            return match[1].strip()
    return platform.processor() or platform.machine()


def variables() -> dict[str, str]:
    """Return the variables of the environment that may change a number."""
    return {name: each for name, each in sorted(os.environ.items()) if VARIABLES.fullmatch(name)}


@functools.cache  # a study asks for each run
def version(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def code_state(code: Iterable[str] = ()) -> dict:
    """Return where the code of this process is from.

    Args:
        code: the files that it uses, by their paths below `scripts/`.

    Returns:
        `git_commit`, and as `git_dirty` whether one of `DECIDING` differs from it, or git does not
        know a file that is used: None where the project is no git checkout, or git is not
        installed. As `snapshot`, the digest of the kept code, and as `environment`, that of the
        kept list of packages, see `lib.core.snapshot`: None if this is the project itself.
    """
    state = read_object(SCRIPTS.parent / ORIGIN, STATE) or state_of_project()
    untracked = state.pop("git_untracked")
    if any(f"scripts/{name}" in untracked for name in code):
        state["git_dirty"] = True
    return state


def state_of_project() -> dict:
    """Return what a copy of the project's code keeps for `code_state`."""
    commit = _output("git", "rev-parse", "HEAD")
    status = _output("git", "status", "--porcelain", "--untracked-files=all", "--", *DECIDING)
    lines = (status or "").splitlines()
    changed = [line for line in lines if not line.startswith("?? ")]
    return {
        "git_commit": commit,
        "git_dirty": None if status is None else bool(changed),
        "git_untracked": [line[3:] for line in lines if line.startswith("?? ")],
        "snapshot": None,
        "environment": None,
    }


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
