"""Slurm's commands, run so that their output is the same whatever a user has set.

They take defaults from the environment: which jobs are listed, with which columns, and how a time
is written. What chooses the cluster stays (SLURM_CONF, SLURM_CLUSTERS), and so do the defaults of
`sbatch`, which are for the jobs.
"""

import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence

from lib.core import subprocesses

DEFAULTS = ("SACCT_", "SCANCEL_", "SCONTROL_", "SINFO_", "SQUEUE_", "SLURM_BITSTR_", "SLURM_DEBUG_")
FIXED = {"LC_ALL": "C", "SLURM_TIME_FORMAT": "standard"}

# What Slurm's commands say where the same may succeed a moment later: the daemons are away, busy or
# being restarted, munge or a clock is wrong for a moment, the network is down. It is what Slurm's
# own table of errors has of that kind (src/common/slurm_errno.c, 22.05 to 25.11), and the system's.
PASSING = """
Unexpected message received
Communication connection failure
Communication shutdown failure
Message send failure
Message receive failure
Protocol authentication error
Can't find an address, check slurm.conf
Unexpected missing socket error
Unable to process incoming
Unable to process outgoing
Read would block
Write would block
Connection rejected by handler
Connection forced closed by quiesce timeout
Connection timed out
Kernel reported delayed socket error
Process is shutting down
Unable to contact slurm controller
Rate limit exceeded, please retry
controller in standby
Controller is in standby
I/O error writing script/environment to file
Error generating job credential
try again later
try again in a bit
System submissions disabled
Received zero length message
Failed to send entire message
Header lengths are longer than data received
Socket timed out
Zero Bytes were transmitted
Invalid authentication credential
Authentication credential invalid
Authentication credential expired
Failed to connect to authentication agent
Cannot unpack credential
Unable to query kernel for socket peer credential
Unable to connect to database
Database connection reference is invalid
Resource temporarily unavailable
Transport endpoint is not connected
Connection refused
Connection reset
Broken pipe
No route to host
Network is unreachable
Temporary failure in name resolution
Interrupted system call
""".strip().splitlines()
_PASSING = re.compile("|".join(map(re.escape, PASSING)))
PATIENCE = 300.0  # seconds
INTERVAL = 5.0  # seconds between tries
# How sites say whom to charge. sbatch itself reads only the first.
ACCOUNT = ("SBATCH_ACCOUNT", "SLURM_ACCOUNT")


def run(command: Sequence[str], patience: float = 0.0) -> subprocesses.Finished:
    """Run a command of Slurm's whose output is read; a failure is a value, not an exception.

    Not for `sbatch`, which hands its environment on to the job.

    Args:
        command: the program and its arguments.
        patience: as of `patiently`.
    """
    return patiently(lambda: subprocesses.run(command, env=environment()), patience)


def patiently(
    command: Callable[[], subprocesses.Finished],
    patience: float | None = None,
    tell: Callable[[str], None] | None = None,
    canceled: threading.Event | None = None,
) -> subprocesses.Finished:
    """Run a command of Slurm's again, as long as it fails for a reason that passes.

    Args:
        command: runs it once.
        patience: for how many seconds; by default PATIENCE.
        tell: is told what is waited for; by default, it is printed.
        canceled: ends the waiting when it is set.
    """
    patience = PATIENCE if patience is None else patience
    canceled, told = canceled or threading.Event(), ""
    tell = tell or (lambda text: print(text, file=sys.stderr, flush=True))
    end = time.monotonic() + patience
    while True:
        done = command()
        passes = not done.ok and _PASSING.search(done.message)
        if not passes or canceled.is_set() or time.monotonic() >= end:
            return done
        said = f"Slurm does not answer ({passes[0]}): waiting for it, up to {patience:.0f} s"
        if said != told:
            tell(said)
        told = said
        canceled.wait(INTERVAL)


def environment() -> dict[str, str]:
    """Return the environment of this process without defaults of Slurm's commands."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(DEFAULTS)}
    return kept | FIXED


def sbatch_environment() -> dict[str, str]:
    """Return the environment for sbatch: what jobs ask for is the profile's business.

    But an account that the environment names is charged where the profile names none.
    """
    ignored = ignored_variables()
    kept = {name: value for name, value in os.environ.items() if name not in ignored}
    account = next(filter(None, map(os.environ.get, ACCOUNT)), None)
    return kept | ({ACCOUNT[0]: account} if account else {})


def ignored_variables() -> list[str]:
    """Return the variables of the environment that would change what a job asks for."""
    return sorted(name for name in os.environ if name.startswith("SBATCH_") and name not in ACCOUNT)


def config() -> dict[str, str]:
    """Return Slurm's configuration, by the names of slurm.conf.

    Raises:
        UserError: Slurm does not answer, or is not there.
    """
    lines = run(["scontrol", "show", "config"]).checked().splitlines()
    pairs = (line.partition("=") for line in lines)
    return {key.strip(): value.strip() for key, _, value in pairs if value}


def problems() -> list[str]:
    """Return why Slurm cannot be asked at all; nothing where it can."""
    if not shutil.which("sbatch"):
        return ["sbatch is not on the PATH: log in to the cluster, or load its Slurm module"]
    done = run(["sinfo", "--noheader", "--format=%R"])
    failed = not done.ok or "error" in done.stderr
    return [f"Slurm does not answer: {done.message}"] if failed else []
