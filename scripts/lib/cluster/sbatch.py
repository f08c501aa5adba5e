"""The `sbatch` line of a job: the one that is sent, and the same one where it is only tested.

The plugin's own functions make it. What is decided here is what a job asks for: more memory or time
where an earlier attempt was killed for lack of it, a type of GPU only where it asks for a GPU, and
no account or partition that nobody has named.
"""

import dataclasses
import logging
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from snakemake_executor_plugin_slurm.partitions import Partition, get_best_partition
from snakemake_executor_plugin_slurm.submit_string import get_submit_command
from snakemake_executor_plugin_slurm.utils import get_job_wildcards, set_gres_string
from snakemake_executor_plugin_slurm.validation import validate_slurm_extra

from lib.cluster import slurm
from lib.core import subprocesses
from lib.core.errors import UserError

# A job that was killed for lack of it asks for so many times its memory or time at the most.
MOST_GROWTH = 3

# What sbatch says where too many jobs are in the queue: the same line will be accepted later.
# https://slurm.schedmd.com/resource_limits.html has the limits' names.
QUEUE_IS_FULL = re.compile(
    r"(Max|Grp)Submit\w*Limit|temporarily unable to accept|MaxJobCount limit reached|"
    r"Unable to create job record"
)

# The short options that the plugin uses.
LONG_NAMES = {
    "-A": "--account",
    "-C": "--constraint",
    "-D": "--chdir",
    "-p": "--partition",
    "-t": "--time",
}

_QUIET = logging.getLogger("quiet")  # the plugin says which partition it chooses, for each job
_QUIET.setLevel(logging.CRITICAL)


class NoPartition(UserError):
    """No partition of the profile takes a job."""


@dataclass(frozen=True)
class Growth:
    """How many times its memory and time a job asks for."""

    memory: int = 1
    time: int = 1

    def more(self, what: str) -> "Growth":
        """Return the growth with one more of `memory` or `time`."""
        return dataclasses.replace(self, **{what: min(getattr(self, what) + 1, MOST_GROWTH)})

    def less(self) -> Iterable["Growth"]:
        """Yield this growth, then smaller ones, down to none."""
        for step in range(MOST_GROWTH):
            yield Growth(max(self.memory - step, 1), max(self.time - step, 1))


class Resources(dict):
    """Resources of a job as the plugin reads them: items that are attributes too."""

    def __getattr__(self, name):
        """Return the item."""
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error


class Request:
    """A job of Snakemake's that asks for other resources."""

    def __init__(self, job, resources: Resources):
        self._job = job
        self.resources = resources

    def __getattr__(self, name):
        """Return what is the job's own."""
        return getattr(self._job, name)


@dataclass(frozen=True)
class Sbatch:
    """Makes the lines of one run of Snakemake.

    Attributes:
        settings: of the plugin.
        partitions: those of `slurm-partition-config`; none where the profile names no such file.
        workdir: the folder in which the jobs start.
    """

    settings: object
    partitions: list[Partition]
    workdir: str

    def line(
        self,
        job,
        *,
        name: str = "check",
        log: str | Path = "/dev/null",
        comment: str = "check",
        growth: Growth = Growth(),
        exclude: Iterable[str] = (),
    ) -> str:
        """Return the command that submits a job whose script it reads from standard input.

        Raises:
            NoPartition: no partition takes it; the message says what it asks for.
            WorkflowError: the plugin refuses a resource; the message names it.
        """
        request, partition = self.fitting(job, growth)
        validate_slurm_extra(request)
        account = request.resources.get("slurm_account")
        parameters = {
            "run_uuid": name,
            "slurm_logfile": log,
            "comment_str": comment,
            "account": f"-A {shlex.quote(str(account))}" if account else "",
            "partition": f"-p {shlex.quote(partition)}" if partition else "",
            "workdir": self.workdir,
        }
        nodes = sorted(exclude)
        line = get_submit_command(request, parameters, settings=self.settings, failed_nodes=nodes)
        return line + set_gres_string(request)

    def most_minutes(self, job) -> float:
        """Return the longest time limit of the partitions that take a job if it asks for less."""
        asked = resources(job)
        return max(
            (
                partition.limits.max_runtime
                for partition in self.partitions
                if get_best_partition(
                    [partition], Request(job, Resources(asked | {"runtime": 1})), _QUIET
                )
            ),
            default=float("inf"),
        )

    def fitting(self, job, growth: Growth) -> tuple[Request, str]:
        """Return what a job asks for, with the most growth that a partition takes, and that one.

        Raises:
            NoPartition: no partition takes it; the message says what it asks for.
        """
        for less in growth.less():
            request = Request(job, resources(job, less))
            partition = request.resources.get("slurm_partition")
            if not partition and self.partitions:
                partition = get_best_partition(self.partitions, request, _QUIET)
            if partition or not self.partitions:
                return request, str(partition or "")
        raise NoPartition(
            f"no partition of {self.settings.partition_config} takes {described(request)}"
        )


def resources(job, growth: Growth = Growth()) -> Resources:
    """Return what a job asks for."""
    found = Resources(job.resources.items())
    for key, factor in (("mem_mb", "memory"), ("mem_mb_per_cpu", "memory"), ("runtime", "time")):
        if found.get(key):
            found[key] *= getattr(growth, factor)
    # A profile names the type of the GPUs, and of their nodes, once for all jobs of a rule.
    constraint = found.pop("gpu_constraint", None)
    if constraint and found.get("gpu"):
        found["constraint"] = constraint
    by_type = str(found.get("gres") or "").startswith("gpu")
    unwanted = ["gpu", "gpu_model"] if by_type else []
    if not found.get("gpu"):
        unwanted = ["gpu", "gpu_model", *(["gres"] if by_type else [])]
    unwanted += [key for key in ("gpu_model", "gres") if not found.get(key)]
    return Resources({key: value for key, value in found.items() if key not in unwanted})


def described(job) -> str:
    """Say what a job asks for."""
    asked = job.resources
    return (
        f"runtime {asked.get('runtime', 'unlimited')} min, mem_mb {asked.get('mem_mb', 'none')}, "
        f"cpus {job.threads}, GPUs {asked.get('gpu') or asked.get('gres') or 0}"
    )


def rule_and_wildcards(job) -> tuple[str, str]:
    """Return how the plugin names the folder of a job's logs: by its rule and its wildcards."""
    return f"{'group' if job.is_group() else 'rule'}_{job.name}", get_job_wildcards(job)


def submit(line: str, script: str, test: bool = False) -> subprocesses.Finished:
    """Submit a job, or ask whether Slurm would take it.

    The line is for a shell: `slurm_extra` in the profile may use variables.
    """
    command = ["bash", "-c", f"{line} --test-only" if test else line]
    return subprocesses.run(command, stdin=f"#!/bin/sh\n{script}\n", env=slurm.sbatch_environment())


def options(line: str) -> list[tuple[str, str | None]]:
    """Return the options of a line and their values, as sbatch would get them from the shell."""
    words = subprocesses.run(["bash", "-c", f"printf '%s\\0' {line}"]).checked().split("\0")[1:-1]
    found: list[tuple[str, str | None]] = []
    for word in words:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            found.append((name, value if equals else None))
        elif word.startswith("-"):
            found.append((LONG_NAMES.get(word, word), None))
        else:
            found[-1] = (found[-1][0], word)
    return found


def reason(said: str) -> str:
    """Return the errors of sbatch in one line."""
    errors = re.findall(r"error: (.*)|^allocation failure: (.*)", said, flags=re.MULTILINE)
    return "; ".join(dict.fromkeys(first or second for first, second in errors)) or said
