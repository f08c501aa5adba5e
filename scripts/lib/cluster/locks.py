"""Snakemake's locks: who holds them, and what is done where that process is dead.

Snakemake locks the files of a run, and removes all locks when it ends. If it is killed, they stay,
and every later start would end with an error. Who has locked the files is noted in a file beside
the locks, one for each study (`results_dir`). Snakemake removes it with them, and so does
`--unlock`. If all who are noted there are dead for sure, the locks are removed.
"""

import hashlib
import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from lib.cluster import slurm
from lib.core.errors import UserError
from lib.core.holder import Holder
from lib.core.layout import Layout

LOCKS = Path(".snakemake", "locks")
DRIVER = "STUDY_DRIVER"  # the variable that tells Snakemake the job of the driver that it is in
MOMENT = 5.0  # seconds between the locks and what is noted, at the most


def study_id(files: Layout) -> str:
    """Return what tells a study from others: it follows from `results_dir`."""
    return hashlib.sha256(os.fsencode(files.results.resolve())).hexdigest()[:12]


def mark(files: Layout) -> None:
    """Note that this process, which has just locked its files, holds the locks of a study."""
    job, cluster = os.environ.get(DRIVER), os.environ.get("SLURM_CLUSTER_NAME")
    current = replace(Holder.current(), slurm_job=f"{job} of {cluster}" if job else None)
    with suppress(FileNotFoundError):  # somebody has unlocked the folder already
        _marker(files).write_text(json.dumps(asdict(current)))


def holder(files: Layout) -> Holder | None:
    """Return who holds, or held, the locks of a study; None where nobody is known to."""
    return Holder.read(_marker(files))


def driver_job(holder: Holder | None) -> str:
    """Return the job of the driver that a holder is in; empty where it is in none."""
    return ((holder and holder.slurm_job) or "").partition(" of ")[0]


def clear(files: Layout, unlock: str) -> str:
    """Remove the locks where all who held them are dead; return a line that says so, or nothing.

    Args:
        files: of the study that is to be run.
        unlock: the command that removes the locks, for a person to type.

    Raises:
        UserError: the study is being run, or may be.
    """
    while locked := list(LOCKS.glob("*.lock")):
        holders = _holders()
        living = {path: each for path, each in holders.items() if not (each and is_dead(each))}
        if living or not holders:
            break
        if _remove(locked, list(holders)):
            names = ", ".join(map(str, holders.values()))
            return f"The Snakemake that had locked this folder is dead ({names}): it is unlocked"
    if not locked:
        return ""
    own = holders.get(_marker(files))
    if own and own.is_here() and not own.has_ended():
        raise UserError(
            f"this study is being run by {own}. Wait for its end, or end it, for example with "
            f"Ctrl-C where it was started, or kill {own.process}"
        )
    if own and own not in living.values():
        others = ", ".join(str(each or "one of which nothing is known") for each in living.values())
        raise UserError(
            "the Snakemake of this study is dead. Its locks are removed once the other studies in "
            f"this folder have ended: {others}"
        )
    if holders and own is None:
        return ""  # another study's: Snakemake sees whether they have files in common
    raise UserError(
        f"this folder is locked by {own or 'a Snakemake of which nothing is known'}. If that does "
        f"not run any more, type this, and then the same command again:\n  {unlock}"
    )


def is_dead(holder: Holder) -> bool:
    """Return whether it is sure that a process does not run any more.

    Of a driver on another machine, its cluster knows. If it is this very job, Slurm has started it
    again.
    """
    if holder.is_here():
        return holder.has_ended()
    job, _, cluster = (holder.slurm_job or "").partition(" of ")
    if not job or holder.user != os.getuid() or cluster != _cluster():
        return False
    if job == os.environ.get(DRIVER):
        return True
    done = slurm.run(["squeue", "--all", "--noheader", "--format=%T", f"--jobs={job}"])
    return not done.stdout.strip() if done.ok else "Invalid job id" in done.message


def _cluster() -> str:
    """Return the name of the cluster that Slurm's commands are about; empty where none answers."""
    with suppress(UserError, KeyError):
        return slurm.config()["ClusterName"]
    return ""


def _holders() -> dict[Path, Holder | None]:
    """Return who is noted; who has just locked its files is, a moment later."""
    end = time.monotonic() + MOMENT
    while not (found := list(LOCKS.glob(_marker_name("*")))) and time.monotonic() < end:
        time.sleep(0.1)
        if not any(LOCKS.glob("*.lock")):
            break
    return {path: Holder.read(path) for path in found}


def _remove(locked: list[Path], markers: list[Path]) -> bool:
    """Remove locks and what is noted with them; return False if another process was faster."""
    try:
        markers[0].unlink()
    except FileNotFoundError:
        return False
    for path in (*locked, *markers):  # the folder itself is Snakemake's, which is about to use it
        path.unlink(missing_ok=True)
    return True


def _marker(files: Layout) -> Path:
    return LOCKS / _marker_name(study_id(files))


def _marker_name(study: str) -> str:
    return f"holder-{study}.json"
