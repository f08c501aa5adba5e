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
from slurm_jobs import jobs

SECONDS_BETWEEN_CHECKS = 15
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
    arguments = (workflow.scheduler._executor, Path.cwd())
    threading.Thread(target=look_after, args=arguments, daemon=True).start()


def look_after(executor, workdir: Path) -> None:
    """Mend two things of Snakemake's Slurm plugin (2.8.0) while it runs.

    It waits for a preempted job to come back, and one whose partition cancels what it preempts
    never would: put such a job back into the queue. And it looks at its jobs ever more rarely, up
    to every three minutes, so that a failed run would end long after its cause.
    """
    old = {job.job_id for job in jobs(workdir)}
    while True:
        time.sleep(SECONDS_BETWEEN_CHECKS)
        seconds = executor.next_seconds_between_status_checks
        if seconds and seconds > SECONDS_BETWEEN_CHECKS:
            executor.next_seconds_between_status_checks = SECONDS_BETWEEN_CHECKS
        for job in jobs(workdir):
            if job.state == "PREEMPTED" and job.job_id not in old:
                subprocess.run(["scontrol", "requeue", job.job_id], capture_output=True)
