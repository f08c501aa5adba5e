"""Snakemake's locks: who holds them, and what is done where that process is dead.

Snakemake locks the files of a run, and removes all locks when it ends. If it is killed, they stay,
and every later start would end with an error. Who has locked the files is noted in a file beside
the locks, one for each study (`results_dir`). Snakemake removes it with them, and so does
`--unlock`. If all who are noted there are dead for sure, the locks are removed.
"""

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from lib.cluster import slurm
from lib.core.errors import UserError
from lib.core.holder import Holder
from lib.core.layout import Layout

LOCKS = Path(".snakemake", "locks")
DRIVER = "STUDY_DRIVER"  # the variable that tells Snakemake the job of the driver that it is in


def study_id(files: Layout) -> str:
    """Return what tells a study from others: it follows from `results_dir`."""
    return hashlib.sha256(os.fsencode(files.results.resolve())).hexdigest()[:12]


def mark(files: Layout) -> None:
    """Note that this process, which has just locked its files, holds the locks of a study."""
    current = replace(Holder.current(), slurm_job=_own_job())
    with suppress(FileNotFoundError):  # somebody has unlocked the folder already
        _marker(files).write_text(json.dumps(asdict(current)))


def holder(files: Layout) -> Holder | None:
    """Return who holds, or held, the locks of a study; None where nobody is known to."""
    return Holder.read(_marker(files))


def clear(files: Layout, unlock: str) -> str:
    """Remove the locks where all who held them are dead; return a line that says so, or nothing.

    Args:
        files: of the study that is to be run.
        unlock: the command that removes the locks, for a person to type.

    Raises:
        UserError: the study is being run, or may be.
    """
    if not any(LOCKS.glob("*.lock")):
        return ""
    own, holders = holder(files), [Holder.read(path) for path in LOCKS.glob(_marker_name("*"))]
    if holders and all(each and is_dead(each) for each in holders):
        for path in LOCKS.iterdir():  # the folder itself is Snakemake's, which is about to use it
            path.unlink()
        names = ", ".join(map(str, holders))
        return f"The Snakemake that had locked this folder is dead ({names}): it is unlocked"
    if own and own.is_here() and not own.has_ended():
        raise UserError(
            f"this study is being run by {own}. Wait for its end, or end it, for example with "
            f"Ctrl-C where it was started, or kill {own.process}"
        )
    if holders and own is None:
        return ""  # another study's: Snakemake sees whether they have files in common
    raise UserError(
        f"this folder is locked by {own or 'a Snakemake of which nothing is known'}. If that does "
        f"not run any more, type this, and then the same command again:\n  {unlock}"
    )


def is_dead(holder: Holder) -> bool:
    """Return whether it is sure that a process does not run any more.

    Of a Slurm job on another machine, Slurm knows. If it is this very job, Slurm has started it
    again.
    """
    if holder.is_here():
        return holder.has_ended()
    job = holder.slurm_job
    if not job:
        return False
    if job == _own_job():
        return True
    query = ["squeue", "--all", "--noheader", "--format=%T", f"--jobs={job}"]
    done = slurm.run(query)
    return not done.stdout.strip() if done.ok else "Invalid job id" in done.message


def _own_job() -> str | None:
    return os.environ.get(DRIVER) or os.environ.get("SLURM_JOB_ID")


def _marker(files: Layout) -> Path:
    return LOCKS / _marker_name(study_id(files))


def _marker_name(study: str) -> str:
    return f"holder-{study}.json"
