"""Snakemake, as the commands of this project start it."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lib.core import subprocesses
from lib.core.errors import UserError

QUIETLY = ("--quiet", "host", "progress", "rules", "reason")
PATIENCE = 600.0  # seconds in which Snakemake must have planned a job


def command(profile: Path, configs: Sequence[Path], *words: str) -> list[str]:
    """Return the command that runs Snakemake, with more words for it."""
    start = [sys.executable, "-P", "-m", "snakemake", "--profile", str(profile)]
    # Words follow that begin with --, which end the list of the config files.
    return [*start, *(["--configfile", *map(str, configs)] if configs else []), *words]


def make(profile: Path, configs: Sequence[Path], files: Sequence[Path]) -> int:
    """Let Snakemake make files again, whether or not they are there; return its exit status."""
    for path in files:
        path.unlink(missing_ok=True)
    words = (*QUIETLY, "--keep-going", "--", *(path.as_posix() for path in files))
    return subprocesses.run_to_the_end(command(profile, configs, *words))


def ask_slurm(profile: Path, configs: Sequence[Path], *words: str) -> int:
    """Let Snakemake ask Slurm about the jobs that it would submit, and submit none.

    It says what is wrong on standard error, and its exit status is returned. Without `--nolock`
    among the words, it also fails where another Snakemake has locked the same files.
    """
    asking = command(profile, configs, *words, *QUIETLY, "--config", "check=only")
    return subprocess.run(asking, check=False).returncode


def planned_job(profile: Path, configs: Sequence[Path], output: str) -> dict:
    """Return the Slurm job that would make a file: its `sbatch` line, and its `threads`.

    It needs no Slurm, and does not depend on whether the file is there.

    Raises:
        UserError: Snakemake cannot plan it, or no partition takes it.
    """
    # The executor is named, whatever the profile says: one that is not ours would run the job.
    how = ("--executor", "slurm", "--nolock", *QUIETLY, "--config", "check=print")
    asking = command(profile, configs, "--force", *how, "--", output)
    done = subprocesses.run(asking, timeout=PATIENCE)
    if not done.ok:
        raise UserError(f"Snakemake cannot plan the job:\n{done.message}")
    return json.loads(done.stdout.splitlines()[-1])
