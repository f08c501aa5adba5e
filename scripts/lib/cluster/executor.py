"""How jobs are submitted to Slurm and watched: one subclass of the plugin's own executor.

What this subclass does differently from the plugin:

- A Slurm job trains and evaluates a run, or many, and starts no Snakemake on the node: see
  `slurm_job`.
- Before the first job, Slurm is asked whether it would take each kind of job: see `preflight`.
- Slurm is asked rarely, and soon after a job has reported that it has ended: see `polling`.
- What follows the end of a job depends on why it has ended (see `job_end`): more
  memory or more time, another node, the same again, or no second submission at all.
- A submission waits where the queue is full, or slurmctld away; a failed one would cost a retry.
- What would wait forever is requeued or released, or reported: see `queue_watch`.
- Ctrl-C cancels all jobs of the run by their name, also those that are being asked about.
- What was there before a job that fails stays there.
- Who holds the locks is noted: see `locks`.
- Slurm's own logs are below `results_dir`, and so is the list of the jobs that were submitted.

Below, a `job` is one of Snakemake's: a training or an evaluation. A `slurm_job` (SlurmJob) is what
sbatch gets, for one of them or many. `submitted` is a job with the number of its Slurm job.

It was written for the versions in `WRITTEN_FOR`, serves those in pyproject.toml, and ends a run on
Slurm at once where a name that it needs is missing or has changed.
"""

import asyncio
import dataclasses
import importlib
import inspect
import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from snakemake.jobs import Job
from snakemake_interface_common.exceptions import WorkflowError

from lib.cluster import locks, polling, preflight, slurm, submissions
from lib.cluster.bad_nodes import BadNodes, is_name
from lib.cluster.job_end import Cause, End, JobReport, cause_of, find_end, last_words
from lib.cluster.polling import Polling, Status
from lib.cluster.profile import Profile
from lib.cluster.queue_watch import QueueWatch
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
    from snakemake_executor_plugin_slurm.validation import validate_or_get_slurm_job_id
    from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
    from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

    from lib.cluster import sbatch
    from lib.cluster.slurm_job import JOB_ATTRIBUTES, SlurmJob, name_of, slurm_jobs
except ImportError as error:
    raise WorkflowError(ADVICE.format(error)) from error

# The names of the plugin that are called or overridden here, and their parameters.
_PLUGIN = "snakemake_executor_plugin_slurm"
EXPECTED = {
    (_PLUGIN, "Executor.cancel_jobs"): "self active_jobs",
    (_PLUGIN, "Executor.check_active_jobs"): "self active_jobs",
    (_PLUGIN, "Executor.report_job_submission"): "self job_info register_job",
    (_PLUGIN, "Executor.run_jobs"): "self jobs",
    (_PLUGIN, "Executor.run_job_pre"): "self job",
    (_PLUGIN, "Executor.report_job_success"): "self job_info",
    (_PLUGIN, "Executor.report_job_error"): "self job_info msg kwargs",
    (_PLUGIN, "Executor.format_job_exec"): "self job",
    (f"{_PLUGIN}.partitions", "get_best_partition"): "candidate_partitions job logger",
    (f"{_PLUGIN}.submit_string", "get_submit_command"): (
        "job params settings failed_nodes array_job"
    ),
    (f"{_PLUGIN}.utils", "set_gres_string"): "job",
    (f"{_PLUGIN}.utils", "get_job_wildcards"): "job",
    (f"{_PLUGIN}.validation", "validate_slurm_extra"): "job",
    (f"{_PLUGIN}_jobstep", "get_cpu_setting"): "job gpu",
    (f"{_PLUGIN}_jobstep", "get_gpu_setting"): "job",
    (f"{_PLUGIN}_jobstep", "get_node_setting"): "job",
    (f"{_PLUGIN}.validation", "validate_or_get_slurm_job_id"): "job_id output",
}
SETTINGS = "keep_successful_logs logdir partition_config qos reservation requeue".split()
SETTINGS += ["status_attempts", "status_command"]

# Of Snakemake's jobs, and of its settings.
JOB = (*JOB_ATTRIBUTES, "attempt", "restart_times", "is_local")
EXECUTION_SETTINGS = ("keep_incomplete", "latency_wait", "lock")

# What the plugin and Snakemake set before the first job is submitted.
ATTRIBUTES = (
    "logger run_uuid slurm_logdir workflow dag _failed_nodes _job_submission_executor _partitions"
).split()

FAILED = (
    "BOOT_FAIL CANCELLED DEADLINE ERROR FAILED OUT_OF_MEMORY REVOKED TIMEOUT FORGOTTEN"
).split()
FORGOTTEN = "FORGOTTEN"  # of a job that squeue does not know any more, and that left no results
# Of a job that was submitted: its Slurm job, and where that reports.
SLURM_JOB, REPORT = "slurm_job", "report"
LIKE_TRAIN = ("reproduce", "replay", "replay_whole")  # rules
MAX_RESUBMISSIONS = 10  # submissions of a job that are not counted as retries
MOST_NODES = 3  # nodes on which a job is tried that could not run on others
MOST_ABSENT = 2  # answers of squeue without a job, until it is taken to have ended

SUBMISSION_INTERVAL = 30.0  # seconds between tries while the queue is full
GATHER = 2.0  # seconds without another job that is ready, until a pack is submitted
CANCEL_PATIENCE = 30.0  # seconds in which Ctrl-C tries to cancel the jobs


def register(study: Study, workflow) -> None:
    """Let runs on Slurm use this executor, under the plugin's own name.

    Snakemake makes the executor after it has read the Snakefile, from the class that the registry
    then holds. A job that starts Snakemake on its node uses another executor there.
    """
    StudyExecutor.study = study
    ExecutorPluginRegistry().get_plugin("slurm").executor = StudyExecutor
    # `jobs` and `resources` in a profile count Slurm jobs and their GPUs, and Snakemake runs. What
    # is set for the trainings is also for what does them again.
    try:
        for given in ("overwrite_resources", "overwrite_threads"):
            found = dict(getattr(workflow.resource_settings, given))
            found = dict.fromkeys(LIKE_TRAIN, found["train"]) | found if "train" in found else found
            setattr(workflow.resource_settings, given, found)
        most = workflow.global_resources
        for name in ("_nodes", "gpu") if most.get("_nodes").value else ():
            if most.get(name).value:
                most[name] = most.get(name).value * study.runs_per_job
    except (AttributeError, TypeError) as error:
        raise WorkflowError(ADVICE.format(f"the workflow's resources ({error})")) from error


@dataclass
class Attempts:
    """What earlier submissions of a job have shown."""

    growth: sbatch.Growth = dataclasses.field(default_factory=sbatch.Growth)
    resubmissions: int = 0
    nodes: int = 0
    saved: int | None = None  # when it had saved its checkpoint, when it was last submitted


class StudyExecutor(PluginExecutor):
    """The executor of a study's jobs."""

    study: ClassVar[Study]

    def __init__(self, workflow, logger):
        check_names()
        super().__init__(workflow, logger)

    def __post_init__(self, test_mode: bool = False) -> None:
        """Set up, and check that the cluster would take the jobs.

        Raises:
            SystemExit: it would not; the message names the keys to change.
        """
        if self.workflow.execution_settings.lock:
            locks.mark(self.study.layout)
        settings = self.workflow.executor_settings
        if ignored := ", ".join(slurm.ignored_variables()):
            self.logger.warning(f"ignored, as the profile says what jobs ask for: {ignored}")
        if self.study.check in (True, "only"):
            self.stop_for(slurm.problems())
        super().__post_init__(test_mode)
        execution = self.workflow.execution_settings
        missing = [name for name in ATTRIBUTES if not hasattr(self, name)]
        missing += [name for name in EXECUTION_SETTINGS if not hasattr(execution, name)]
        missing += [] if hasattr(self.dag, "needrun_jobs") else ["DAG.needrun_jobs"]
        if missing:
            raise WorkflowError(ADVICE.format(", ".join(missing)))
        # What was there before a job that fails stays there; Snakemake here would remove it. No
        # script of this project leaves half a file.
        execution.keep_incomplete = True
        if not settings.logdir:
            self.slurm_logdir = self.study.layout.slurm_logs.resolve()
        self.sbatch = sbatch.Sbatch(settings, self._partitions or [], self.workflow.workdir_init)
        self.told: set[str] = set()
        self.attempts: dict[object, Attempts] = defaultdict(Attempts)
        self.evaluations: dict[str, Job] = {}  # by the names of the runs that are to be evaluated
        # A Slurm job that trains a run evaluates it, too, before Snakemake asks for that. Here is
        # how the evaluation has ended, until it does.
        self.tried: dict[Job, tuple[SubmittedJobInfo, Status, JobReport | None]] = {}
        self.ready: list = []  # jobs that are to be submitted
        self.gathering = threading.Lock()
        self.check()
        self.bad_nodes = BadNodes()
        self.query = polling.choose(settings.status_command, self.run_uuid, self.logger)
        self.failed_queries, self.absent = 0, Counter()
        self.without_report: dict[str, float] = {}  # since when a job is seen to have failed
        self.polling = Polling(1 / self.max_status_checks_per_second)
        self.queue = QueueWatch(self.run_uuid, self.bad_nodes, self.logger)
        self.canceled, self.room = threading.Event(), threading.Event()

    def check(self) -> None:
        """Ask Slurm whether it would take the jobs that are to run, unless the config says not to.

        Where it says `print`, say on standard output what would be submitted, and ask nothing.

        Raises:
            SystemExit: it would not, or the config says to do no more.
        """
        if self.study.check is False:
            return
        jobs = [job for job in self.dag.needrun_jobs() if not job.is_local]
        trained = {name_of(job) for job in jobs if job.name == "train"}
        jobs = [job for job in jobs if job.name != "evaluate" or name_of(job) not in trained]
        planned = [self.within_limits(slurm_job) for slurm_job in self.slurm_jobs_of(jobs)]
        profile = Profile.of_this_run(self.workflow.executor_settings.partition_config)
        if self.study.check == "print":
            kinds, problems = preflight.lines_of(planned, self.sbatch, profile)
            self.stop_for(problems)
            for line, job in kinds.items():
                print(json.dumps({"rule": job.name, "threads": job.threads, "sbatch": line}))
            raise SystemExit(0)
        problems, remarks = preflight.check(self.study, planned, self.sbatch, profile)
        self.stop_for(problems)
        for remark in remarks:
            self.logger.warning(remark)
        if self.study.check == "only":
            print(f"Slurm would take the jobs of all {len(self.study.experiments)} experiments")
            raise SystemExit(0)

    def stop_for(self, problems: list[str]) -> None:
        """End the run where something is wrong.

        Raises:
            SystemExit: something is. Of an exception of its own, Snakemake shows lines of code.
        """
        if problems:
            lines = ["the cluster would not accept these jobs:", *problems]
            self.logger.error("\n  ".join(lines))
            self.logger.error("To start without this check: --config check=false")
            raise SystemExit(1)

    # --- submitting

    def run_jobs(self, jobs: list) -> None:
        """Submit jobs that are ready. Snakemake calls this while nothing changes its DAG."""
        self.evaluations = {
            name_of(job): job for job in self.dag.needrun_jobs() if job.name == "evaluate"
        }
        others = [job for job in jobs if job not in self.tried]
        for job in others:
            self.run_job_pre(job)
        self.gather(others)
        for job in jobs:
            if job in self.tried:
                self.end_one(*self.tried.pop(job), progress=True)  # its training is done

    def gather(self, jobs: list) -> None:
        """Submit jobs soon; where many are one Slurm job, with others that become ready now.

        Of the jobs of a pack that ends, Snakemake hears one after the other, and so it names those
        that may run in their place.
        """
        with self.gathering:
            if jobs and not self.ready:  # nobody waits for more of them yet
                self._job_submission_executor.submit(self.run_ready)
            self.ready += jobs

    def run_ready(self) -> None:
        """Submit what is ready, where many are one Slurm job once nothing more becomes so."""
        number = None
        while self.study.runs_per_job > 1 and number != len(self.ready):
            number = len(self.ready)
            time.sleep(GATHER)
        with self.gathering:
            jobs, self.ready = self.ready, []
        try:
            for slurm_job in self.slurm_jobs_of(jobs):
                self.send(slurm_job)
                jobs = [job for job in jobs if job not in slurm_job.jobs]
        except Exception as error:  # of which nobody hears in this thread: Snakemake would wait
            self.fail(jobs, f"{type(error).__name__}: {error}")

    def slurm_jobs_of(self, jobs: Iterable) -> list[SlurmJob]:
        """Return the Slurm jobs of jobs."""
        growth = lambda job: self.attempts[job].growth  # noqa: E731
        return slurm_jobs(self.study, jobs, growth, self.evaluations)

    def within_limits(self, slurm_job: SlurmJob) -> sbatch.Request:
        """Return what a Slurm job asks for; of many runs, no more time than a partition gives."""
        request, runs = slurm_job.request(), len(slurm_job.jobs)
        asked, least = request.resources.get("runtime") or 0, slurm_job.longest
        most = self.sbatch.most_minutes(request) if runs > 1 else asked
        if least <= most < asked:
            request.resources["runtime"] = most
            self.tell(
                f"{runs} runs in one job need up to {asked} minutes, and no partition "
                f"gives more than {most}: what is not done by then is submitted again"
            )
        return request

    def send(self, slurm_job: SlurmJob) -> None:
        """Submit a Slurm job; wait while Slurm takes none. After Ctrl-C, submit none."""
        jobs = slurm_job.jobs
        for job in jobs:
            self.attempts[job].saved = self.saved(job)
        first, growth = jobs[0], self.attempts[jobs[0]].growth
        rule, wildcards = sbatch.rule_and_wildcards(first)
        folder = self.slurm_logdir / (Path(rule, wildcards) if len(jobs) == 1 else "packs")
        comment = f"{rule}_wildcards_{wildcards}" if wildcards else rule
        if len(jobs) > 1:
            comment = f"{len(jobs)} runs, {name_of(first)} the first"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            request = self.within_limits(slurm_job)
            how = {"name": self.run_uuid, "log": folder / "%j.log", "comment": comment}
            line = self.line(first, request, **how)
            asked = self.sbatch.fitting(request, growth)[0].resources
            minutes = asked.get("runtime")
            script = slurm_job.script(self.workflow.workdir_init, folder, minutes, self)
            done = self.submit(line, script)
            job_id = done and validate_or_get_slurm_job_id(done.split(";")[0].strip(), done)
        except (UserError, WorkflowError, OSError) as error:
            self.fail(jobs, str(error))
            return
        if not job_id:
            return
        log = folder / f"{job_id}.log"
        grown = ", which asks for more than before" if growth != sbatch.Growth() else ""
        what = f"Job {first.jobid} is" if len(jobs) == 1 else f"{len(jobs)} runs are"
        self.logger.info(f"{what} Slurm job {job_id}{grown} (log: {log}).")
        aux = {"slurm_logfile": log, REPORT: log.with_suffix(".json"), SLURM_JOB: slurm_job}
        for job in jobs:
            self.report_job_submission(SubmittedJobInfo(job, job_id, aux))

    def fail(self, jobs: list, why: str) -> None:
        """Let Snakemake know that jobs cannot be submitted."""
        for job in jobs:
            self.never_again(job)
            self.report_job_error(SubmittedJobInfo(job), msg=f"{why}\n")

    def line(self, job, request=None, **how) -> str:
        """Return the `sbatch` line of a job, or of what is requested, as it is submitted now."""
        exclude, growth = {*self._failed_nodes, *self.bad_nodes}, self.attempts[job].growth
        return self.sbatch.line(request or job, growth=growth, exclude=exclude, **how)

    def submit(self, line: str, script: str) -> str:
        """Submit a job; return what sbatch says of success, or nothing after Ctrl-C.

        Raises:
            UserError: Slurm refuses it, or slurmctld has not answered for too long.
        """
        while not self.canceled.is_set():
            self.room.clear()
            done = slurm.patiently(
                lambda: sbatch.submit(line, script), tell=self.tell, canceled=self.canceled
            )
            if done.ok:
                return done.stdout
            if self.canceled.is_set():
                break
            said = sbatch.reason(done.message)
            if not sbatch.QUEUE_IS_FULL.search(done.message):
                raise UserError(f"sbatch failed: {said}\n    {line}")
            self.tell(f"the queue takes no more jobs now ({said}): waiting for room")
            self.room.wait(SUBMISSION_INTERVAL)
        return ""

    def tell(self, warning: str) -> None:
        """Warn of something, once."""
        if warning not in self.told:
            self.told.add(warning)
            self.logger.warning(warning)

    def report_job_submission(self, job_info: SubmittedJobInfo, register_job: bool = True) -> None:
        """Also write down which job of Slurm it is."""
        super().report_job_submission(job_info, register_job)
        if not job_info.job.is_group():
            try:
                submissions.record(
                    self.study.layout, job_info.external_jobid, self.run_uuid, job_info.job
                )
            except OSError as error:
                self.logger.warning(f"cannot write {self.study.layout.submissions}: {error}")

    # --- watching

    async def check_active_jobs(
        self, active_jobs: list[SubmittedJobInfo]
    ) -> AsyncIterator[SubmittedJobInfo]:
        """Ask Slurm about all jobs, if it is time to; report what has ended, yield the others.

        Raises:
            WorkflowError: too many queries in a row have failed.
        """
        if not active_jobs:
            return
        by_id = by_slurm_job(active_jobs)
        found = None
        if self.polling.is_due([some[0].aux[REPORT] for some in by_id.values()]):
            found = await asyncio.to_thread(polling.query, self.query)
            self.count_query(found is not None)
        if found is None:
            for submitted in active_jobs:
                yield submitted
            return
        states = {job_id: polling.status_of(job_id, found) for job_id in by_id}
        given_up = self.queue.look({job: status for job, status in states.items() if status})
        for job_id, some in by_id.items():
            status = states[job_id]
            if job_id in given_up:
                self.give_up(some, status, given_up[job_id])
                continue
            status = status or self.status_of_absent(some)
            if has_ended(status) and not self.awaits_report(some, status):
                self.end(some, status)
            else:
                for submitted in some:
                    yield submitted

    def count_query(self, succeeded: bool) -> None:
        """Count the status queries that fail; end the run after too many in a row."""
        self.failed_queries = 0 if succeeded else self.failed_queries + 1
        attempts = self.workflow.executor_settings.status_attempts
        if self.failed_queries >= attempts:
            raise WorkflowError(
                f"the last {attempts} status queries have failed: {' '.join(self.query)}\n"
                "The jobs in Slurm go on without this run; the same command uses their results. "
                "To wait longer, raise slurm-status-attempts in the profile; on a cluster "
                "without accounting, set slurm-status-command: squeue"
            )

    def status_of_absent(self, some: list[SubmittedJobInfo]) -> Status | None:
        """Return the status of a job that a query does not know: by its report, if it has ended.

        Accounting comes to know each job sooner or later. squeue forgets those that have ended.
        """
        job_id = some[0].external_jobid
        self.absent[job_id] += 1
        if self.query[0] != "squeue" or self.absent[job_id] < MOST_ABSENT:
            return None
        report = JobReport.read(some[0].aux[REPORT])
        slurm_job = some[0].aux[SLURM_JOB]
        stages = (stage for submitted in some for stage in slurm_job.stages_of(submitted.job))
        succeeded = all(has_succeeded(stage, report) for stage in stages)
        return Status("COMPLETED" if succeeded else FORGOTTEN, "")

    def awaits_report(self, some: list[SubmittedJobInfo], status: Status) -> bool:
        """Return whether the report of a job that has failed may still appear: a file may be late.

        Without one, the job has not begun, and its node is left out.
        """
        if status.state != "FAILED" or some[0].aux[REPORT].exists():
            return False
        since = self.without_report.setdefault(some[0].external_jobid, time.monotonic())
        return time.monotonic() - since < self.workflow.execution_settings.latency_wait

    def end(self, some: list[SubmittedJobInfo], status: Status) -> None:
        """Act on the end of a Slurm job.

        Args:
            some: what it did: jobs of Snakemake's, one for each run.
            status: of the Slurm job.
        """
        self.room.set()
        report = JobReport.read(some[0].aux[REPORT])
        progress = any(has_succeeded(submitted.job, report) for submitted in some)
        for submitted in some:
            self.end_one(submitted, status, report, progress)
        if status.state == "COMPLETED":
            self.remove_logs(some[0])

    def end_one(
        self, submitted: SubmittedJobInfo, status: Status, report: JobReport | None, progress: bool
    ) -> None:
        """Act on the end of one of the jobs of a Slurm job; `progress` is that of `act_on`."""
        end = end_of(submitted, status, report)
        if status.state == "COMPLETED" or end.status == 0:
            self.succeed(submitted, status, report)
        else:
            cause, why = cause_of(end), last_words(end)
            blame = cause is not Cause.UNKNOWN or self.is_to_blame(submitted, report)
            self.act_on(submitted, status, cause, why, progress, blame)

    def is_to_blame(self, submitted: SubmittedJobInfo, report: JobReport | None) -> bool:
        """Return whether a run may have failed of itself.

        It has not if it had not begun, or has saved a checkpoint since it was submitted: what has
        ended it has ended the whole Slurm job, or comes from outside. Such ends are limited only
        where several follow each other in which nothing has begun.
        """
        job = submitted.job
        begun = report is not None and name_of(job) in report.runs
        saved, attempts = self.saved(job), self.attempts[job]
        progressed = saved not in (None, attempts.saved)
        if progressed or (report and report.runs and not begun):
            attempts.resubmissions = 0
        return begun and not progressed

    def saved(self, job: Job) -> int | None:
        """Return when a training has last saved its checkpoint; None if it has none."""
        if job.name != "train":
            return None
        checkpoint = self.study.layout.run(job.wildcards.experiment, job.wildcards.seed).checkpoint
        with suppress(OSError):
            return checkpoint.stat().st_mtime_ns
        return None

    def succeed(
        self, submitted: SubmittedJobInfo, status: Status, report: JobReport | None
    ) -> None:
        """Report a job's success; note whether the same Slurm job has tried to evaluate the run."""
        evaluation = submitted.aux[SLURM_JOB].evaluations.get(submitted.job)
        if evaluation is not None:
            tried = SubmittedJobInfo(evaluation, submitted.external_jobid, submitted.aux)
            self.tried.pop(evaluation, None)
            if status.state == "COMPLETED" or end_of(tried, status, report).status is not None:
                self.tried[evaluation] = tried, status, report
        self.report_job_success(submitted)

    def remove_logs(self, submitted: SubmittedJobInfo) -> None:
        """Remove the report of a Slurm job that has succeeded, and Slurm's log."""
        with suppress(OSError):  # a log that stays must not end the run
            submitted.aux[REPORT].unlink(missing_ok=True)
            if not self.workflow.executor_settings.keep_successful_logs:
                submitted.aux["slurm_logfile"].unlink()

    def act_on(
        self,
        submitted: SubmittedJobInfo,
        status: Status,
        cause: Cause,
        why: str,
        progress: bool = False,
        to_blame: bool = True,
    ) -> None:
        """Do what follows the end of a job: try it again in one way or another, or do not.

        Args:
            submitted: the job of Snakemake's.
            status: of the Slurm job.
            cause: why that has ended.
            why: the last words of the job.
            progress: whether other runs of the same Slurm job are done: then it had too little
                time for all, and not for one.
            to_blame: whether it may have failed of itself.
        """
        attempts = self.attempts[submitted.job]
        what = f"Slurm job {submitted.external_jobid} has ended ({status.state}): {cause.value}."
        if cause is Cause.TIME and progress and attempts.resubmissions < MAX_RESUBMISSIONS:
            attempts.resubmissions += 1
            self.submit_again(submitted, f"{what} What is left of it is submitted again.")
            return
        if cause in (Cause.MEMORY, Cause.TIME):
            attempts.growth = attempts.growth.more("memory" if cause is Cause.MEMORY else "time")
        elif (
            cause is Cause.EXTERNAL or not to_blame
        ) and attempts.resubmissions < MAX_RESUBMISSIONS:
            attempts.resubmissions += 1
            self.submit_again(submitted, f"{what} It is submitted again.")
            return
        elif cause is Cause.NODE:
            what = f"{what} {f'{status.node}: ' if is_name(status.node) else ''}{why}"
            if self.can_run_elsewhere(submitted, status.node, why):
                self.submit_again(submitted, f"{what}\nIt is submitted again, for other nodes.")
                return
            what += "\nThere is no other node for it."
            self.never_again(submitted.job)
        elif cause is Cause.DETERMINISTIC:
            self.never_again(submitted.job)
        self.report_job_error(submitted, msg=f"{what} ", aux_logs=self.logs_to_show(submitted))

    def logs_to_show(self, submitted: SubmittedJobInfo) -> list[str]:
        """Return Slurm's log of a job that has failed; of a pack, for the first of its runs."""
        log = str(submitted.aux["slurm_logfile"])
        shown = log in self.told
        self.told.add(log)
        return [] if shown else [log]

    def give_up(self, some: list[SubmittedJobInfo], status: Status, why: str) -> None:
        """Do what follows where Slurm will not start a job any more."""
        self.room.set()
        if why:
            subprocesses.run(["scancel", some[0].external_jobid])
        report = JobReport.read(some[0].aux[REPORT])
        for submitted in some:
            # It may have started it again, to its end, before accounting knows of that.
            if has_succeeded(submitted.job, report):
                self.succeed(submitted, status, report)
                continue
            self.act_on(submitted, status, Cause.NODE if why else Cause.EXTERNAL, why)

    def submit_again(self, submitted: SubmittedJobInfo, why: str) -> None:
        """Submit a job again in a way that is not counted as a retry."""
        self.tell(why)  # once, for all runs of a pack
        self.gather([submitted.job])

    def can_run_elsewhere(self, submitted: SubmittedJobInfo, node: str, why: str) -> bool:
        """Exclude a node; return whether there are others for a job, and it may be tried there."""
        attempts = self.attempts[submitted.job]
        attempts.nodes += 1
        self.bad_nodes.add(node, submitted.external_jobid, why)
        if attempts.nodes >= MOST_NODES:
            return False
        return preflight.would_be_accepted(self.line(submitted.job))

    @staticmethod
    def never_again(job) -> None:
        """Let Snakemake take the attempt that has failed for the last one."""
        job.attempt = job.restart_times + 1

    # --- ending

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        """Cancel all jobs of this run on Ctrl-C: each has the run's id for its name."""
        self.canceled.set()
        self.room.set()
        cancel(self.run_uuid, self.logger)

    def shutdown(self) -> None:
        """End; after Ctrl-C, cancel also what was being submitted at that moment."""
        super().shutdown()
        if self.canceled.is_set():
            cancel(self.run_uuid, self.logger)
        self.remove_old_reports()
        if self.bad_nodes.report():
            self.logger.error(self.bad_nodes.report())

    def remove_old_reports(self) -> None:
        """Remove the reports beside logs that the plugin has removed, which grow old."""
        for path in self.slurm_logdir.rglob("*.json"):
            is_one = path.stem.isdecimal() and JobReport.read(path)
            if is_one and not path.with_suffix(".log").exists():
                with suppress(OSError):
                    path.unlink()


def by_slurm_job(active: Iterable[SubmittedJobInfo]) -> dict[str, list[SubmittedJobInfo]]:
    """Return submitted jobs by Slurm's number: those of a pack have the same."""
    found = defaultdict(list)
    for submitted in active:
        found[submitted.external_jobid].append(submitted)
    return found


def has_succeeded(job: Job, report: JobReport | None) -> bool:
    """Return whether a job of Snakemake's has succeeded, as its Slurm job reports."""
    return report is not None and report.status(name_of(job), job.name) == 0


def end_of(submitted: SubmittedJobInfo, status: Status, report: JobReport | None) -> End:
    """Return how a job has ended; status and report are those of the Slurm job."""
    job, slurm_log = submitted.job, submitted.aux["slurm_logfile"]
    state = "" if status.state == FORGOTTEN else status.state
    own_log = Path(str(job.log[0])) if job.log else None
    alone = len(submitted.aux[SLURM_JOB].jobs) == 1
    return find_end(report, name_of(job), job.name, state, slurm_log, own_log, alone)


def has_ended(status: Status | None) -> bool:
    """Return whether a job has ended, as its status says. None is not known yet."""
    return status is not None and status.state in ("COMPLETED", *FAILED)


def cancel(run_id: str, logger) -> None:
    """Cancel all jobs of a run."""
    done = slurm.run(["scancel", f"--name={run_id}"], CANCEL_PATIENCE)
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
    problems += [f"Job.{name}" for name in JOB if not hasattr(Job, name)]
    if getattr(Job.__dict__.get("attempt"), "fset", None) is None:
        problems.append("setting Job.attempt")
    for (module, name), parameters in EXPECTED.items():
        found = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is None or list(inspect.signature(found).parameters) != parameters.split():
            problems.append(f"{module}.{name}({', '.join(parameters.split())})")
    if problems:
        raise WorkflowError(ADVICE.format("; ".join(problems)))
