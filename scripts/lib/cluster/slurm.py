"""Slurm's commands, run so that their output is the same whatever a user has set.

They take defaults from the environment: which jobs are listed, with which columns, and how a time
is written. What chooses the cluster stays (SLURM_CONF, SLURM_CLUSTERS), and so do the defaults of
`sbatch`, which are for the jobs.
"""

import os
import shutil
from collections.abc import Sequence

from lib.core import subprocesses

DEFAULTS = ("SACCT_", "SCANCEL_", "SCONTROL_", "SINFO_", "SQUEUE_", "SLURM_BITSTR_", "SLURM_DEBUG_")
FIXED = {"LC_ALL": "C", "SLURM_TIME_FORMAT": "standard"}


def run(command: Sequence[str]) -> subprocesses.Finished:
    """Run a command of Slurm's whose output is read; a failure is a value, not an exception.

    Not for `sbatch`, which hands its environment on to the job.
    """
    return subprocesses.run(command, env=environment())


def environment() -> dict[str, str]:
    """Return the environment of this process without defaults of Slurm's commands."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(DEFAULTS)}
    return kept | FIXED


def problems() -> list[str]:
    """Return why Slurm cannot be asked at all; nothing where it can."""
    if not shutil.which("sbatch"):
        return ["sbatch is not on the PATH: log in to the cluster, or load its Slurm module"]
    done = run(["sinfo", "--noheader", "--format=%R"])
    failed = not done.ok or "error" in done.stderr
    return [f"Slurm does not answer: {done.message}"] if failed else []
