"""Check before the first submission whether the cluster would take the jobs of a run.

The very `sbatch` line of each kind of job is passed to `sbatch --test-only`. What Slurm can never
accept stops the run, and names the key to change. What it cannot start now, but will later, since
nodes are drained or reserved, is a remark.
"""

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from snakemake_interface_common.exceptions import WorkflowError

from lib.cluster import sbatch, slurm
from lib.cluster.profile import Profile
from lib.core.errors import UserError
from lib.study.study import Study

MB_A_RUN = 20

GPU_KEYS = ["gpu_model", "gres", "gpu"]
# What sbatch says, and the keys that may be wrong, by their names as resources.
CURES = {
    r"[Ii]nvalid partition|not permitted to use this partition": ["slurm_partition"],
    r"[Ii]nvalid account": ["slurm_account"],
    r"[Ii]nvalid qos": ["qos"],
    r"[Rr]eservation": ["reservation", "slurm_extra"],
    r"[Ll]icense|[Ff]eature": ["constraint", "slurm_extra"],
    r"[Tt]ime limit|MaxWall|Wall\w*Limit": ["runtime"],
    r"[Mm]emory (specification|required)": ["mem_mb"],
    r"generic resource|gres|GRES": GPU_KEYS,
    r"node configuration is not available|More processors": ["mem_mb", "cpus"],
}  # fmt: skip
NO_NODE_NOW = re.compile(r"node configuration is not available|Required node not available")

# Of sinfo, of each node in each partition; that of the default one ends in `*`.
NODE = ("partition", "node", "state", "cpus", "memory", "gres")


def check(
    study: Study, planned: Iterable, maker: sbatch.Sbatch, profile: Profile
) -> tuple[list[str], list[str]]:
    """Ask Slurm about each kind of job.

    Args:
        study: what the jobs are of.
        planned: jobs of Snakemake that are to be submitted.
        maker: of their lines.
        profile: to name a key in.

    Returns:
        What is wrong, and what will only make the jobs wait: a line for each.
    """
    kinds, problems = lines_of(planned, maker, profile)
    problems, remarks = space_problems(study) + problems, []
    for line, job in kinds.items():
        refused = refusal(line)
        if refused and (NO_NODE_NOW.search(refused) and fits_a_node(line, job)):
            remarks.append(f"{_place(job)}: no node can start it now, so it will wait: {refused}")
        elif refused and sbatch.QUEUE_IS_FULL.search(refused):
            remarks.append(f"the queue is full now, so the jobs will wait: {refused}")
        elif refused:
            where = ",".join(partitions_in(line))
            where = f" (partition {where})" if where else ""
            key = f"{culprit(refused, line, job, profile)}{_shared(job)}"
            problems.append(f"{key}: {refused}{where}")
    remarks += partition_remarks(kinds)
    return list(dict.fromkeys(problems)), list(dict.fromkeys(remarks))


def lines_of(
    planned: Iterable, maker: sbatch.Sbatch, profile: Profile
) -> tuple[dict[str, object], list[str]]:
    """Return the line of each kind of job, with the first such job, and what is wrong with others.

    Slurm is not needed for it.
    """
    kinds, problems = {}, []
    for job in planned:
        try:
            kinds.setdefault(maker.line(job), job)
        except UserError as error:  # of a job that no partition takes
            problems.append(f"{_place(job)}{_shared(job)}: {error}")
        except WorkflowError as error:  # of the plugin's, with a resource at fault
            problems.append(f"{profile.file}: {error}")
    return kinds, problems


def would_be_accepted(line: str) -> bool:
    """Return whether Slurm would accept a job, on whatever node and whenever."""
    return not NO_NODE_NOW.search(refusal(line, patience=0))


def refusal(line: str, patience: float | None = None) -> str:
    """Return why Slurm would refuse a job now; nothing where it would not."""
    done = slurm.patiently(lambda: sbatch.submit(line, "true", test=True), patience)
    return "" if done.ok else sbatch.reason(done.message)


def fits_a_node(line: str, job) -> bool:
    """Return whether the partition of a job has a node that is large enough, in whatever state."""
    asked = sbatch.resources(job)
    return any(
        int(node["cpus"]) >= job.threads and int(node["memory"]) >= int(asked.get("mem_mb") or 0)
        for node in nodes_with_gpus(line, job)
    )


def nodes_with_gpus(line: str, job) -> list[dict[str, str]]:
    """Return the nodes of a job's partition that have the GPUs that it asks for, if it does."""
    asked = sbatch.resources(job)
    wanted = [str(asked.get("gpu_model") or ""), str(asked.get("gres") or "").partition(":")[0]]
    wanted += ["gpu"] if asked.get("gpu") else []
    nodes = nodes_of(partitions_in(line))
    return [node for node in nodes if all(word in node["gres"] for word in wanted)]


def nodes_of(partitions: list[str]) -> list[dict[str, str]]:
    """Return the nodes of partitions; of the default one, where none is named."""
    query = ["sinfo", "--all", "--Node", "--noheader", "--format=%P|%N|%T|%c|%m|%G"]
    rows = (line.split("|") for line in slurm.run(query).stdout.splitlines())
    nodes = [dict(zip(NODE, row, strict=True)) for row in rows if len(row) == len(NODE)]
    return [
        node
        for node in nodes
        if (node["partition"].rstrip("*") in partitions if partitions else "*" in node["partition"])
    ]


def partition_remarks(lines: Iterable[str]) -> list[str]:
    """Return which partitions of the jobs start none now."""
    query = ["sinfo", "--all", "--noheader", "--format=%R|%a"]
    states = dict(line.split("|") for line in slurm.run(query).stdout.splitlines() if "|" in line)
    used = sorted({name for line in lines for name in partitions_in(line)})
    return [
        f"the partition {name} is {states[name]}, so its jobs will wait"
        for name in used
        if states.get(name, "up") != "up"
    ]


def partitions_in(line: str) -> list[str]:
    """Return the partitions that a line names."""
    match = re.search(r" -p '?([^' ]+)", line)
    return match[1].split(",") if match else []


def culprit(refused: str, line: str, job, profile: Profile) -> str:
    """Return the key that Slurm means with a refusal."""
    names = next((keys for words, keys in CURES.items() if re.search(words, refused)), [])
    if NO_NODE_NOW.search(refused) and not nodes_with_gpus(line, job):
        names = GPU_KEYS
    return profile.origin(job, names) if names else _place(job)


def _place(job) -> str:
    experiment = job.wildcards.get("experiment")
    return f"config: experiments.{experiment}" if experiment else f"rule {job.name}"


def _shared(job) -> str:
    """Say what else decides what a job of many runs asks for."""
    runs = getattr(job, "runs", 1)
    return f" (and cpus_per_job, of {runs} runs in one job)" if runs > 1 else ""


def space_problems(study: Study) -> list[str]:
    """Return whether the file system has too little space for the runs."""
    folder = Path(study.results_dir)
    while not folder.exists():
        folder = folder.parent
    free, needed = shutil.disk_usage(folder).free / 1e6, MB_A_RUN * len(study.runs) + 500
    if free >= needed:
        return []
    return [
        f"config: results_dir: {free:,.0f} MB are free in {folder}, about {needed:,} are needed"
    ]
