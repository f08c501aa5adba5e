"""Start the fork server, so that what runs trainings and evaluations need not know of it."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

# `python` in the commands of the rules asks the server whose sockets are in this folder.
VARIABLE = "SLURM_CLASSIFIERS_FORKS"

SERVED = ("scripts/train.py", "scripts/evaluate.py")  # what it runs
CODE = Path(__file__).absolute().parents[3]
# A socket's path has 107 characters at most.
LONGEST = 60


def socket_folder(prefix: str) -> Path:
    """Make a temporary folder for sockets, of this user alone, and return its path."""
    place = tempfile.gettempdir()
    place = place if len(place) < LONGEST else "/tmp"  # noqa: S108 - mkdtemp is careful
    return Path(tempfile.mkdtemp(prefix=prefix, dir=place))


def use_until_exit(code: Path = CODE) -> None:
    """Start the fork server for all commands that this process starts from now on.

    Args:
        code: the folder of the code that it runs; by default, that of this module.
    """
    server = ForkServer(code=code.absolute()).__enter__()
    atexit.register(server.__exit__)


class ForkServer:
    """The fork server of this process, which it does not outlive. Use it in a `with` statement.

    Args:
        modules: what all scripts import.
        scripts: those that it runs, below `code`.
        code: the folder of the code; by default, that of this module.
        user: whose processes they are, as `subprocess.Popen` takes it; by default, one's own.
    """

    def __init__(
        self,
        modules: Sequence[str] = ("torch",),
        scripts: Sequence[str | Path] = SERVED,
        code: Path = CODE,
        **user,
    ) -> None:
        """Start it; it is ready some seconds later."""
        self.folder = socket_folder("forks-")
        if user:
            os.chown(self.folder, user["user"], user["group"])
        server = code / "scripts" / "lib" / "forks" / "server.py"
        command = [sys.executable, server, self.folder, ",".join(modules)]
        command += [code / script for script in scripts]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, **user)

    def wait(self) -> bool:
        """Wait until it is ready; return whether it is: it may have failed."""
        return bool(self.process.stdout.readline())

    def __enter__(self) -> Self:
        """Wait until it is ready, and let the commands that are started from now on use it.

        One that has failed is not used: the commands then start without it.
        """
        if self.wait():
            os.environ[VARIABLE] = str(self.folder)
        return self

    def __exit__(self, *_) -> None:
        """End it, and what it has forked."""
        os.environ.pop(VARIABLE, None)
        self.process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.process.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)
