"""What the parts of the benchmark share: commands that are run and measured, and their files."""

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from conftest import ROOT

DATA_DIR = ROOT / "results" / "data"
PREPARED = DATA_DIR / "MNIST.safetensors"


@dataclass
class Usage:
    """What a process took, with all that it waited for: seconds, and MiB at its peak."""

    wall: float
    cpu: float
    memory: float
    output: str


def measured(*command, cwd=ROOT, **environment) -> Usage:
    """Run a command to its end; stop the benchmark with what it printed if it fails.

    Keywords but `cwd` are variables of its environment.
    """
    with tempfile.TemporaryFile("w+") as output:
        clock = time.perf_counter()
        process = subprocess.Popen(
            [str(word) for word in command], cwd=cwd, stdout=output, stderr=subprocess.STDOUT,
            env=os.environ | environment,
        )  # fmt: skip
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - clock
        output.seek(0)
        text = output.read()
    if status:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{text[-3000:]}")
    return Usage(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, text)


def rows_of(table: Path) -> list[dict]:
    """Return the rows of a CSV file."""
    return list(csv.DictReader(table.read_text().splitlines()))


def history_of(run) -> list[dict]:
    """Return the rows of a run's history."""
    return rows_of(Path(run, "history.csv"))


def in_process(*arguments) -> dict:
    """Run tests/bench/in_process.py; return what it measured, and its peak memory in MiB."""
    used = measured(sys.executable, "tests/bench/in_process.py", *arguments)
    return json.loads(used.output.splitlines()[-1]) | {"memory": used.memory}
