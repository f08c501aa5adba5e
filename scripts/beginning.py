"""What happens in the main Snakemake process when a run on Slurm begins."""

import os
import subprocess
import threading
import time
from pathlib import Path

from snakemake.exceptions import WorkflowError

from check import check
from cli import Failure
from configuration import Study
from slurm_jobs import Job, jobs

SECONDS_BETWEEN_LOOKS = 10
HELD = "launch failed requeued held"
PATIENT_SBATCH = Path(__file__).resolve().parents[1] / "workflow" / "bin"


def before_queueing(study: Study, workflow) -> None:
    """Check that the cluster would take the jobs, and begin to look after the executor.

    Raises:
        WorkflowError: it would not; the message names the keys to change.
    """
    try:
        check(study, Path(workflow.executor_settings.partition_config).parent)
    except Failure as failure:
        raise WorkflowError(str(failure)) from failure
    os.environ["PATH"] = f"{PATIENT_SBATCH}{os.pathsep}{os.environ['PATH']}"
    # The executor has no public name; Snakemake is pinned.
    executor = workflow.scheduler._executor
    if not workflow.executor_settings.logdir:
        executor.slurm_logdir = Path(study.results_dir, "logs", "slurm").resolve()
    seconds = workflow.remote_execution_settings.seconds_between_status_checks
    check_steadily(type(executor), seconds)
    type(executor).cancel_jobs = cancel_all
    threading.Thread(target=look_after, args=(Path.cwd(),), daemon=True).start()


def check_steadily(executor_class: type, seconds: float) -> None:
    """Let Snakemake's Slurm plugin (2.8.0) look at its jobs at equal intervals.

    Left alone, it ignores `seconds-between-status-checks` and looks ever more rarely, up to every
    three minutes, so that a failed run would end long after its cause.
    """
    interval = property(lambda executor: seconds, lambda executor, longer: None)
    executor_class.next_seconds_between_status_checks = interval


def cancel_all(executor, active_jobs: list) -> None:
    """Cancel the run's jobs on Ctrl-C, in place of Snakemake's Slurm plugin (2.8.0).

    Left alone, it cancels `active_jobs`, which lacks those that it is asking Slurm about at that
    moment: they would train on. All that it submits has the run's id for its job name.
    """
    command = ["scancel", f"--name={executor.run_uuid}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        again = f"once Slurm answers, do it by hand: {' '.join(command)}"
        executor.logger.error(f"cannot cancel the jobs; {again}\n{done.stderr}")


def look_after(workdir: Path) -> None:
    """Bring back, for as long as the process lives, what the plugin would wait for in vain."""
    old = {job.job_id for job in jobs(workdir)}
    while True:
        time.sleep(SECONDS_BETWEEN_LOOKS)
        for job in jobs(workdir):
            if job.job_id not in old:
                bring_back(job)


def bring_back(job: Job) -> None:
    """Put a job back into the queue that Slurm would never start again of itself.

    A job is lost when its partition cancels what it preempts; it is held when a broken node, which
    Slurm then drains, could not start it.
    """
    if job.state == "PREEMPTED":
        subprocess.run(["scontrol", "requeue", job.job_id], capture_output=True)
    elif job.state == "PENDING" and job.reason == HELD:
        subprocess.run(["scontrol", "release", job.job_id], capture_output=True)
