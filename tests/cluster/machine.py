"""What the throw-away cluster needs of the machine: a folder, packages, and how to run programs."""

import functools
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__).resolve().parent
FOLDER = Path("/var/lib/slurm-throwaway")
CONFIG = FOLDER / "slurm.conf"
ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "SLURM_CONF": f"{CONFIG}",
    "MYSQL_UNIX_PORT": f"{FOLDER}/mariadb/socket",  # where slurmdbd finds the database
    "SLURM_THROWAWAY": "yes",
}

POLICY = Path("/usr/sbin/policy-rc.d")  # asked by packages before they start their services
POLICY_TEXT = """#!/bin/sh
# From the throw-away Slurm cluster: start no service while its packages are installed.
exit 101
"""

say = functools.partial(print, flush=True)  # progress is to be seen at once, also in a pipe


def fail(message: str) -> NoReturn:
    """End with the message on standard error and exit status 1."""
    sys.exit(f"{Path(sys.argv[0]).name}: {message}")


def run(*command: str, environment: dict[str, str] = ENVIRONMENT, accept: str = "") -> str:
    """Run a command to its end and return what it printed; end the program if it fails.

    A failure is none if what it says matches `accept`.
    """
    both = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run(command, env=environment, text=True, **both)
    if done.returncode and not (accept and re.search(accept, done.stdout)):
        fail(f"failed with {done.returncode}: {' '.join(command)}\n{done.stdout[-2000:]}")
    return done.stdout


def create(path: Path, text: str, mode: int) -> None:
    """Write a new file that nobody else can read before it has its mode."""
    path.touch(mode=mode, exist_ok=False)
    path.write_text(text)


def wait_until(condition: Callable[[], bool], seconds: float, complaint: str) -> None:
    """Wait for the condition to hold; end the program with the complaint if it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            fail(complaint)
        time.sleep(0.1)


def install_packages(*packages: str) -> None:
    """Install the packages that are missing, from the distribution; start no service of theirs."""
    if not shutil.which("apt-get"):
        fail("there is no apt-get here: use Debian or Ubuntu, for example in a container")
    query = ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *packages]
    known = subprocess.run(query, capture_output=True, text=True).stdout.splitlines()
    missing = [package for package in packages if f"{package} installed" not in known]
    if not missing:
        return
    say(f"installing {' '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # Without --no-remove apt would take away a MySQL to make room for MariaDB.
    options = ["--yes", "--no-install-recommends", "--no-remove", "-oDPkg::Lock::Timeout=300"]
    if not POLICY.exists():  # containers have a policy; it stays
        create(POLICY, POLICY_TEXT, 0o755)
    try:
        run("apt-get", "update", environment=environment)
        run("apt-get", "install", *options, *missing, environment=environment)
    finally:
        remove_policy()


def remove_policy() -> None:
    """Remove our policy on services, also one left by an installation that was killed."""
    if POLICY.is_file() and POLICY.read_text(errors="replace") == POLICY_TEXT:
        POLICY.unlink()
