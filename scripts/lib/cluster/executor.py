"""How jobs are submitted to Slurm and watched: one subclass of the plugin's own executor.

The plugin submits well. What this subclass does differently:

- One status query per interval, however many jobs there are, and nothing else. The plugin asks
  ever more rarely, so that a failed run would end long after its cause, and starts several other
  programs with each query. Where the queries fail for too long, the run ends and says so.
- A job that Slurm would never start again by itself is put back into the queue: one that its
  partition canceled to preempt it, or one that is held because a broken node could not start it.
- A submission waits while slurmctld is being restarted; a failed one would cost the job a retry.
- Ctrl-C cancels all jobs of the run by their name, also those that are being asked about.
- What was there before a training that fails stays there.
- Slurm's own logs are below `results_dir`, and so is the list of the jobs that were submitted.

It was written for the versions in `WRITTEN_FOR`, and ends a run on Slurm at once where a name that
it needs is missing or has changed.
"""

import dataclasses
import importlib
import inspect
import shutil
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import ClassVar

from snakemake_interface_common.exceptions import WorkflowError

from lib.cluster import jobs, preflight
from lib.core import subprocesses
from lib.core.errors import UserError
from lib.study.study import Study

WRITTEN_FOR = "snakemake 9.27.1 with snakemake-executor-plugin-slurm 2.8.0"
ADVICE = (
    f"scripts/lib/cluster/executor.py was written for {WRITTEN_FOR}. The installed versions differ "
    "from it in: {}. Install the versions in requirements.txt (make venv)"
)

try:
    from snakemake_executor_plugin_slurm import Executor as PluginExecutor
    from snakemake_executor_plugin_slurm import job_status_query
    from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
    from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry
except ImportError as error:
    raise WorkflowError(ADVICE.format(error)) from error

# The names of the plugin that are called or overridden here, and their parameters.
_PLUGIN = "snakemake_executor_plugin_slurm"
EXPECTED = {
    (_PLUGIN, "Executor.run_job"): "self job",
    (_PLUGIN, "Executor.cancel_jobs"): "self active_jobs",
    (_PLUGIN, "Executor.check_active_jobs"): "self active_jobs",
    (_PLUGIN, "Executor.report_job_submission"): "self job_info register_job",
    (f"{_PLUGIN}.job_status_query", "query_job_status"): "command logger",
    (f"{_PLUGIN}.job_status_query", "query_job_status_squeue"): "runid",
    (f"{_PLUGIN}.job_status_query", "get_min_job_age"): "",
}
SETTINGS = "init_seconds_before_status_checks keep_successful_logs logdir partition_config requeue"
SETTINGS = [*SETTINGS.split(), "status_attempts", "status_command"]

# What the plugin and Snakemake set before the first job is submitted.
ATTRIBUTES = "logger run_uuid slurm_logdir status_rate_limiter workflow".split()

FAILED = (
    "BOOT_FAIL CANCELLED DEADLINE ERROR FAILED NODE_FAIL OUT_OF_MEMORY REVOKED TIMEOUT"
).split()
HELD = "launch failed requeued held"

SUBMISSION_PATIENCE = 300.0  # seconds that a submission waits for slurmctld
PING_INTERVAL = 5.0  # seconds for which an answer of slurmctld counts
# After so many seconds in the queue, the reason is asked for; then after twice as many, and so on.
PENDING_PATIENCE = 300.0


def register(study: Study) -> None:
    """Let runs on Slurm use this executor, under the plugin's own name.

    Snakemake makes the executor after it has read the Snakefile, from the class that the registry
    then holds. The jobs on the nodes read the Snakefile too, but use another executor.
    """
    StudyExecutor.study = study
    ExecutorPluginRegistry().get_plugin("slurm").executor = StudyExecutor


class StudyExecutor(PluginExecutor):
    """The executor of a study's jobs."""

    study: ClassVar[Study]

    def __init__(self, workflow, logger):
        check_names()
        super().__init__(workflow, logger)

    def __post_init__(self, test_mode: bool = False) -> None:
        """Check that the cluster would take the jobs, then set up.

        Raises:
            WorkflowError: it would not; the message names the keys to change.
        """
        settings = self.workflow.executor_settings
        if settings.partition_config:
            try:
                preflight.check(self.study, Path(settings.partition_config).parent)
            except UserError as error:
                raise WorkflowError(str(error)) from error
        else:
            self.logger.warning("no slurm-partition-config in the profile: jobs are not checked")
        # The node has brought back what was there before a job that failed; Snakemake here would
        # remove it. No script of this project leaves half a file.
        self.workflow.execution_settings.keep_incomplete = True
        super().__post_init__(test_mode)
        missing = [name for name in ATTRIBUTES if not hasattr(self, name)]
        if missing:
            raise WorkflowError(ADVICE.format(", ".join(missing)))
        if not settings.logdir:
            self.slurm_logdir = self.study.layout.slurm_logs.resolve()
        self.status_command = status_command(settings, self.run_uuid)
        self.failed_queries = 0
        self.canceled = threading.Event()
        self.queue = QueueWatch(self.run_uuid, self.logger)
        self.slurmctld = Slurmctld(self.logger, self.canceled)

    def run_job(self, job) -> None:
        """Submit a job, once slurmctld answers; after Ctrl-C, submit none."""
        self.slurmctld.wait_for_answer()
        if not self.canceled.is_set():
            super().run_job(job)

    def report_job_submission(self, job_info: SubmittedJobInfo, register_job: bool = True) -> None:
        """Also write down which job of Slurm it is."""
        super().report_job_submission(job_info, register_job)
        if not job_info.job.is_group():
            try:
                jobs.record_submission(
                    self.study.layout, job_info.external_jobid, self.run_uuid, job_info.job
                )
            except OSError as error:
                self.logger.warning(f"cannot write {self.study.layout.submissions}: {error}")

    async def check_active_jobs(
        self, active_jobs: list[SubmittedJobInfo]
    ) -> AsyncIterator[SubmittedJobInfo]:
        """Ask Slurm once about all jobs; report those that have ended, yield the others.

        Raises:
            WorkflowError: too many queries in a row have failed.
        """
        if not active_jobs:
            return
        async with self.status_rate_limiter:
            states, _ = await job_status_query.query_job_status(self.status_command, self.logger)
        if states is None:
            self.count_failed_query()
            for job in active_jobs:
                yield job
            return
        self.failed_queries = 0
        found = {job.external_jobid: state_of(job.external_jobid, states) for job in active_jobs}
        self.queue.restart_stuck_jobs({job: state for job, state in found.items() if state})
        for job in active_jobs:
            if not self.has_ended(job, found[job.external_jobid]):
                yield job

    def count_failed_query(self) -> None:
        """Count a status query that failed; end the run after too many in a row."""
        self.failed_queries += 1
        attempts = self.workflow.executor_settings.status_attempts
        if self.failed_queries >= attempts:
            raise WorkflowError(
                f"the last {attempts} status queries have failed: {self.status_command}\n"
                "The jobs in Slurm go on without this run; the same command uses their results. "
                "To wait longer, raise slurm-status-attempts in the profile; on a cluster "
                "without accounting, set slurm-status-command: squeue"
            )

    def has_ended(self, job: SubmittedJobInfo, state: str | None) -> bool:
        """Return whether a job has ended, and report it if so. A state of None is not known yet."""
        settings = self.workflow.executor_settings
        if state in ("COMPLETED", "UNKNOWN"):  # whether its files exist is checked anyway
            self.report_job_success(job)
            if not settings.keep_successful_logs:
                with suppress(OSError):  # a log that stays must not end the run
                    job.aux["slurm_logfile"].unlink()
            return True
        if state not in FAILED or (state == "NODE_FAIL" and settings.requeue):
            return False
        self.report_job_error(
            job,
            msg=f"Slurm job {job.external_jobid} has failed, its state is {state}. ",
            aux_logs=[str(job.aux["slurm_logfile"])],
        )
        return True

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        """Cancel all jobs of this run on Ctrl-C: each has the run's id for its name."""
        self.canceled.set()
        cancel(self.run_uuid, self.logger)

    def shutdown(self) -> None:
        """End; after Ctrl-C, cancel also what was being submitted at that moment."""
        super().shutdown()
        if self.canceled.is_set():
            cancel(self.run_uuid, self.logger)


class QueueWatch:
    """Puts the jobs of a run back into the queue that would wait there forever.

    It looks closer only at what the status query has just seen: a job that was preempted, one that
    is back in the queue, or one that has waited there for long.
    """

    def __init__(self, run_id: str, logger):
        self.run_id, self.logger = run_id, logger
        self.last_states: dict[str, str] = {}
        self.patience = PENDING_PATIENCE
        self.pending_since = time.monotonic()

    def restart_stuck_jobs(self, states: dict[str, str]) -> None:
        """Act on the states, by job id, that a status query has just returned."""
        for job, state in states.items():
            if state == "PREEMPTED" and requeue_preempted(job):
                self.logger.info(f"Slurm job {job} was preempted: it is requeued")
        if any(self._is_back(job, state) for job, state in states.items()) or self._is_overdue(
            states
        ):
            for job in release_held(self.run_id):
                self.logger.info(f"Slurm job {job} was held after a failed start: releasing it")
        self.last_states = states

    def _is_back(self, job: str, state: str) -> bool:
        last = self.last_states.get(job, "PENDING")
        return state == "REQUEUED" or (state == "PENDING" and last != "PENDING")

    def _is_overdue(self, states: dict[str, str]) -> bool:
        """Return whether jobs have been pending for so long that one should ask why."""
        if "PENDING" not in states.values():
            self.pending_since, self.patience = time.monotonic(), PENDING_PATIENCE
            return False
        if time.monotonic() - self.pending_since < self.patience:
            return False
        self.patience *= 2
        return True


class Slurmctld:
    """Slurm's controller, which may be away for a moment."""

    def __init__(self, logger, canceled: threading.Event):
        self.logger, self.canceled = logger, canceled
        self.lock = threading.Lock()  # submissions run in several threads
        self.answered = -PING_INTERVAL
        self.away_since: float | None = None

    def wait_for_answer(self) -> None:
        """Return when it answers, or when it has not for too long: sbatch then says why.

        The time counts from the first question that was not answered, for all submissions
        together. After Ctrl-C nothing waits.
        """
        with self.lock:
            while time.monotonic() - self.answered >= PING_INTERVAL:
                if " UP" in subprocesses.run(["scontrol", "ping"]).stdout:
                    self.answered, self.away_since = time.monotonic(), None
                    return
                if self.away_since is None:
                    self.away_since = time.monotonic()
                    self.logger.warning(
                        "slurmctld does not answer: submissions wait for it, up to "
                        f"{SUBMISSION_PATIENCE:.0f} s"
                    )
                waited = time.monotonic() - self.away_since
                if waited > SUBMISSION_PATIENCE:
                    self.logger.error(f"slurmctld has not answered for {waited:.0f} s")
                    return
                if self.canceled.wait(PING_INTERVAL):
                    return


def status_command(settings, run_id: str) -> str:
    """Return the command that asks about the jobs of a run: sacct where it is installed.

    `slurm-status-command: squeue` in the profile is followed, unless slurmctld would forget a job
    before it is asked about.
    """
    accounting = shutil.which("sacct") is not None
    if settings.status_command == "squeue" and accounting:
        remembered = job_status_query.get_min_job_age() or 0
        accounting = remembered < 3 * settings.init_seconds_before_status_checks
    if not accounting:
        return job_status_query.query_job_status_squeue(run_id)
    # As the plugin asks, but not about the two days before the run.
    began = (datetime.now() - jobs.CLOCK_SKEW).isoformat(timespec="seconds")
    return (
        "sacct -X --parsable2 --noheader --clusters all --format=JobIdRaw,State "
        f"--starttime {began} --endtime now --name {run_id}"
    )


def state_of(job_id: str, states: dict[str, str]) -> str | None:
    """Return the state of a job in the answer to a status query; None if it is not known yet.

    A state can have more words, such as `CANCELLED by 1000`. A task of an array, such as 7_3, may
    be known by the number of the array only.
    """
    state = states.get(job_id) or states.get(job_id.partition("_")[0])
    return state.split()[0] if state else None


def requeue_preempted(job_id: str) -> bool:
    """Put a job back into the queue that was canceled to preempt it; return whether it was done.

    Accounting may be behind: a job that is in the queue by now, or runs again, is left alone.
    """
    known = subprocesses.run(["squeue", f"--jobs={job_id}", "--noheader", "--format=%T"])
    if known.ok and known.stdout.strip():
        return False
    return subprocesses.run(["scontrol", "requeue", job_id]).ok


def release_held(run_id: str) -> list[str]:
    """Release the jobs of a run that Slurm holds since they could not be started; return them.

    Slurm drains a node that cannot start a job. A job that its owner holds is left alone.
    """
    query = ["squeue", f"--name={run_id}", "--states=PENDING", "--noheader", "--format=%i|%r"]
    rows = [line.split("|") for line in subprocesses.run(query).stdout.splitlines()]
    held = [job for job, reason in rows if reason == HELD]
    for job in held:
        subprocesses.run(["scontrol", "release", job])
    return held


def cancel(run_id: str, logger) -> None:
    """Cancel all jobs of a run."""
    done = subprocesses.run(["scancel", f"--name={run_id}"])
    if not done.ok:
        command = " ".join(done.command)
        logger.error(f"cannot cancel the jobs; once Slurm answers, type: {command}\n{done.message}")


def check_names() -> None:
    """Check that the plugin has the names that are used here.

    Raises:
        WorkflowError: one is missing, or takes other arguments.
    """
    plugin = ExecutorPluginRegistry().get_plugin("slurm")
    settings = {field.name for field in dataclasses.fields(plugin.settings_cls)}
    problems = [f"setting {name}" for name in SETTINGS if name not in settings]
    for (module, name), parameters in EXPECTED.items():
        found = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is None or list(inspect.signature(found).parameters) != parameters.split():
            problems.append(f"{module}.{name}({', '.join(parameters.split())})")
    if problems:
        raise WorkflowError(ADVICE.format("; ".join(problems)))
