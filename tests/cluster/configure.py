"""The files and accounts of the throw-away cluster."""

import os
import re
import secrets
import shutil
import signal
import string
import sys
from pathlib import Path

import daemons
from daemons import DATABASE, HIDDEN, SLURMDBD
from machine import CONFIG, FOLDER, HERE, create, fail, remove_policy, run, say

SITES = sorted(folder.name for folder in (HERE / "sites").iterdir())
LINK = Path("/etc/slurm/slurm.conf")  # where Slurm looks when the environment names no other
NO_ACCOUNTING = FOLDER / "no-accounting"  # says why, where the cluster goes without

# What the folder has of this one and of the site's, and the modes.
FILES = dict.fromkeys(("slurm.conf", "gres.conf", "cgroup.conf", "mariadb.cnf"), 0o644)
FILES |= {"slurmdbd.conf": 0o600, "job_submit.lua": 0o755, "prolog": 0o755}

# There may be no cgroups, so slurmstepd finds the processes of a job by their parents. Make it the
# parent of orphans too, or they would outlive a cancelled job as they never do on a real cluster.
# 36 is PR_SET_CHILD_SUBREAPER, which exec keeps. No Python of an environment: a node of the site
# `broken` may not see it.
ADOPTING_STEPD = f"""#!{Path(sys.executable).resolve()} -IS
import ctypes, os, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
os.execv("/usr/sbin/slurmstepd", sys.argv)
"""


def refuse_another_slurm() -> None:
    """End if this machine has a Slurm that is not ours."""
    signs = [f"{LINK} exists"] if os.path.lexists(LINK) and not link_is_ours() else []
    ours, names = daemons.cluster_pids(), ("slurmctld", "slurmd", "slurmdbd")
    strangers = [p for p in daemons.processes() if p.name in names and p.pid not in ours]
    signs += [f"{p.name} runs as process {p.pid}" for p in strangers]
    if signs:
        fail(f"this machine has a Slurm of its own ({', '.join(signs)}); nothing was changed")


def link_is_ours() -> bool:
    """Tell whether /etc/slurm/slurm.conf is the link that this program makes."""
    return LINK.is_symlink() and LINK.readlink() == CONFIG


def create_folder(site: str, hidden: Path | None) -> None:
    """Make the folder, with the configuration, a munge key and an empty database, and the link."""
    for name in (".", "munge", "log", "run", "slurmctld"):
        (FOLDER / name).mkdir(mode=0o700 if name == "slurmctld" else 0o755)
    create(FOLDER / "munge/key", secrets.token_hex(64), 0o600)
    create(FOLDER / "slurmstepd", ADOPTING_STEPD, 0o755)
    SLURMDBD.symlink_to("/usr/sbin/slurmdbd")
    for name, mode in FILES.items():
        paths = [HERE / name, HERE / "sites" / site / name]
        if texts := [path.read_text() for path in paths if path.exists()]:
            text = string.Template(overlaid(*texts)).safe_substitute(folder=FOLDER)
            create(FOLDER / name, text, mode)
    if hidden:
        HIDDEN.symlink_to(hidden.resolve())
    if daemons.has_accounting():
        options = ["--skip-test-db", "--auth-root-authentication-method=socket"]
        run("mariadb-install-db", f"--defaults-file={DATABASE}", *options)
    LINK.symlink_to(CONFIG)


def overlaid(text: str, overlay: str = "") -> str:
    """Return a configuration in which the lines of another one replace those of the same setting.

    A setting without a value is removed.
    """
    lines = overlay.splitlines()
    settings = {line.partition("=")[0] for line in lines if "=" in line}
    kept = [line for line in text.splitlines() if line.partition("=")[0] not in settings]
    return "\n".join([*kept, *(line for line in lines if not line.endswith("="))]) + "\n"


def enter_accounts(site: str, users: set[str]) -> None:
    """Make the accounts and QoS, and let users submit jobs; what is there already stays."""
    special, known = HERE / "sites" / site / "accounting", "Nothing new added|already exists"
    text = (special if special.exists() else HERE / "accounting").read_text()
    for user in sorted(users):
        for line in string.Template(text).substitute(user=user).splitlines():
            if not line.startswith("#"):
                run("sacctmgr", "--immediate", *line.split(), accept=known)


def go_without_accounting() -> None:
    """Take accounting out of the configuration, where slurmdbd cannot run."""
    why = "slurmdbd of this release dies at its first query: no accounting, and no limits"
    say(why)
    for daemon in daemons.ACCOUNTING:
        daemons.stop(daemon, signal.SIGTERM)
    CONFIG.write_text(re.sub(r"(?m)^AccountingStorage.*\n", "", daemons.configuration()))
    create(NO_ACCOUNTING, why, 0o644)


def remove() -> bool:
    """Remove the cluster, however broken it is; tell whether there was anything of it."""
    found = bool(daemons.cluster_pids()) or FOLDER.exists() or link_is_ours()
    daemons.kill_everything()
    if link_is_ours():
        LINK.unlink()
    if FOLDER.exists():
        shutil.rmtree(FOLDER)
    remove_policy()
    return found
