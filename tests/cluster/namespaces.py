"""Spaces of their own, for a network, processes, and mounts, which end with what is in them."""

import ctypes
import os
import select
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

NETWORK, PROCESSES, MOUNTS = 0x40000000, 0x20000000, 0x00020000  # CLONE_NEW... of sched.h
SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG

_libc = ctypes.CDLL(None, use_errno=True)


def call(inside: Callable[[], int]) -> int:
    """Call a function that returns an exit status as the first process of new namespaces.

    All that it has started and mounted ends with it, and it ends with this process.

    Raises:
        PermissionError: this machine, or its container, does not allow namespaces.
    """
    if _libc.unshare(NETWORK | PROCESSES | MOUNTS):
        raise PermissionError(ctypes.get_errno(), "namespaces are not allowed here")
    for_child, for_parent = os.pipe()
    child = os.fork()
    if not child:
        os.close(for_parent)
        _libc.prctl(SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        if select.select([for_child], [], [], 0)[0]:  # closed: the parent is dead already
            os._exit(1)
        prepare()
        return inside()
    try:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    except KeyboardInterrupt:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return 128 + signal.SIGINT


def open_folder(folder: Path) -> None:
    """Let every user enter a folder, as seen by this thread and by what it starts from now on.

    Raises:
        PermissionError: this machine, or its container, does not allow namespaces.
    """
    if _libc.unshare(MOUNTS):
        raise PermissionError(ctypes.get_errno(), "namespaces are not allowed here")
    mount("--make-rprivate", "/")
    cover(folder)


def prepare() -> None:
    """Make the new namespaces usable: what is mounted stays within, /proc, and a network."""
    mount("--make-rprivate", "/")
    mount("-t", "proc", "proc", "/proc")
    # Names are resolved only where there is another address than 127.0.0.1.
    for words in ("link set lo up", "address add 10.77.0.1/32 dev lo"):
        subprocess.run(["ip", *words.split()], check=True)


def mount(*arguments: str | Path) -> None:
    """Call the program of this name."""
    subprocess.run(["mount", *arguments], check=True)


def cover(folder: Path, without: str = "") -> None:
    """Put an empty folder in memory over a folder, with all that is in it but one name."""
    below = Path("/mnt")  # where the folder stays reachable meanwhile
    mount("--rbind", folder, below)
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", folder)
    for path in below.iterdir():
        if path.is_symlink():
            (folder / path.name).symlink_to(path.readlink())
        elif path.name != without:
            (folder / path.name).mkdir() if path.is_dir() else (folder / path.name).touch()
            mount("--rbind", path, folder / path.name)
    subprocess.run(["umount", "--recursive", below], check=True)


def wait_for(command: list[str], environment: dict[str, str]) -> int:
    """Run a command to its end; meanwhile reap the orphans, as a first process must."""
    try:
        # Python ignores this signal, and what it spawns would too.
        child = os.posix_spawnp(command[0], command, environment, setsigdef=[signal.SIGPIPE])
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", flush=True)
        return 127
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
