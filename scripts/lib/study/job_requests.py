"""What the job of a run asks Slurm for: cores, memory, time, GPUs, and more on a retry."""

from dataclasses import dataclass

from lib.study.study import Experiment

# A job that is retried asks for so many times its memory and time at the most.
MOST_GROWTH = 3


@dataclass(frozen=True)
class JobRequest:
    """The resources of one job."""

    cpus: int
    mem_mb: int  # MiB
    runtime: int  # minutes
    gpus: int


def job_request(experiment: Experiment, attempt: int = 1) -> JobRequest:
    """Return what a training asks for on its first attempt, its second, and so on.

    A job may have been killed for lack of memory or time: each retry asks for as much more as the
    first attempt did. A device of `auto` uses a GPU if there is one, but asks for none.
    """
    factor = min(attempt, MOST_GROWTH)
    return JobRequest(
        cpus=experiment.cpus,
        mem_mb=experiment.mem_mb * factor,
        runtime=experiment.runtime * factor,
        gpus=1 if experiment.device == "cuda" else 0,
    )
