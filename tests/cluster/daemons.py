"""The daemons of the throw-away cluster and the processes of its jobs."""

import contextlib
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from machine import CONFIG, ENVIRONMENT, FOLDER, HERE, fail, wait_until

HIDDEN = FOLDER / "hidden"  # a link to the folder that a node of the site `broken` does not see
DATABASE = FOLDER / "mariadb.cnf"
SLURMDBD = FOLDER / "slurmdbd"  # a link: by its path ours is told from any other
START_SECONDS = 60

# One of these is in the environment of what we run, and of every job.
MARKS = {"SLURM_THROWAWAY=yes", "SLURM_CLUSTER_NAME=throwaway"}


class Daemon(NamedTuple):
    """One long-lived process of the cluster, and where it listens once it is ready."""

    name: str
    command: list[str]
    address: str | int  # the path of a socket, or a port
    launcher: tuple[str, ...] = ()  # what becomes the command


MARIADBD = ["/usr/sbin/mariadbd", f"--defaults-file={DATABASE}"]
ACCOUNTING = [
    Daemon("mariadb", MARIADBD, ENVIRONMENT["MYSQL_UNIX_PORT"]),
    Daemon("slurmdbd", [f"{SLURMDBD}"], 26819),
]


def configuration() -> str:
    """Return the slurm.conf of the cluster; of one that `slurm.py up` would make without one."""
    return (CONFIG if CONFIG.exists() else HERE / CONFIG.name).read_text()


def has_accounting() -> bool:
    """Tell whether the cluster keeps accounts; that of some sites does not."""
    return "\nAccountingStorageType=" in configuration()


def daemons() -> list[Daemon]:
    """Return the parts of the cluster, in the order in which they need each other."""
    files = [f"--{name}-file={FOLDER}/munge/{name}" for name in ("key", "pid", "seed")]
    files += [f"--socket={FOLDER}/munge/socket", f"--log-file={FOLDER}/log/munged.log"]
    nodes = re.findall(r"^NodeName=(\S+) .*Port=(\d+)", configuration(), flags=re.MULTILINE)
    return [
        Daemon("munged", ["/usr/sbin/munged", *files], f"{FOLDER}/munge/socket"),
        *(ACCOUNTING if has_accounting() else []),
        Daemon("slurmctld", ["/usr/sbin/slurmctld", "-f", f"{CONFIG}"], 26817),
        *(slurmd(node, int(port)) for node, port in nodes),
    ]


def slurmd(node: str, port: int) -> Daemon:
    """Return the daemon that plays one node."""
    command = ["/usr/sbin/slurmd", "-N", node, "-f", f"{CONFIG}", "-d", f"{FOLDER}/slurmstepd"]
    hide = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs "$0"; exec "$@"')
    launcher = (*hide, f"{HIDDEN.resolve()}") if node == "noenv" and HIDDEN.exists() else ()
    return Daemon(f"slurmd-{node}", command, port, launcher)


def start(daemon: Daemon) -> None:
    """Start a daemon and wait until it takes connections; show its log if it does not."""
    if listens(daemon):
        fail(f"{daemon.name} does not start: another program listens at {daemon.address}")
    command, nothing = [*daemon.launcher, *daemon.command], subprocess.DEVNULL
    file = FOLDER / "log" / f"{daemon.name}.log"
    with file.open("a") as log:
        how = {"stdin": nothing, "stdout": log, "stderr": log, "start_new_session": True}
        launched = subprocess.Popen(command, env=ENVIRONMENT, cwd="/", **how)
    began = alive = time.monotonic()
    while not (listens(daemon) and pid_of(daemon)):
        now = time.monotonic()
        if launched.poll() is None or pid_of(daemon):
            alive = now
        # On its way to the background a daemon cannot be seen for a moment.
        if now > alive + 1 or now > began + START_SECONDS:
            last_lines = "\n".join(file.read_text(errors="replace").splitlines()[-20:])
            fail(f"{daemon.name} does not start. The end of {file}:\n{last_lines}")
        time.sleep(0.05)


def listens(daemon: Daemon) -> bool:
    """Tell whether the daemon takes connections, without making one: it would log an error."""
    if isinstance(daemon.address, str):
        sockets = Path("/proc/net/unix").read_text().splitlines()
        return any(" 00010000 " in line and line.endswith(daemon.address) for line in sockets)
    return f":{daemon.address:04X} 00000000:0000 0A " in Path("/proc/net/tcp").read_text()


def stop(daemon: Daemon, number: signal.Signals) -> None:
    """Signal a daemon and wait until it is gone. The jobs of a slurmd go on without it."""
    if pid := pid_of(daemon):
        send({pid}, number)
        wait_until(lambda: pid_of(daemon) is None, 60, f"{daemon.name} does not end")


class Process(NamedTuple):
    """A living process of this machine."""

    pid: int
    parent: int
    name: str
    command: list[str]
    environment: list[str]


def processes() -> list[Process]:
    """Return every living process; one that ends meanwhile may be left out.

    Those in process namespaces below this one, such as containers, belong to other clusters.
    """
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            text = (folder / "status").read_text(errors="replace")
            about = dict(re.findall(r"^(\w+):\t(.*)", text, flags=re.MULTILINE))
            if about["State"][0] in "ZX" or len(about.get("NSpid", "").split()) > 1:
                continue
            files = [folder / "cmdline", folder / "environ"]
            texts = [f.read_text(errors="replace") if os.access(f, os.R_OK) else "" for f in files]
            lists = [text.rstrip("\0").split("\0") for text in texts]
            found.append(Process(int(folder.name), int(about["PPid"]), about["Name"], *lists))
    return found


def pid_of(daemon: Daemon) -> int | None:
    """Return the daemon's process id, or None if it does not run."""
    # A pid file would lie after a crash.
    return min((p.pid for p in processes() if p.command == daemon.command), default=None)


def cluster_pids() -> set[int]:
    """Return the processes of the cluster, of its jobs, and all that these have started."""
    alive, commands = processes(), [daemon.command for daemon in daemons()]
    found = {p.pid for p in alive if p.command in commands or MARKS.intersection(p.environment)}
    # Nothing marks a slurmstepd, but no other Slurm may be where ours is.
    found |= {p.pid for p in alive if p.name == "slurmstepd" and FOLDER.exists()}
    while children := {p.pid for p in alive if p.parent in found} - found:
        found |= children
    # Not this program, should a job have started it.
    parents, pid = {p.pid: p.parent for p in alive}, os.getpid()
    while pid:
        found.discard(pid)
        pid = parents.get(pid, 0)
    return found


def send(pids: set[int], number: signal.Signals) -> None:
    """Send a signal to processes, some of which may be gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def kill_everything() -> None:
    """Kill the daemons and the jobs."""
    frozen: set[int] = set()
    # Frozen first, as what a dying process starts at the last moment would not be found again.
    while new := cluster_pids() - frozen:
        send(new, signal.SIGSTOP)
        frozen |= new
    send(frozen, signal.SIGKILL)
    wait_until(lambda: not cluster_pids(), 10, "some processes cannot be killed")
