"""Many runs in one Slurm job: which ones, what the job asks for, and its script.

Snakemake still has a job for each training and each evaluation, and decides what is to be done.
Those that are ready at the same time, and ask for the same, are submitted as one Slurm job: a pack.
It runs their own commands (`scripts/pack.py`), and the evaluation of a run right after its
training. When it has ended, each of its jobs is reported by its own files and its own log.
"""

import json
import math
import re
import shlex
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass, field
from pathlib import Path

from lib.cluster import sbatch
from lib.forks.start import SHELL_PREFIX
from lib.study.study import Study

# What its processes use that only start the others. Measured: 690 MB, where the memory that they
# share counts for each of them.
FORK_SERVER_MB = 800
# In options of sbatch: that which has a signal sent to the steps of a job.
SIGNAL = re.compile(r"(--signal[= ])(?![RB]+:)")
# What differs between the runs of one pack.
PER_RUN = ("mem_mb", "runtime")


@dataclass(eq=False)
class Pack:
    """The jobs of Snakemake's that are one Slurm job.

    Attributes:
        jobs: trainings of runs, or evaluations, never both.
        evaluations: by training, the job that evaluates it, as far as it is evaluated.
        cpus: cores of the Slurm job.
    """

    jobs: list
    cpus: int
    evaluations: dict = field(default_factory=dict)

    @property
    def at_once(self) -> int:
        """How many runs it works on at the same time."""
        return min(max(1, self.cpus // self.jobs[0].threads), len(self.jobs))

    @property
    def longest(self) -> int:
        """The time that its longest run asks for, in minutes."""
        return max(job.resources.get("runtime") or 0 for job in self.jobs)

    def request(self) -> sbatch.Request:
        """Return what it asks for: the memory of those that run at once, and the time of all.

        The time is that of `at_once` workers of which each takes the next run (Graham, Bounds on
        Multiprocessing Timing Anomalies, 1969: at most the mean load and the longest run).
        """
        first = self.jobs[0]
        asked = sbatch.Resources(first.resources.items())
        memory, time = ([job.resources.get(key) or 0 for job in self.jobs] for key in PER_RUN)
        if any(memory):
            asked["mem_mb"] = sum(sorted(memory)[-self.at_once :]) + FORK_SERVER_MB
        if any(time):
            asked["runtime"] = math.ceil((sum(time) - self.longest) / self.at_once) + self.longest
        if asked.get("slurm_extra"):  # it runs in the batch script itself, which Slurm shall signal
            asked["slurm_extra"] = SIGNAL.sub(r"\1B:", asked["slurm_extra"])
        request = sbatch.Request(first, asked)
        request.runs = len(self.jobs)
        request.threads = self.at_once * first.threads
        return request

    def script(self) -> str:
        """Return the script of the Slurm job, and make the folders that it writes to.

        All of it is in the script: no file has to be kept.
        """
        self._make_room()
        lines = "\n".join(json.dumps(self._run(job)) for job in self.jobs)
        options = ["--at-once", str(self.at_once)]
        options += ["--share-gpu"] if self.jobs[0].resources.get("gpu") else []
        python = shlex.join([sys.executable, "scripts/pack.py", *options])
        return f"exec {python} <<'END OF RUNS'\n{lines}\nEND OF RUNS"

    def _run(self, job) -> dict:
        """Return the run of a job as `scripts/pack.py` reads it."""
        jobs = [job, *([self.evaluations[job]] if job in self.evaluations else [])]
        return {
            "name": name_of(job),
            "log": str(job.log[0]),
            "commands": [SHELL_PREFIX + each.shellcmd for each in jobs],
            "record": str(jobs[-1].output[-1]),  # written last
        }

    def _make_room(self) -> None:
        """Do what Snakemake does on the node before a job: folders; no log of an earlier one."""
        for job in (*self.jobs, *self.evaluations.values()):
            for path in (*job.output, *job.log):
                Path(str(path)).parent.mkdir(parents=True, exist_ok=True)
            for path in job.log:
                Path(str(path)).unlink(missing_ok=True)


def make(study: Study, jobs: Iterable, growth: Callable, dag) -> list[Pack]:
    """Return the packs of jobs that are ready, of about the same size.

    Args:
        study: what they are of.
        jobs: trainings and evaluations.
        growth: returns how many times its memory and time a job asks for.
        dag: Snakemake's, which knows what is to be evaluated.
    """
    kinds = defaultdict(list)
    for job in jobs:
        same = {key: value for key, value in job.resources.items() if key not in PER_RUN}
        kinds[job.name, job.threads, growth(job), json.dumps(same, default=str)].append(job)
    packs = []
    for alike in kinds.values():
        number = math.ceil(len(alike) / study.runs_per_job)
        size = math.ceil(len(alike) / number)
        for first in range(0, len(alike), size):
            some = alike[first : first + size]
            evaluations = {job: found for job in some if (found := evaluation_of(job, dag))}
            packs.append(Pack(some, study.cpus_per_job or some[0].threads, evaluations))
    return packs


def evaluation_of(job, dag):
    """Return the evaluation of a training, if it is to be run; None for an evaluation itself."""
    if job.name != "train":
        return None
    ready = (each for each in dag.depending[job] if each.name == "evaluate" and dag.needrun(each))
    return next(ready, None)


def name_of(job) -> str:
    """Return the name of a job's run, such as `cnn/seed1`."""
    return f"{job.wildcards.experiment}/seed{job.wildcards.seed}"


def number_of_runs(jobs: Sized) -> str:
    """Say how many runs there are."""
    return f"{len(jobs)} run{'s' if len(jobs) > 1 else ''}"
