#!/usr/bin/env python3
"""A throw-away Slurm cluster on this one machine, to test a Slurm profile or to try one.

Two CPU nodes (cpu1, cpu2) and a node with two simulated GPUs (gpu1), with accounting, limits and
preemption as on a real cluster: slurm.conf beside this file describes the partitions. It needs
Debian or Ubuntu, and root. All that it leaves while up is one folder in /var/lib and the link
/etc/slurm/slurm.conf. Where another Slurm is set up, it refuses to start.

Clusters that `slurm.py run` starts see neither each other nor the machine's. They are in
namespaces; in a container, these need `docker run --privileged`. The command runs as root. To run
it as a user:
  slurm.py run --site alliance --user ada -- su ada -c "sbatch --account=def-prof job.sh"
"""

import argparse
import contextlib
import fcntl
import os
import pwd
import signal
import sys
from pathlib import Path

import configure
import namespaces
from configure import SITES
from daemons import START_SECONDS, daemons, has_accounting, pid_of, start, stop
from machine import FOLDER, HERE, fail, install_packages, run, say, wait_until

READY = FOLDER / "ready"  # written last: without it the folder is the rest of a broken start
PACKAGES = ("slurm-wlm", "slurmdbd", "slurm-wlm-mysql-plugin", "munge", "mariadb-server")
# What slurmdbd 24.11 of Debian 13 dies of: to what it asks, its libmariadb answers this.
BROKEN_QUERY = "Number of columns in result"


def up(site: str, users: set[str], hidden: Path | None) -> None:
    """Start what does not run yet and wait until jobs do."""
    configure.refuse_another_slurm()
    install_packages(*PACKAGES)
    fresh = not READY.exists()
    if fresh:
        configure.remove()
        say("making the configuration and the database")
        configure.create_folder(site, hidden)
    elif READY.read_text() != site:
        site = READY.read_text() or "none"
        fail(f"a cluster as at site {site!r} is up; `slurm.py down` removes it")
    down = [daemon for daemon in daemons() if not pid_of(daemon)]
    for daemon in daemons():
        if daemon.name == "slurmctld" and has_accounting():  # it does not start without accounts
            configure.enter_accounts(site, users)
        if daemon in down:
            say(f"starting {daemon.name}")
            try:
                start(daemon)
            except SystemExit as reason:
                needed = (HERE / "sites" / site / "accounting").exists() or not fresh
                if needed or BROKEN_QUERY not in str(reason):
                    raise
                configure.go_without_accounting()
    wait_until(nodes_ready, START_SECONDS, "not every node reports; see `sinfo -R`")
    if fresh and not site:  # a site may want to know more of a job
        say("running a first job")
        run("srun", f"--immediate={START_SECONDS}", "hostname")
        wait_until(lambda: not run("squeue", "--noheader"), START_SECONDS, "it does not end")
    READY.write_text(site)
    say("the cluster is up" if down else "the cluster was up already")


def nodes_ready() -> bool:
    """Tell whether every node has reported to the controller."""
    states = run("sinfo", "--noheader", "--Node", "--format=%T").split()
    return not any(state.endswith("*") or state.startswith(("down", "unk")) for state in states)


def status() -> bool:
    """Print what runs; tell whether all of it does."""
    pids = {daemon.name: pid_of(daemon) for daemon in daemons()}
    for name, pid in pids.items():
        say(f"{name:12} {f'up, process {pid}' if pid else 'down'}")
    if not (pids["munged"] and pids["slurmctld"]):
        return False
    say(run("sinfo", "--format=%10P %12N %10T %C").rstrip())
    return all(pids.values()) and nodes_ready()


def run_apart(asked: argparse.Namespace, users: set[str]) -> int:
    """Run a command on a cluster of its own; return its exit status."""
    handle = lock()
    install_packages(*PACKAGES, "iproute2")  # where there is a network
    os.close(handle)

    def inside() -> int:
        namespaces.cover(FOLDER.parent, without=FOLDER.name)
        namespaces.mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", configure.LINK.parent)
        up(asked.site, users, asked.hide)
        slurm = ("SLURM", "SBATCH", "SQUEUE", "SACCT", "SINFO")
        environment = {name: os.environ[name] for name in os.environ if not name.startswith(slurm)}
        return namespaces.wait_for(asked.argument, environment)

    try:
        return namespaces.call(inside)
    except PermissionError as error:
        fail(f"{error.strerror}: a container needs `docker run --privileged`")


def lock() -> int:
    """Let one call of this program at a time change the cluster, until it ends or closes this."""
    # The parent folder itself is the lock, so no lock file stays behind.
    handle = os.open(FOLDER.parent, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("waiting for another call of this program to end")
        fcntl.flock(handle, fcntl.LOCK_EX)
    return handle


def existing_user(name: str) -> str:
    """Accept a user of this machine."""
    try:
        return pwd.getpwnam(name).pw_name
    except KeyError:
        raise argparse.ArgumentTypeError(f"this machine has no user {name!r}") from None


def arguments() -> argparse.Namespace:
    """Read the command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    add = parser.add_subparsers(dest="command", required=True, metavar="COMMAND").add_parser
    up = add("up", help="install what is missing, start the cluster, and wait until jobs run")
    add("status", help="print what runs; exit 1 unless all of it does")
    stop = add("stop", help="end one daemon and wait until it is gone")
    text = "as a crash would; slurmctld then forgets the jobs of its last five seconds"
    stop.add_argument("--kill", action="store_true", help=text)
    start = add("start", help="start one daemon again, with what it knew")
    add("down", help="stop everything and remove every file; the packages stay")
    apart = add("run", help="run a command on a cluster of its own, of which nothing stays behind")
    names = [daemon.name for daemon in daemons()]
    for command in (stop, start):
        command.add_argument("daemon", choices=names, metavar="DAEMON", help=", ".join(names))
    for command in (up, apart):
        text = (
            f"with the rules of one of these: {', '.join(SITES)} (sites/NAME says which they are)"
        )
        command.add_argument("--site", choices=SITES, metavar="NAME", default="", help=text)
        text = "let this user submit jobs too, beside root and who called sudo; may be repeated"
        command.add_argument("--user", action="append", type=existing_user, default=[], help=text)
        text = "of the site `broken`: let the node `noenv` not see this folder"
        command.add_argument("--hide", type=Path, metavar="FOLDER", help=text)
    apart.add_argument("argument", nargs="+", help="the command, as root, and its arguments")
    return parser.parse_args()


def main() -> int:
    """Do what the command line asks."""
    asked = arguments()
    if asked.command == "status":
        return 0 if status() else 1
    if os.geteuid() != 0:
        fail("only root can do this (try sudo): a cluster is made of system daemons")
    os.umask(0o022)  # every user must be able to read the configuration
    users = {"root", os.environ.get("SUDO_USER", "root"), *getattr(asked, "user", [])}
    if asked.command == "run":
        with contextlib.redirect_stdout(sys.stderr):
            return run_apart(asked, users)
    lock()
    if asked.command == "up":
        up(asked.site, users, asked.hide)
    elif asked.command == "down":
        gone = configure.remove()
        say("the cluster is gone; the packages stay" if gone else "there was no cluster")
    elif not READY.exists():
        fail("there is no cluster; `slurm.py up` makes one")
    else:
        daemon = next(daemon for daemon in daemons() if daemon.name == asked.daemon)
        if asked.command == "stop":
            stop(daemon, signal.SIGKILL if asked.kill else signal.SIGTERM)
        elif not pid_of(daemon):
            start(daemon)
    return 0


if __name__ == "__main__":
    sys.exit(main())
