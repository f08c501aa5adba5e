"""Train and evaluate many runs in one job: as many at once as it has cores, the others after them.

It reads from standard input a line for each run, which the executor for Slurm writes: a JSON object
with the run's `name`, its `log`, the shell `commands` that train and evaluate it, and the `record`
that the last of them writes. Those are the commands that the run has in a job of its own, and they
write the same bytes. The difference is that their processes do not start Python and import torch
each time, but are forked.

On SIGTERM, which Slurm sends before the time is up, it starts no other run; the trainings save a
checkpoint and end, and the exit status is 143. If a run fails, the others go on, and the exit
status is 1. A run that ends with 75, which is to say that it may succeed later (as on a GPU whose
memory the others have taken), is tried once more when all others have ended. If Slurm starts the
job again, the runs that it has done before are left alone, as their records say.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import lib.core.command_line as command_line  # first, for Ctrl-C

from lib.core import records
from lib.core.errors import UserError
from lib.core.layout import RunFiles
from lib.forks.mps import shared_gpu
from lib.forks.start import ForkServer

LATER = os.EX_TEMPFAIL  # the exit status of a run that may succeed later


def main() -> None:
    """Run the command line."""
    parser = command_line.parser(__doc__)
    parser.add_argument(
        "--at-once",
        type=command_line.at_least(1, 1024),
        default=1,
        metavar="N",
        help="runs to work on at the same time (default: %(default)s)",
    )
    parser.add_argument(
        "--share-gpu",
        action="store_true",
        help="the runs use one GPU: let them use it at the same time, if NVIDIA MPS is available",
    )
    args = parser.parse_args()
    runs = [read_run(line) for line in sys.stdin if line.strip()]
    # As the log of a run begins, and ends: see lib/cluster/causes.py.
    if "SLURM_JOB_ID" in os.environ:
        now, node = datetime.now().astimezone().isoformat("T", "seconds"), os.uname().nodename
        node = os.environ.get("SLURMD_NODENAME", node)
        print(f"{now} on {node}, Slurm job {os.environ['SLURM_JOB_ID']}", flush=True)
    with shared_gpu(args.at_once if args.share_gpu else 1), ForkServer():
        pack = PackRunner(len(runs))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, pack.stop)
        done = pack.work(runs, args.at_once)
    print(f"{done} of {len(runs)} runs are done", flush=True)
    status = 128 + signal.SIGTERM if pack.stopped.is_set() else int(done < len(runs))
    if status:
        print(f"exit status {status}", flush=True)
    sys.exit(status)


@dataclass(frozen=True)
class PackedRun:
    """A run: its name, its log, what trains and evaluates it, and what that writes last."""

    name: str
    log: str
    commands: list[str]
    record: str = ""

    def is_done_by_this_job(self) -> bool:
        """Return whether this Slurm job has done it: before it was started again, or elsewhere."""
        record = Path(self.record)
        files = RunFiles(record.parent)
        if record == files.evaluation and files.log.exists():  # what follows it is not done
            return False
        with suppress(UserError):
            made_by = records.read(record)["slurm"] or {}
            return made_by.get("job_id", "") == os.environ.get("SLURM_JOB_ID")
        return False


def read_run(line: str) -> PackedRun:
    """Return the run of a line of the input.

    Raises:
        UserError: it is none.
    """
    try:
        return PackedRun(**json.loads(line))
    except (ValueError, TypeError) as error:
        raise UserError(f"standard input: no run in {line[:80]!r}: {error}") from error


class PackRunner:
    """The runs that are worked on, of which some may have been done before."""

    def __init__(self, size: int):
        self.size, self.ended = size, 0
        self.lock, self.stopped = threading.Lock(), threading.Event()
        self.groups: set[int] = set()  # of the processes that run

    def work(self, runs: list[PackedRun], at_once: int) -> int:
        """Train and evaluate the runs; return how many have succeeded."""
        with ThreadPoolExecutor(at_once) as workers:
            statuses = list(workers.map(self.work_on, runs))
        later = [run for run, status in zip(runs, statuses, strict=True) if status == LATER]
        statuses += [self.work_on(run, alone=True) for run in later]
        return statuses.count(0)

    def work_on(self, run: PackedRun, alone: bool = False) -> int | None:
        """Train and evaluate a run; return its exit status, None where it was too late for it."""
        # Now, not at the start: the same job may go on for a while on a node taken for lost. What
        # others have done is done again: somebody may have forced it.
        if run.is_done_by_this_job():
            with self.lock:
                self.ended += 1
            return 0
        began = time.monotonic()
        status = None
        for command in run.commands:
            status = self.run_command(command)
            if status:
                break
        seconds = time.monotonic() - began
        what = f"done in {seconds:.1f} s" if status == 0 else f"exit status {status}: {run.log}"
        with self.lock:
            if status == LATER and not alone:
                print(f"{run.name}: {what}, tried again when the others have ended", flush=True)
            elif status is not None:
                self.ended += 1
                print(f"[{self.ended} of {self.size}] {run.name}: {what}", flush=True)
        return status

    def run_command(self, command: str) -> int | None:
        """Run a command and return its exit status; None where it is too late to start it."""
        with self.lock:
            if self.stopped.is_set():
                return None
            process = subprocess.Popen(
                ["bash", "-c", command], stdin=subprocess.DEVNULL, start_new_session=True
            )
            self.groups.add(process.pid)
            if self.stopped.is_set():  # since a moment ago
                self.stop()
        status = process.wait()
        with self.lock:
            self.groups.discard(process.pid)
        return status

    def stop(self, *_) -> None:
        """Start no other run, and ask those that run to end."""
        self.stopped.set()
        for group in list(self.groups):
            with suppress(OSError):
                os.killpg(group, signal.SIGTERM)


if __name__ == "__main__":
    command_line.run(main)
