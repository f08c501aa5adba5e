"""Snakemake, as the commands of this project start it."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def command(profile: Path, configs: Sequence[Path], *words: str) -> list[str]:
    """Return the command that runs Snakemake, with more words for it."""
    start = [sys.executable, "-P", "-m", "snakemake", "--profile", str(profile)]
    # Words follow that begin with --, which end the list of the config files.
    return [*start, *(["--configfile", *map(str, configs)] if configs else []), *words]


def ask_slurm(profile: Path, configs: Sequence[Path], *words: str) -> int:
    """Let Snakemake ask Slurm about the jobs that it would submit, and submit none.

    It says what is wrong on standard error, and its exit status is returned.
    """
    # Nothing is run: the lock of a run that is going on does not matter.
    quietly = ["--nolock", "--quiet", "host", "progress", "rules", "reason"]
    asking = command(profile, configs, *words, *quietly, "--config", "check=only")
    return subprocess.run(asking, check=False).returncode
