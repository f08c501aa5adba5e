"""Check before submission whether the cluster would accept the jobs of a study.

The job of each experiment is passed to `sbatch --test-only`, and the partitions and the free disk
space are checked. Each error names the key to change.
"""

import logging
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from lib.core import strict_yaml, subprocesses
from lib.core.errors import UserError
from lib.study.job_requests import job_request
from lib.study.study import Study

# What sbatch says, and the key that is wrong. {profile} and {experiment} are filled in.
CURES = {
    r"[Ii]nvalid partition": "{profile}/partitions.yaml: the partition {partition} is not there",
    r"[Ii]nvalid account": "{profile}/config.yaml: default-resources: slurm_account",
    r"[Ii]nvalid qos": "{profile}/config.yaml: default-resources: qos",
    r"[Tt]ime limit": "config: experiments.{experiment}.runtime",
    r"[Mm]emory (specification|required)": "config: experiments.{experiment}.mem_mb",
    r"generic resource|gres": "{profile}/config.yaml: the GPU request of set-resources",
    r"node configuration is not available|More processors": (
        "config: experiments.{experiment}.mem_mb and cpus, or {profile}/partitions.yaml"
    ),
}
MB_A_RUN = 20


class Resources(dict):
    """Resources of a job as Snakemake gives them: items that are attributes too."""

    def __getattr__(self, name):
        """Return the item."""
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error


@dataclass
class PlannedJob:
    """As much of a Snakemake job as its Slurm plugin looks at."""

    name: str
    threads: int
    resources: Resources = field(default_factory=Resources)

    def is_group(self) -> bool:
        """Return False: no group jobs here."""
        return False


def check(study: Study, profile: Path) -> None:
    """Check that the cluster would take the study's jobs.

    Raises:
        UserError: it would not; a line for each thing that is wrong, with the key to change.
    """
    problems = slurm_problems() or [
        *partition_problems(profile),
        *(line for name in study.experiments for line in experiment_problems(study, profile, name)),
        *space_problems(study),
    ]
    if problems:
        raise UserError("the cluster would not accept these jobs:\n  " + "\n  ".join(problems))


def slurm_problems() -> list[str]:
    """Return why Slurm cannot be asked at all."""
    if not shutil.which("sbatch"):
        return ["sbatch is not on the PATH: log in to the cluster, or load its Slurm module"]
    done = subprocesses.run(["sinfo", "--noheader", "--format=%R"])
    failed = not done.ok or "error" in done.stderr
    return [f"Slurm does not answer: {done.message}"] if failed else []


def partition_problems(profile: Path) -> list[str]:
    """Return which partitions of the profile the cluster does not have."""
    named = set(strict_yaml.load(profile / "partitions.yaml")["partitions"])
    there = set(subprocesses.run(["sinfo", "--noheader", "--format=%R"]).stdout.split())
    return [
        f"{profile}/partitions.yaml: there is no partition {name!r} on this cluster; there are: "
        f"{', '.join(sorted(there))}"
        for name in sorted(named - there)
    ]


def experiment_problems(study: Study, profile: Path, name: str) -> list[str]:
    """Return why Slurm would reject the training job of an experiment."""
    # The plugin's own functions, so that what is tested is what will be submitted. Slow to import.
    from snakemake_executor_plugin_slurm.partitions import get_best_partition, read_partition_file
    from snakemake_executor_plugin_slurm.submit_string import get_submit_command
    from snakemake_executor_plugin_slurm.utils import set_gres_string

    job = planned_job(study, profile, name)
    quiet = logging.getLogger("check")
    quiet.setLevel(logging.ERROR)
    partition = get_best_partition(read_partition_file(profile / "partitions.yaml"), job, quiet)
    if not partition:
        asked = f"runtime {job.resources.runtime} min, mem_mb {job.resources.mem_mb}"
        asked += f", cpus {job.threads}, GPUs {job.resources.get('gpu', 0)}"
        return [
            f"config: experiments.{name}: no partition of {profile}/partitions.yaml takes {asked}"
        ]
    account = job.resources.get("slurm_account")
    call = get_submit_command(
        job,
        {
            "run_uuid": "check",
            "slurm_logfile": "/dev/null",
            "comment_str": "check",
            "account": f"-A {account}" if account else "",
            "partition": f"-p {partition}",
            "workdir": str(Path.cwd()),
        },
    )
    command = f"{call}{set_gres_string(job)} --test-only --wrap true"
    done = subprocesses.run(["bash", "-c", command])
    if done.ok:
        return []
    said = done.message
    message = " ".join(re.findall(r"error: (.*)", said)) or said
    cure = next((cure for pattern, cure in CURES.items() if re.search(pattern, said)), "")
    cure = cure.format(profile=profile, partition=partition, experiment=name)
    return [f"{cure or 'config: experiments.' + name}: {message}"]


def planned_job(study: Study, profile: Path, name: str) -> PlannedJob:
    """Return the training job of an experiment, with the resources that the profile adds."""
    asked = job_request(study.experiments[name])
    settings = strict_yaml.load(profile / "config.yaml")
    resources = Resources(settings.get("default-resources") or {})
    resources |= (settings.get("set-resources") or {}).get("train") or {}
    resources |= {"mem_mb": asked.mem_mb, "runtime": asked.runtime}
    if asked.gpus:
        resources["gpu"] = asked.gpus
    # Snakemake evaluates such values: the profile quotes a string within a string.
    for key, value in resources.items():
        if isinstance(value, str) and len(value) > 1 and value[0] == value[-1] in "'\"":
            resources[key] = value[1:-1]
    return PlannedJob("train", asked.cpus, Resources(resources))


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
