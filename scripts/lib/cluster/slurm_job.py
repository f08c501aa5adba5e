"""What a Slurm job does: the runs that it trains and evaluates, what it asks for, and its script.

Snakemake still has a job for each training and each evaluation, and decides what is to be done. A
Slurm job does those of one run, or, where the config says so, of many that are ready at the same
time and ask for the same: a pack. It starts no Snakemake, which would read the whole study again,
but `scripts/job.py`, with the commands that were planned when it was submitted. So the evaluation
of a run comes right after its training.
"""

import json
import math
import re
import shlex
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from snakemake_executor_plugin_slurm_jobstep import (
    get_cpu_setting,
    get_gpu_setting,
    get_node_setting,
)

from lib.cluster import sbatch
from lib.core.layout import run_name
from lib.core.subprocesses import code_folder, shell_prefix
from lib.study.study import Study

# What is Snakemake's to do on the node, if a job has it; and what else is asked of a job here.
NEEDS = ("is_shadow", "benchmark", "needs_singularity", "env_modules", "conda_env")
JOB_ATTRIBUTES = (*NEEDS, "is_shell", "shellcmd", "get_wait_for_files")
# What its processes use that only start the others. Measured: 690 MB, where the memory that they
# share counts for each of them.
FORK_SERVER_MB = 800
# In options of sbatch: that which has a signal sent to the steps of a job.
SIGNAL = re.compile(r"(--signal[= ])(?![RB]+:)")
# What differs between the runs of one pack.
PER_RUN = ("mem_mb", "runtime")


@dataclass(eq=False)
class SlurmJob:
    """The jobs of Snakemake's that are one Slurm job.

    Attributes:
        jobs: one for each run: its training, or its evaluation where it is trained.
        cpus: cores that the runs may use together.
        evaluations: by training, the job that evaluates it, as far as it is to be evaluated.
        stage: whether it copies the data to its node's own disk.
    """

    jobs: list
    cpus: int = 1
    evaluations: Mapping = field(default_factory=dict)
    stage: bool = False

    @property
    def at_once(self) -> int:
        """How many runs it works on at the same time."""
        return min(max(1, self.cpus // self.jobs[0].threads), len(self.jobs))

    @property
    def longest(self) -> int:
        """The time that its longest run asks for, in minutes."""
        return max(job.resources.get("runtime") or 0 for job in self.jobs)

    def stages_of(self, job) -> list:
        """Return the jobs of Snakemake's of a run, of which the first is one of `jobs`."""
        return [job, *([self.evaluations[job]] if job in self.evaluations else [])]

    def request(self) -> sbatch.Request:
        """Return what it asks for: the memory of those that run at once, and the time of all.

        The time is that of `at_once` workers of which each takes the next run (Graham, Bounds on
        Multiprocessing Timing Anomalies, 1969: at most the mean load and the longest run).
        """
        first = self.jobs[0]
        asked = sbatch.Resources(first.resources.items())
        request = sbatch.Request(first, asked)
        if len(self.jobs) == 1:
            return request
        memory, time = ([job.resources.get(key) or 0 for job in self.jobs] for key in PER_RUN)
        if any(memory):
            asked["mem_mb"] = sum(sorted(memory)[-self.at_once :]) + FORK_SERVER_MB
        if any(time):
            asked["runtime"] = math.ceil((sum(time) - self.longest) / self.at_once) + self.longest
        if asked.get("slurm_extra"):  # it has no steps: Slurm shall signal the batch script
            asked["slurm_extra"] = SIGNAL.sub(r"\1B:", asked["slurm_extra"])
        request.runs = len(self.jobs)
        request.threads = self.at_once * first.threads
        return request

    def script(self, folder: str, logs: Path, minutes: float | None, executor) -> str:
        """Return the script of the Slurm job. All of it is in there: no file has to be kept.

        Args:
            folder: in which it runs.
            logs: the folder of Slurm's own log, and of the job's report.
            minutes: the time limit.
            executor: knows the commands of jobs that need Snakemake on the node.
        """
        first = self.jobs[0]
        options = ["--threads", str(first.threads), "--reports", str(logs)]
        options += ["--latency-wait", str(executor.workflow.execution_settings.latency_wait)]
        options += ["--minutes", str(minutes)] if minutes else []
        options += ["--stage"] if self.stage else []
        if len(self.jobs) > 1:
            options += ["--at-once", str(self.at_once)]
            options += ["--share-gpu"] if first.resources.get("gpu") else []
        elif suffices(first):
            options += [f"--launch={launch_line(first)}"]
        script = Path(code_folder(), "scripts", "job.py")
        command = shlex.join([sys.executable, str(script), *options])
        lines = "\n".join(json.dumps(self._run(job, executor)) for job in self.jobs)
        cd = f"cd {shlex.quote(folder)} || exit"
        return f"{cd}\nexec {command} <<'END OF RUNS'\n{lines}\nEND OF RUNS"

    def _run(self, job, executor) -> dict:
        """Return the run of a job as `scripts/job.py` reads it."""
        stages = [
            {
                "name": stage.name,
                "command": command_of(stage, executor),
                "inputs": [str(path) for path in stage.get_wait_for_files()]
                if stage is job
                else [],
                "outputs": [str(path) for path in stage.output],
                "log": str(stage.log[0]) if stage.log else "",
            }
            for stage in self.stages_of(job)
        ]
        return {"name": name_of(job), "stages": stages}


def slurm_jobs(
    study: Study, jobs: Iterable, growth: Callable, evaluations: Mapping
) -> list[SlurmJob]:
    """Return the Slurm jobs of jobs that are ready, of about the same size.

    Args:
        study: what they are of.
        jobs: trainings and evaluations.
        growth: returns how many times its memory and time a job asks for.
        evaluations: by the name of a run, the job that evaluates it.
    """
    kinds = defaultdict(list)
    for job in jobs:
        same = {key: value for key, value in job.resources.items() if key not in PER_RUN}
        kinds[job.name, job.threads, growth(job), json.dumps(same, default=str)].append(job)
    made = []
    for alike in kinds.values():
        number = math.ceil(len(alike) / study.runs_per_job)
        size = math.ceil(len(alike) / number)
        for first in range(0, len(alike), size):
            some = alike[first : first + size]
            follow = {job: evaluations.get(name_of(job)) for job in some if job.name == "train"}
            follow = {job: other for job, other in follow.items() if other and needs(other, job)}
            cpus = study.cpus_per_job or some[0].threads
            made.append(SlurmJob(some, cpus, follow, study.stage))
    return made


def needs(evaluation, training) -> bool:
    """Return whether what an evaluation needs is there once a training is done."""
    others = map(Path, set(map(str, evaluation.input)) - set(map(str, training.output)))
    return all(path.exists() for path in others)


def suffices(job) -> bool:
    """Return whether a job needs nothing of Snakemake's on the node but its shell commands."""
    if job.is_group() or not job.is_shell or "mpi" in job.resources:
        return False
    return not any(getattr(job, need) for need in NEEDS)


def launch_line(job) -> str:
    """Return what starts a command of a run as a step of the Slurm job."""
    asks_gpu = bool(job.resources.get("gpu"))
    settings = (get_cpu_setting(job, asks_gpu), get_gpu_setting(job), get_node_setting(job))
    return " ".join(["srun", "-n1", "--cpu-bind=q", *filter(None, settings)])


def command_of(job, executor) -> str:
    """Return the shell command of a job of Snakemake's.

    Snakemake's own exit status, where it has to be started, says nothing of the job's.
    """
    if suffices(job):
        return shell_prefix() + job.shellcmd
    return f"{executor.format_job_exec(job)} || exit 2"


def name_of(job) -> str:
    """Return the name of a job's run, such as `cnn/seed1`; of one that is no run's, its rule's."""
    wildcards = getattr(job, "wildcards", None)
    run = dict(wildcards.items()) if wildcards else {}
    if run.keys() == {"experiment", "seed"}:
        return run_name(**run)
    return "_".join(sbatch.rule_and_wildcards(job))
