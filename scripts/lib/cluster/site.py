"""What a cluster is: its partitions, limits, and GPUs, and which options it wants of a job.

Slurm's own tables say what there is. Whether this user may have it depends on rules that no table
shows, such as a site's job_submit plugin. So `sbatch --test-only` is asked, which submits nothing.
"""

import os
import pwd
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations, product

from snakemake_executor_plugin_slurm.partitions import parse_scontrol_partition_output

from lib.cluster import jobs, preflight, slurm
from lib.core.errors import UserError

# A small job. Slurm places it, if only it may be there.
SMALL = {"time": "10", "cpus-per-task": "1", "mem": "100M"}
# For debugging and interactive work: best-fit would send every short training there.
NOT_FOR_BATCH = re.compile(r"(?<![a-z])(debug|devel|interac|test|viz|jupyter)", re.IGNORECASE)
MOST_QUESTIONS = 200

GPU = re.compile(r"gpu:(?:(?P<type>[A-Za-z]\w*):)?(?P<count>\d+)")


@dataclass(frozen=True)
class Nodes:
    """Nodes of one kind. Memory is in MiB."""

    partition: str
    count: int
    cpus: int
    mem_mb: int
    gres: str
    features: tuple[str, ...]

    @property
    def gpus(self) -> int:
        """The number of GPUs of a node."""
        return sum(int(match["count"]) for match in GPU.finditer(self.gres))

    @property
    def gpu_types(self) -> list[str]:
        """The types of its GPUs, where they have one."""
        return [match["type"] for match in GPU.finditer(self.gres) if match["type"]]


@dataclass(frozen=True)
class Partition:
    """A partition, as Slurm describes it. What has no limit is None."""

    name: str
    is_default: bool
    state: str
    minutes: int | None
    tier: int
    whole_nodes: bool
    most_mem_mb: int | None
    most_cpus: int | None
    nodes: tuple[Nodes, ...]

    @property
    def gpus(self) -> int:
        """The number of GPUs of its best node."""
        return max((kind.gpus for kind in self.nodes), default=0)

    @property
    def gpu_types(self) -> list[str]:
        """The types of its GPUs, the most frequent first."""
        kinds = sorted(self.nodes, key=lambda kind: -kind.count)
        return list(dict.fromkeys(name for kind in kinds for name in kind.gpu_types))

    @property
    def features(self) -> list[str]:
        """The features of its nodes, those of nodes without a GPU first."""
        kinds = sorted(self.nodes, key=lambda kind: (kind.gpus, -kind.count))
        return list(dict.fromkeys(name for kind in kinds for name in kind.features))

    @property
    def limits(self) -> dict[str, int]:
        """Its limits by their keys in partitions.yaml."""
        mem_mb = max((kind.mem_mb for kind in self.nodes), default=None)
        cpus = max((kind.cpus for kind in self.nodes), default=None)
        found = {
            "max_runtime": self.minutes,
            "max_mem_mb": min(filter(None, (mem_mb, self.most_mem_mb)), default=None),
            "max_cpus_per_task": min(filter(None, (cpus, self.most_cpus)), default=None),
            "max_gpu": self.gpus or None,
        }
        return {key: value for key, value in found.items() if value}


@dataclass(frozen=True)
class Association:
    """An account of this user, with the limits on its jobs; None is no limit."""

    account: str
    is_default: bool
    qos: tuple[str, ...]
    max_jobs: int | None
    max_submit: int | None


@dataclass(frozen=True)
class QoS:
    """A QoS, and the limits that it sets."""

    name: str
    minutes: int | None
    max_jobs: int | None
    max_submit: int | None


@dataclass
class Site:
    """A cluster, of which each fact is asked for once.

    Attributes:
        given: options of sbatch that the user has chosen; they are part of every question.
    """

    given: Mapping[str, str] = field(default_factory=dict)
    questions: int = 0

    @cached_property
    def config(self) -> dict[str, str]:
        """Slurm's configuration, by the names of slurm.conf."""
        lines = slurm.run(["scontrol", "show", "config"]).checked().splitlines()
        pairs = (line.partition("=") for line in lines)
        return {key.strip(): value.strip() for key, _, value in pairs if value}

    @cached_property
    def partitions(self) -> list[Partition]:
        """All partitions, also hidden ones; Slurm's order."""
        text = slurm.run(["scontrol", "--all", "show", "partition"]).checked()
        query = ["sinfo", "--all", "--exact", "--noheader", "--format=%R|%D|%c|%m|%G|%f"]
        rows = [row.split("|") for row in slurm.run(query).checked().splitlines()]
        kinds = [nodes(row) for row in rows if len(row) == 6 and row[1] != "0"]
        described = parse_scontrol_partition_output(text)
        return [
            partition(name, about, [kind for kind in kinds if kind.partition == name])
            for name, about in described.items()
        ]

    @cached_property
    def associations(self) -> list[Association]:
        """The accounts that this user may charge; none where there is no accounting."""
        user = pwd.getpwuid(os.getuid()).pw_name
        names = "defaultaccount,account,qos,maxjobs,maxsubmit"
        here = f"cluster={self.config['ClusterName']}"
        query = ["sacctmgr", "-nP", "show", "user", user, "withassoc", here, f"format={names}"]
        rows = (row.split("|") for row in slurm.run(query).stdout.splitlines())
        return [
            Association(
                row[1],
                row[0] == row[1],
                tuple(filter(None, row[2].split(","))),
                *map(number, row[3:]),
            )
            for row in rows
            if len(row) == 5
        ]

    @cached_property
    def qos(self) -> dict[str, QoS]:
        """The QoS of the cluster by name; none where there is no accounting."""
        names = "name,maxwall,maxjobspu,maxsubmitpu"
        done = slurm.run(["sacctmgr", "-nP", "show", "qos", f"format={names}"])
        rows = (row.split("|") for row in done.stdout.splitlines())
        return {
            row[0]: QoS(row[0], minutes(row[1]), *map(number, row[2:]))
            for row in rows
            if len(row) == 4
        }

    @cached_property
    def no_accounting(self) -> str:
        """Why sacct does not answer; empty where it does."""
        done = slurm.run(["sacct", "-X", "--noheader", "--starttime=now"])
        return "" if done.ok else done.message.splitlines()[-1]

    def refusal(self, options: Mapping[str, str]) -> str:
        """Return why Slurm would never take a job with these options; nothing if it would.

        An option without a value is left out.

        Raises:
            UserError: Slurm has been asked too often.
        """
        self.questions += 1
        if self.questions > MOST_QUESTIONS:
            raise UserError(
                f"Slurm was asked {MOST_QUESTIONS} times. Set slurm_account, qos, and constraint "
                "in the profile as the documentation of your cluster says, and repeat"
            )
        given = {**SMALL, **self.given, **options}
        words = [f"--{name}={value}" for name, value in given.items() if value]
        return preflight.refusal(shlex.join(["sbatch", *words]))

    def is_accepted(self, options: Mapping[str, str]) -> bool:
        """Return whether Slurm takes a job, now or when a node is free."""
        refused = self.refusal(options)
        return not refused or bool(preflight.NO_NODE_NOW.search(refused))

    def fewest(
        self, asked: Mapping[str, str], choices: Mapping[str, Sequence[str]]
    ) -> dict[str, str] | None:
        """Return the fewest further options with which Slurm takes a job; None if there are none.

        Args:
            asked: what the job asks for in any case.
            choices: values by option; earlier ones are preferred.
        """
        for size in range(len(choices) + 1):
            for names in combinations(choices, size):
                for values in product(*(choices[name] for name in names)):
                    more = dict(zip(names, values, strict=True))
                    if self.is_accepted({**asked, **more}):
                        return more
        return None


def nodes(row: Sequence[str]) -> Nodes:
    """Return the nodes of one line of sinfo."""
    name, count, cpus, mem_mb, gres, features = row
    # `(null)` is no feature.
    names = tuple(word for word in features.split(",") if word[:1].isalnum())
    return Nodes(name, int(count), int(cpus), int(mem_mb), gres, names)


def partition(name: str, about: Mapping[str, str], kinds: Iterable[Nodes]) -> Partition:
    """Return a partition of which scontrol has described this."""
    return Partition(
        name=name,
        is_default=about.get("Default") == "YES",
        state=about.get("State", "UP"),
        minutes=minutes(about.get("MaxTime", "")),
        tier=number(about.get("PriorityTier", "")) or 0,
        whole_nodes=about.get("OverSubscribe") == "EXCLUSIVE",
        most_mem_mb=number(about.get("MaxMemPerNode", "")),
        most_cpus=number(about.get("MaxCPUsPerNode", "")),
        nodes=tuple(kinds),
    )


def number(text: str) -> int | None:
    """Return a limit; None for UNLIMITED and for nothing."""
    return int(text) if text.isdecimal() else None


def minutes(text: str) -> int | None:
    """Return a time limit such as `1-00:00:00` in whole minutes; None if there is none."""
    return int(jobs.slurm_seconds(text) // 60) if text[:1].isdecimal() else None
