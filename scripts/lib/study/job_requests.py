"""What the job of a run asks Slurm for: cores, memory, time, GPUs."""

from dataclasses import dataclass

from lib.study.study import Experiment


@dataclass(frozen=True)
class JobRequest:
    """The resources of one job."""

    cpus: int
    mem_mb: int  # MiB
    runtime: int  # minutes
    gpus: int


def job_request(experiment: Experiment) -> JobRequest:
    """Return what a training asks for.

    A device of `auto` uses a GPU if there is one, but asks for none.
    """
    return JobRequest(
        cpus=experiment.cpus,
        mem_mb=experiment.mem_mb,
        runtime=experiment.runtime,
        gpus=1 if experiment.recipe.device == "cuda" else 0,
    )
