"""Do what a Slurm job is for: train and evaluate its runs, as many at once as it has cores for.

It reads from standard input a line for each run, which the executor for Slurm writes: a JSON object
with the run's `name` and its `stages`, each with its `name`, the shell `command` of its rule, its
`inputs`, `outputs` and `log`. Of one run, each command is started by the words of `--launch`. The
processes of many do not start Python and import torch each time, but are forked; they write the
same bytes.

Before its time is up, Slurm sends SIGTERM. Then no other command is started, and the trainings save
a checkpoint and end. If a run fails, the others go on, and the exit status is that of the first of
them. A run that ends with 75, which is to say that it may succeed later (as on a GPU whose memory
the others have taken), is tried once more when all others have ended. If Slurm starts the job
again, the runs that it has done before are left alone, as their records say.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TextIO

import lib.core.command_line as command_line  # first, for Ctrl-C

from lib.cluster.job_end import STOPPED, JobReport, Reporter, now
from lib.core import records
from lib.core.errors import NodeError, TemporaryError, UserError
from lib.core.layout import RunFiles
from lib.data import staging
from lib.forks.mps import shared_gpu
from lib.forks.start import ForkServer

# Of what Slurm has set for this job, srun would read its own options and the request of the job. As
# the plugin, keep only what says which job it is, and where Slurm's own config is.
FOR_SRUN = re.compile(
    "(SLURM|SRUN|SBATCH)_(?!(JOB_ID|JOBID|CLUSTER_NAME|CONF|SUBMIT_DIR|SUBMIT_HOST)$)"
)
LOOK_UP = 1.0  # seconds after which a signal is seen, at the latest
# Snakemake sets these for every shell command.
THREADS = [f"{name}_NUM_THREADS" for name in "OMP GOTO OPENBLAS MKL VECLIB NUMEXPR".split()]


def main() -> None:
    """Run the command line."""
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    positive = command_line.at_least(1)
    add("--at-once", type=positive, default=1, metavar="N",
        help="runs to work on at the same time (default: %(default)s)")  # fmt: skip
    add("--threads", type=positive, default=1, metavar="N",
        help="cores of each run (default: %(default)s)")  # fmt: skip
    add("--launch", type=shlex.split, default=[], metavar="WORDS",
        help="what starts each command (default: nothing)")  # fmt: skip
    add("--latency-wait", type=float, default=5, metavar="SECONDS",
        help="how late the inputs may appear (default: %(default)s)")  # fmt: skip
    add("--minutes", type=float, default=float("inf"), metavar="N",
        help="the time limit of the job (default: none)")  # fmt: skip
    add("--reports", type=Path, metavar="DIR",
        help="where a Slurm job reports, in a file with its number (default: nowhere)")  # fmt: skip
    add("--stage", action="store_true",
        help="let the runs copy the data to the node's own disk")  # fmt: skip
    add("--share-gpu", action="store_true",
        help="let the runs use one GPU at the same time, if NVIDIA MPS is available")  # fmt: skip
    args = parser.parse_args()
    runs = [Run.read(line) for line in sys.stdin if line.strip()]
    reporter = Reporter(*this_job(args.reports), args.minutes)
    with ExitStack() as stack:
        if args.stage:
            os.environ |= stack.enter_context(staging.folder_of_job())
        stack.enter_context(shared_gpu(args.at_once if args.share_gpu else 1))
        if len(runs) > 1:
            stack.enter_context(ForkServer())
        workers = Workers(args, len(runs), reporter)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, workers.stop)
        statuses = workers.work(runs)
    say(f"{statuses.count(0)} of {len(runs)} runs are done")
    reporter.end()
    sys.exit(next(filter(None, statuses), 0))


def say(text: str, file: TextIO | None = None) -> None:
    """Print a line; where the disk is full, it is lost, and no run with it."""
    with suppress(OSError):
        print(text, file=file, flush=True)


def this_job(reports: Path | None) -> tuple[Path | None, JobReport]:
    """Return the file of this job's report, if it is a job of Slurm's, and the report."""
    job_id, host = os.environ.get("SLURM_JOB_ID", ""), os.uname().nodename
    attempt = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    host = os.environ.get("SLURMD_NODENAME", host)
    report = JobReport(job_id, attempt, host, now().isoformat(timespec="seconds"))
    return (reports / f"{job_id}.json" if reports and job_id else None), report


@dataclass(frozen=True)
class Stage:
    """One job of Snakemake's, such as the training of a run."""

    name: str
    command: str
    inputs: list[str]
    outputs: list[str]
    log: str

    def make_room(self) -> None:
        """Do what Snakemake does before a job: make folders, remove the log of an earlier one."""
        for path in map(Path, (*self.outputs, *filter(None, [self.log]))):
            path.parent.mkdir(parents=True, exist_ok=True)
        if self.log:
            Path(self.log).unlink(missing_ok=True)

    def note(self, text: str) -> None:
        """Write a line into the log, in place of the commands."""
        if self.log:
            self.make_room()
            Path(self.log).write_text(f"{text}\n", encoding="utf-8")

    def missing_inputs(self, latency_wait: float) -> list[str]:
        """Return the inputs that are not there; they may appear late on a shared file system."""
        end = time.monotonic() + latency_wait
        while missing := [path for path in self.inputs if not os.path.exists(path)]:  # noqa: PTH110
            if time.monotonic() >= end:
                break
            time.sleep(0.5)
        return missing


@dataclass(frozen=True)
class Run:
    """A run, and what is to be done for it."""

    name: str
    stages: list[Stage]

    @classmethod
    def read(cls, line: str) -> Self:
        """Return the run of a line of the input.

        Raises:
            UserError: it is none.
        """
        try:
            content = json.loads(line)
            return cls(content["name"], [Stage(**stage) for stage in content["stages"]])
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"standard input: no run in {line[:80]!r}: {error}") from error

    def is_done_by_this_job(self) -> bool:
        """Return whether this Slurm job has done it: before it was started again, or elsewhere."""
        record = Path(*self.stages[-1].outputs[-1:])  # it is written last
        files = RunFiles(record.parent)
        if record not in (files.record, files.evaluation):
            return False
        if record == files.evaluation and files.log.exists():  # what follows it is not done
            return False
        with suppress(UserError):
            made_by = records.read(record)["slurm"] or {}
            return made_by.get("job_id", "") == os.environ.get("SLURM_JOB_ID")
        return False


class Workers:
    """They work on the runs, of which some may have been done before."""

    def __init__(self, args, number_of_runs: int, reporter: Reporter):
        self.args, self.reporter = args, reporter
        self.number_of_runs, self.ended = number_of_runs, 0
        self.lock, self.stopped = threading.Lock(), threading.Event()
        self.groups: set[int] = set()  # of the processes that run
        self.environment = os.environ | dict.fromkeys(THREADS, str(args.threads))
        if args.launch:
            known = self.environment.items()
            self.environment = {key: value for key, value in known if not FOR_SRUN.match(key)}
            # What srun itself ends with, if it fails.
            self.environment["SLURM_EXIT_ERROR"] = str(TemporaryError.status)

    def work(self, runs: list[Run]) -> list[int]:
        """Work on the runs; return their exit statuses."""
        with ThreadPoolExecutor(self.args.at_once) as threads:
            futures = [threads.submit(self.work_on, run) for run in runs]
            # A signal that comes just before this thread begins to wait does not wake it.
            while wait(futures, timeout=LOOK_UP).not_done:
                pass
        statuses = [future.result() for future in futures]
        for number, status in enumerate(statuses):
            if status == TemporaryError.status and len(runs) > 1:
                statuses[number] = self.work_on(runs[number], again=True)
        return statuses

    def work_on(self, run: Run, again: bool = False) -> int:
        """Train and evaluate a run; return its exit status."""
        # Now, not at the start: the same job may go on for a while on a node taken for lost. What
        # others have done is done again: somebody may have forced it.
        if run.is_done_by_this_job():
            self.count(run, "was done before")
            for stage in run.stages:
                self.reporter.ended(run.name, stage.name, 0)
            return 0
        began, status = time.monotonic(), 0
        for stage in run.stages:
            try:
                status = self.run_stage(run, stage)
            except FileNotFoundError as error:  # there is no srun
                status = NodeError.status
                say(f"{run.name}: {error}", sys.stderr)
            except OSError as error:
                status = TemporaryError.status
                say(f"{run.name}: {error}", sys.stderr)
            if status is None:  # it has not begun: of its end, nothing is known
                status = STOPPED
                break
            self.reporter.ended(run.name, stage.name, status)
            if status:
                break
        how = f"done in {time.monotonic() - began:.1f} s"
        if status:
            how = f"exit status {status}" + (f": {stage.log}" if stage.log else "")
        if status == TemporaryError.status and self.number_of_runs > 1 and not again:
            say(f"{run.name}: {how}, tried again when the others have ended")
        else:
            self.count(run, how)
        return status

    def count(self, run: Run, what: str) -> None:
        """Say how a run has ended, and how many have."""
        with self.lock:
            self.ended += 1
            say(f"[{self.ended} of {self.number_of_runs}] {run.name}: {what}")

    def run_stage(self, run: Run, stage: Stage) -> int | None:
        """Run the command of a stage; return its exit status, or None if it is too late for it."""
        missing = stage.missing_inputs(self.args.latency_wait)
        if missing:
            said = f"{missing[0]} is not there after {self.args.latency_wait:g} s"
            said += " (latency-wait in the profile)"
            say(f"{run.name}: {said}", sys.stderr)
            stage.note(f"error: {said}")
            return NodeError.status
        with self.lock:
            if self.stopped.is_set():
                return None
            self.reporter.began(run.name, stage.name)
            stage.make_room()
            process = subprocess.Popen(
                [*self.args.launch, "bash", "-c", stage.command],
                stdin=subprocess.DEVNULL,
                env=self.environment,
                start_new_session=True,
            )
            self.groups.add(process.pid)
            if self.stopped.is_set():  # since a moment ago
                self.stop()
        status = process.wait()
        with self.lock:
            self.groups.discard(process.pid)
        if status == UserError.status and stage.log and not Path(stage.log).exists():
            return TemporaryError.status  # its own commands have not begun
        return status if status >= 0 else 128 - status  # as a shell says it

    def stop(self, *_) -> None:
        """Start no other command, and ask those that run to end, as Slurm itself asks its steps."""
        self.stopped.set()
        for group in () if self.args.launch else list(self.groups):
            with suppress(OSError):
                os.killpg(group, signal.SIGTERM)


if __name__ == "__main__":
    command_line.run(main)
