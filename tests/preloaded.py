"""Run Snakemake in processes that are forked from one that has imported it.

Importing takes most of a short run of Snakemake, and the suite starts hundreds. The fork server of
the product does it, with a worker that has imported nothing of the project.
"""

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from lib.forks import client
from lib.forks.start import ForkServer

SNAKEMAKE = Path(sys.executable).with_name("snakemake")
MODULES = ("snakemake.cli", "snakemake_executor_plugin_slurm", "pandas")
# What Python, its libraries and the loader read when a process starts.
AT_START = ("PYTHON", "LC_", "LANG", "LD_", "TZ", "OMP_", "OPENBLAS_")
USER = {"user", "group", "extra_groups"}


def folder_until_exit(prefix: str) -> Path:
    """Make a temporary folder that this process removes when it ends.

    A `TemporaryDirectory` would also be removed by a process that `multiprocessing` forks: since
    Python 3.13 that drops the functions that are called at the exit, and with them the object.
    """
    folder = tempfile.mkdtemp(prefix=prefix)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def can_run(command: list[str], **options) -> bool:
    """Return whether a forked process does a command as one that `subprocess.run` starts."""

    def read_at_start(variables) -> dict[str, str]:
        return {name: variables[name] for name in variables if name.startswith(AT_START)}

    environment = options.get("env") or os.environ
    known = command[0] == str(SNAKEMAKE) and options.keys() <= {"cwd", "timeout", "env", *USER}
    return known and read_at_start(environment) == read_at_start(os.environ)


def run(command: list[str], **options) -> subprocess.CompletedProcess:
    """Run a command of Snakemake's as `subprocess.run` would; both outputs are `stdout`."""
    user = {name: options[name] for name in USER & options.keys()}
    socket = _server(user.get("user"), user.get("group")) / "snakemake.socket"
    return subprocess.run(
        [sys.executable, "-IS", client.__file__, socket, *command], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="backslashreplace",
        **options,
    )  # fmt: skip


@functools.cache
def _server(user: int | None, group: int | None) -> Path:
    """Start the server of this process for a user, and return its folder; it ends with it."""
    who = {} if user is None else {"user": user, "group": group, "extra_groups": []}
    server = ForkServer(MODULES, [SNAKEMAKE], **who)
    atexit.register(server.__exit__)
    assert server.wait()
    return server.folder
