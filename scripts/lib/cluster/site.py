"""What a cluster is: its partitions, limits, and GPUs, and whether it takes a job.

Slurm's own tables say what there is. Whether this user may have it depends on rules that no table
shows, such as a site's job_submit plugin. So `sbatch --test-only` is asked, which submits nothing.
"""

import os
import pwd
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from snakemake_executor_plugin_slurm.partitions import parse_scontrol_partition_output

from lib.cluster import preflight, slurm, submissions

# A small job. Slurm places it, if only it may be there.
SMALL = {"time": "10", "cpus-per-task": "1", "mem": "100M"}
GPU = re.compile(r"gpu:(?:([A-Za-z]\w*):)?(\d+)")  # type and number

Row = dict[str, str]  # of a table of Slurm's, by column


@dataclass(frozen=True)
class Partition:
    """A partition. What most of its nodes have comes first."""

    name: str
    is_default: bool  # whether jobs that name none go to it
    state: str
    tier: int  # its priority
    whole_nodes: bool
    limits: dict[str, int]  # by their keys in partitions.yaml
    features: list[str]  # those of nodes without a GPU first
    gpu_features: list[str]  # of nodes with GPUs
    gpu_types: list[str]


class Site:
    """A cluster, which is asked each question once."""

    def __init__(self):
        self.answers: dict[str, str] = {}  # why Slurm refuses a job now, by its line

    @cached_property
    def config(self) -> dict[str, str]:
        """Slurm's configuration, by the names of slurm.conf."""
        return slurm.config()

    @cached_property
    def partitions(self) -> list[Partition]:
        """All partitions, also hidden ones; Slurm's order."""
        text = slurm.run(["scontrol", "--all", "show", "partition"]).checked()
        query = ["sinfo", "--all", "--exact", "--noheader", "--format=%R|%D|%c|%m|%G|%f"]
        nodes = table(slurm.run(query).checked(), "partition count cpus mem gres features")
        nodes = [row for row in nodes if row["count"] != "0"]
        return [
            partition(name, about, [row for row in nodes if row["partition"] == name])
            for name, about in parse_scontrol_partition_output(text).items()
        ]

    @cached_property
    def accounts(self) -> list[Row]:
        """The accounts that this user may charge; none where there is no accounting."""
        user, cluster = pwd.getpwuid(os.getuid()).pw_name, f"cluster={self.config['ClusterName']}"
        columns = "format=defaultaccount,account,qos,maxjobs,maxsubmit"
        query = ["sacctmgr", "-nP", "show", "user", user, "withassoc", cluster, columns]
        return table(slurm.run(query).stdout, "default account qos running submitted")

    @cached_property
    def qos(self) -> list[Row]:
        """The QoS of the cluster; none where there is no accounting."""
        query = "sacctmgr -nP show qos format=name,maxwall,maxjobspu,maxsubmitpu"
        return table(slurm.run(query.split()).stdout, "name wall running submitted")

    @cached_property
    def no_accounting(self) -> str:
        """Why sacct does not answer; empty where it does."""
        done = slurm.run(["sacct", "-X", "--noheader", "--starttime=now"])
        return "" if done.ok else done.message.splitlines()[-1]

    def refusal(self, options: Mapping[str, str], now: bool = False) -> str:
        """Return why Slurm refuses a small job with these options; nothing if it takes it.

        Args:
            options: of sbatch; one without a value is left out.
            now: whether it has to have a node for it now, none that is drained or reserved.
        """
        asked = {**SMALL, **options}
        line = shlex.join(["sbatch", *(f"--{name}={word}" for name, word in asked.items() if word)])
        if line not in self.answers:
            self.answers[line] = preflight.refusal(line)
        refused = self.answers[line]
        return "" if not now and preflight.NO_NODE_NOW.search(refused) else refused


def table(text: str, columns: str) -> list[Row]:
    """Return the rows of a table of Slurm's."""
    names, rows = columns.split(), (line.split("|") for line in text.splitlines())
    return [dict(zip(names, row, strict=True)) for row in rows if len(row) == len(names)]


def partition(name: str, about: Mapping[str, str], nodes: list[Row]) -> Partition:
    """Return a partition with these kinds of nodes, of which scontrol shows this."""
    nodes = sorted(nodes, key=lambda row: -int(row["count"]))
    gpus = [GPU.findall(row["gres"]) for row in nodes]
    with_gpus = [row for row, found in zip(nodes, gpus, strict=True) if found]
    without = [row for row in nodes if row not in with_gpus]

    def most(column: str, key: str) -> int | None:
        of_nodes = max((int(row[column]) for row in nodes), default=None)
        return min(filter(None, (of_nodes, number(about.get(key, "")))), default=None)

    limits = {
        "max_runtime": minutes(about.get("MaxTime", "")),
        "max_mem_mb": most("mem", "MaxMemPerNode"),
        "max_cpus_per_task": most("cpus", "MaxCPUsPerNode"),
        "max_gpu": max((sum(int(count) for _, count in found) for found in gpus), default=None),
    }
    return Partition(
        name=name,
        is_default=about.get("Default") == "YES",
        state=about.get("State", "UP"),
        tier=number(about.get("PriorityTier", "")) or 0,
        whole_nodes=about.get("OverSubscribe") == "EXCLUSIVE",
        limits={key: limit for key, limit in limits.items() if limit},
        features=features([*without, *with_gpus]),
        gpu_features=features(with_gpus),
        gpu_types=unique(kind for found in gpus for kind, _ in found if kind),
    )


def features(nodes: Iterable[Row]) -> list[str]:
    """Return the features of nodes; `(null)` is none."""
    found = unique(name for row in nodes for name in row["features"].split(","))
    return [name for name in found if name[:1].isalnum()]


def unique(words: Iterable[str]) -> list[str]:
    """Return each word once, in their order."""
    return list(dict.fromkeys(words))


def number(text: str) -> int | None:
    """Return a limit; None for UNLIMITED and for nothing."""
    return int(text) if text.isdecimal() else None


def minutes(text: str) -> int | None:
    """Return a time limit such as `1-00:00:00` in whole minutes; None if there is none."""
    return int(submissions.slurm_seconds(text) // 60) if text[:1].isdecimal() else None
