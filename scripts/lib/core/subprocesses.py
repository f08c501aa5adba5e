"""Run another program: always with a time limit, and with its own words where it fails."""

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.core.errors import UserError

TIMEOUT = 60.0  # seconds
# The variable that names `code_folder`, which Snakemake sets: see `lib.core.snapshot`.
CODE_VARIABLE = "SLURM_CLASSIFIERS_CODE"


def code_folder() -> str:
    """Return the folder in which the `scripts/` of the rules' commands are."""
    return os.environ.get(CODE_VARIABLE, ".")


def shell_prefix() -> str:
    """Return what the shell commands of the rules begin with.

    The interpreter that runs Snakemake runs the scripts, whether or not its environment is
    activated. `set` is Snakemake's own prefix, which this one replaces: without it, a command that
    fails and is piped into tee would count as a success.
    """
    programs, code = shlex.quote(str(Path(sys.executable).parent)), shlex.quote(code_folder())
    return (
        f'set -euo pipefail; export PATH={programs}:"$PATH" {CODE_VARIABLE}={code}; '
        f". {code}/workflow/functions.sh; "
    )


@dataclass(frozen=True)
class Finished:
    """How a program ended. `status` is None where it could not start or took too long."""

    command: tuple[str, ...]
    status: int | None
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.status == 0

    @property
    def message(self) -> str:
        """What it said about its failure, in one line where it said only one."""
        return (self.stderr.strip() or self.stdout.strip()) or f"exit status {self.status}"

    def checked(self) -> str:
        """Return the standard output of a program that succeeded.

        Raises:
            UserError: it failed; the message has the command and the program's own words.
        """
        if not self.ok:
            raise UserError(f"{' '.join(self.command)} failed: {self.message}")
        return self.stdout


def run_to_the_end(command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> int:
    """Run a program that ends in order when it is asked to; return its exit status, as a shell.

    It gets SIGTERM from this process. Ctrl-C it gets from the terminal, as this process does.
    """
    process, ended = None, threading.Event()

    def end(number: int, _frame) -> None:
        ended.set()
        if process and number == signal.SIGTERM:
            process.terminate()

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, end) for number in numbers}
    process = subprocess.Popen(list(map(str, command)), env=env)
    if ended.is_set():  # before it was started
        process.terminate()
    status = process.wait()
    for number, each in before.items():
        signal.signal(number, each)
    return status if status >= 0 else 128 - status


def run(
    command: Sequence[str | Path],
    *,
    timeout: float = TIMEOUT,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
) -> Finished:
    """Run a program; a failure is a value, not an exception.

    Args:
        command: the program, found on the PATH, and its arguments.
        timeout: seconds after which it is killed.
        cwd: the folder in which it runs; by default this process's own.
        env: its environment; by default this process's own.
        stdin: what it reads.
    """
    words = tuple(str(word) for word in command)
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env=env,
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as late:
        said = (late.stdout or b"").decode(errors="replace")
        return Finished(words, None, said, f"no answer within {timeout:g} s")
    except OSError as error:
        return Finished(words, None, "", f"cannot start {words[0]}: {error.strerror}")
    return Finished(words, done.returncode, done.stdout, done.stderr)
