"""The executor for Slurm, as far as it can be tested without one. tests/slurm has the rest."""

import asyncio
import json
import logging
import os
import re
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from types import SimpleNamespace

import pytest
import snakemake_executor_plugin_slurm as plugin
from conftest import ROOT
from snakemake.iocontainers import Wildcards
from snakemake.jobs import Job
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

from lib.cluster import executor, slurm
from lib.cluster.bad_nodes import BadNodes
from lib.cluster.executor import StudyExecutor
from lib.cluster.job_end import JobReport, cause_of_status
from lib.cluster.polling import Polling
from lib.cluster.queue_watch import QueueWatch
from lib.cluster.sbatch import Growth
from lib.cluster.slurm_job import SlurmJob, name_of
from lib.core.errors import UserError
from lib.core.layout import Layout


def test_the_names_are_those_of_the_installed_versions():
    executor.check_names()


def test_a_name_that_is_gone_or_changed_ends_the_run_with_the_versions(monkeypatch):
    monkeypatch.delattr(plugin.submit_string, "get_submit_command")
    monkeypatch.setattr(plugin.Executor, "run_jobs", lambda self, jobs, more: None)
    monkeypatch.delattr(Job, "env_modules")
    with pytest.raises(WorkflowError) as error:
        StudyExecutor(None, None)
    message = str(error.value)
    assert "was written for snakemake 9.27.1 with snakemake-executor-plugin-slurm 2.8.0" in message
    assert "submit_string.get_submit_command(job, params, settings" in message
    assert "Executor.run_jobs(self, jobs)" in message
    assert "Job.env_modules" in message
    assert "cancel_jobs" not in message


def test_the_versions_are_those_that_are_locked():
    lock = (ROOT / "requirements.txt").read_text()
    for name, version in re.findall(r"([a-z-]+) ([\d.]+)", executor.WRITTEN_FOR):
        assert f"\n{name}=={version} " in lock


def test_it_is_what_the_name_slurm_stands_for(monkeypatch):
    registered = ExecutorPluginRegistry().get_plugin("slurm")
    monkeypatch.setattr(registered, "executor", plugin.Executor)
    limits = SimpleNamespace(get=lambda name: SimpleNamespace(value=None))
    given = {"train": {"gpu_model": "a100"}, "replay": {"gpu_model": "own"}}
    settings = SimpleNamespace(overwrite_resources=given, overwrite_threads={})
    workflow = SimpleNamespace(global_resources=limits, resource_settings=settings)
    executor.register("a study", workflow)
    found = settings.overwrite_resources
    assert found == given | dict.fromkeys(("reproduce", "replay_whole"), given["train"])
    assert registered.executor is StudyExecutor
    assert issubclass(StudyExecutor, plugin.Executor)


def fake_executor(programs, tmp_path, sacct, **settings):
    """Return an executor, what it reports, and what it submits again; sacct is a script."""
    called = programs(sacct=sacct, squeue="", scontrol="", scancel="", sbatch="")
    made = StudyExecutor.__new__(StudyExecutor)
    defaults = {"status_attempts": 3, "keep_successful_logs": False, "partition_config": None}
    made.workflow = SimpleNamespace(
        executor_settings=SimpleNamespace(**defaults | settings),
        execution_settings=SimpleNamespace(latency_wait=0),
    )
    made.without_report = {}
    made.logger, made.query, made.failed_queries = logging.getLogger("test"), ["sacct"], 0
    made.bad_nodes, made.absent, made.told = BadNodes(), Counter(), set()
    layout = Layout(tmp_path / "results")
    made.study, made.tried = SimpleNamespace(runs_per_job=1, layout=layout), {}
    made.ready, made.gathering = [], threading.Lock()
    made.dag, made.evaluations = None, {}
    made.queue = QueueWatch("a-run", made.bad_nodes, made.logger)
    made.attempts, made.polling = defaultdict(executor.Attempts), Polling(0)
    made.room, made.canceled = threading.Event(), threading.Event()
    made.run_uuid, made.slurm_logdir, made._failed_nodes = "a-run", tmp_path, set()
    made.line = lambda job: f"{tmp_path / 'bin' / 'sbatch'}"
    reported, again = {}, []
    made.gather = lambda jobs: again.extend(job.wildcards.experiment for job in jobs)
    made.report_job_success = lambda job: reported.update({job.external_jobid: "success"})
    made.report_job_error = lambda job, msg, aux_logs: reported.update({job.external_jobid: msg})
    return SimpleNamespace(made=made, reported=reported, again=again, called=called)


class FakeJob(SimpleNamespace):
    """As much of a job of Snakemake's as is looked at."""

    __hash__ = object.__hash__


def jobs(tmp_path, *ids):
    """Return submitted jobs, each with logs and an attempt of its own."""
    made = []
    for each in ids:
        log, slurm_log = tmp_path / f"{each}.own", tmp_path / f"{each}.log"
        log.touch()
        slurm_log.touch()
        job = FakeJob(
            name="train", log=[log], threads=1, attempt=1, restart_times=2,
            resources={"mem_mb": 100, "runtime": 10},
            wildcards=Wildcards(fromdict={"experiment": each, "seed": "1"}), input=[], output=[],
        )  # fmt: skip
        aux = {"slurm_logfile": slurm_log, executor.REPORT: tmp_path / f"{each}.json"}
        aux |= {executor.SLURM_JOB: SlurmJob([job])}
        made.append(SimpleNamespace(external_jobid=each, aux=aux, job=job))
    return made


def report(*submitted, seconds_left=600, **statuses):
    """Let a Slurm job report on its runs: how each has ended, by the name of its experiment."""
    aux = submitted[0].aux
    runs = {name_of(each): {} for each in aux[executor.SLURM_JOB].jobs}
    for name, status in statuses.items():
        cause = cause_of_status(status, seconds_left).name
        runs[f"{name.removeprefix('_')}/seed1"] = {"train": {"status": status, "cause": cause}}
    content = asdict(JobReport(submitted[0].external_jobid, 0, "cpu1", "", None, runs))
    aux[executor.REPORT].write_text(json.dumps(content))


def check(made, active):
    async def still_active():
        return [job.external_jobid async for job in made.check_active_jobs(active)]

    return asyncio.run(still_active())


def answer(**states):
    """Return a script that says the states of jobs, by `_7`."""
    return "\n".join(f"echo '{job[1:]}|{state}|cpu1'" for job, state in states.items())


def test_each_state_is_reported_or_waited_for(programs, tmp_path):
    states = answer(
        _1="COMPLETED", _2="RUNNING", _3="PENDING", _4="CANCELLED by 1000", _5="OUT_OF_MEMORY",
        _7="TIMEOUT", _9="FAILED",
    )  # fmt: skip
    fake = fake_executor(programs, tmp_path, states)
    active = jobs(tmp_path, *"1234578")
    report(active[0], _1=0)
    assert check(fake.made, active) == ["2", "3", "8"]  # 8 is not known to sacct yet
    assert fake.reported.keys() == {"1", "5", "7"}
    assert fake.reported["1"] == "success"
    assert fake.again == ["4"]
    assert not (tmp_path / "1.log").exists()  # of the job that succeeded
    assert not (tmp_path / "1.json").exists()
    growth = {info.external_jobid: fake.made.attempts[info.job].growth for info in active}
    assert growth["5"] == Growth(memory=2, time=1)
    assert growth["7"] == Growth(memory=1, time=2)
    assert growth["4"] == Growth()


def test_a_job_that_has_come_back_and_ended_meanwhile_is_not_submitted_again(programs, tmp_path):
    """Accounting was away: it knows only that the node has failed. The run's records know more."""
    fake = fake_executor(programs, tmp_path, answer(_1="NODE_FAIL", _2="NODE_FAIL"))
    active = jobs(tmp_path, "1", "2")
    report(active[0], _1=0)
    report(active[1])
    assert check(fake.made, active) == ["1", "2"]  # Slurm may be about to start it again
    assert check(fake.made, active) == []
    assert fake.reported == {"1": "success"}
    assert fake.again == ["2"]


def test_what_always_fails_is_not_tried_again(programs, tmp_path):
    fake = fake_executor(programs, tmp_path, answer(_5="FAILED"))
    (info,) = jobs(tmp_path, "5")
    report(info, _5=1)
    assert check(fake.made, [info]) == []
    assert "fails whenever it is tried" in fake.reported["5"]
    assert info.job.attempt == 3  # with 2 restarts, the last


def test_a_job_goes_to_another_node_a_few_times(programs, tmp_path):
    fake = fake_executor(programs, tmp_path, answer(_5="FAILED"))
    (info,) = jobs(tmp_path, "5")
    for _ in range(2):
        assert check(fake.made, [info]) == []
    assert fake.again == ["5", "5"]
    assert list(fake.made.bad_nodes) == ["cpu1"]
    assert check(fake.made, [info]) == []
    assert "There is no other node for it" in fake.reported["5"]
    assert info.job.attempt == 3


def test_on_the_only_node_it_fails_at_once(programs, tmp_path):
    fake = fake_executor(programs, tmp_path, answer(_5="FAILED"))
    refusal = (
        "sbatch: error: Batch job submission failed: Requested node configuration is not available"
    )
    script = tmp_path / "bin" / "sbatch"
    script.write_text(f"#!/bin/sh\necho '{refusal}' >&2; exit 1\n")
    assert check(fake.made, jobs(tmp_path, "5")) == []
    assert "There is no other node for it" in fake.reported["5"]
    assert fake.again == []


def test_a_job_that_is_canceled_again_and_again_fails_at_last(programs, tmp_path):
    fake = fake_executor(programs, tmp_path, answer(_5="CANCELLED"))
    (info,) = jobs(tmp_path, "5")
    for _ in range(executor.MAX_RESUBMISSIONS + 1):
        assert check(fake.made, [info]) == []
    assert len(fake.again) == executor.MAX_RESUBMISSIONS
    assert "canceled" in fake.reported["5"]


def test_a_log_that_cannot_be_removed_ends_nothing(programs, tmp_path):
    fake = fake_executor(programs, tmp_path, answer(_1="COMPLETED", _2="RUNNING"))
    active = jobs(tmp_path, "1", "2")
    active[0].aux["slurm_logfile"] = tmp_path  # a folder, which unlink refuses
    assert check(fake.made, active) == ["2"]
    assert fake.reported == {"1": "success"}


def test_queries_that_fail_lose_no_job_and_end_the_run_after_some(programs, tmp_path):
    away = tmp_path / "away"
    fake = fake_executor(programs, tmp_path, f"[ ! -e {away} ] || exit 1; {answer(_1='RUNNING')}")
    active = jobs(tmp_path, "1")
    for works in (False, False, True, False, False):
        away.unlink(missing_ok=True) if works else away.touch()
        assert check(fake.made, active) == ["1"]
    with pytest.raises(WorkflowError, match="the last 3 status queries have failed: sacct"):
        check(fake.made, active)
    assert fake.reported == {}


def test_a_report_may_appear_late(programs, tmp_path):
    """On a shared file system. Without it, the node would be taken for one that runs no job."""
    fake = fake_executor(programs, tmp_path, answer(_1="FAILED"))
    fake.made.workflow.execution_settings.latency_wait = 600
    active = jobs(tmp_path, "1")
    assert check(fake.made, active) == ["1"]
    report(*active, _1=1)
    assert check(fake.made, active) == []
    assert "fails whenever it is tried" in fake.reported["1"]
    assert list(fake.made.bad_nodes) == []


def test_of_a_forgotten_job_the_evaluation_must_have_succeeded_too(programs, tmp_path):
    fake = fake_executor(programs, tmp_path, "")
    fake.made.query = ["squeue"]
    (info,) = jobs(tmp_path, "1")
    evaluation = FakeJob(**vars(info.job) | {"name": "evaluate"})
    info.aux[executor.SLURM_JOB] = SlurmJob([info.job], evaluations={info.job: evaluation})
    report(info, _1=0)
    assert check(fake.made, [info]) == ["1"]
    assert check(fake.made, [info]) == []
    assert fake.reported == {"1": "success"}
    assert fake.made.tried == {}  # it is submitted for itself


def test_without_jobs_nothing_is_asked(programs, tmp_path):
    fake = fake_executor(programs, tmp_path, "exit 1")
    assert check(fake.made, []) == []
    assert fake.called() == []


def test_a_job_that_squeue_has_forgotten_has_ended(programs, tmp_path):
    fake = fake_executor(programs, tmp_path, "")
    fake.made.query = ["squeue"]
    active = jobs(tmp_path, "1", "2")
    assert check(fake.made, active) == ["1", "2"]  # it may be only just submitted
    report(active[0], _1=0)
    report(active[1])
    assert check(fake.made, active) == []
    assert fake.reported["1"] == "success"
    assert "FORGOTTEN" in fake.reported["2"]


def pack(tmp_path, fake, *names):
    """Return submitted jobs that are one Slurm job, 7."""
    made = jobs(tmp_path, *names)
    together = SlurmJob([each.job for each in made])
    for each in made:
        each.external_jobid = "7"
        each.aux[executor.SLURM_JOB] = together
        each.aux["slurm_logfile"] = tmp_path / "7.log"
        each.aux[executor.REPORT] = tmp_path / "7.json"
    name = lambda info: info.job.wildcards.experiment  # noqa: E731
    fake.made.report_job_success = lambda job: fake.reported.update({name(job): "success"})
    fake.made.report_job_error = lambda job, msg, aux_logs: fake.reported.update({name(job): msg})
    return made


def test_of_many_runs_in_a_job_each_has_an_end_of_its_own(programs, tmp_path):
    fake = fake_executor(programs, tmp_path, answer(_7="FAILED"))
    active = pack(tmp_path, fake, "good", "bad", "killed")
    report(*active, good=0, bad=1, killed=137)
    assert check(fake.made, active) == []
    assert fake.reported.pop("good") == "success"
    assert "fails whenever it is tried" in fake.reported["bad"]
    assert "it failed" in fake.reported["killed"]
    assert [job.job.attempt for job in active] == [1, 3, 1]  # with 2 restarts, the last


def begun(submitted, *names):
    """Let a Slurm job report that the runs of some experiments have begun, and none has ended."""
    report(*submitted)
    path = submitted[0].aux[executor.REPORT]
    runs = {f"{name}/seed1": {} for name in names}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"runs": runs}))


def test_what_had_not_begun_when_its_job_was_killed_uses_up_no_retry(programs, tmp_path):
    fake = fake_executor(programs, tmp_path, answer(_7="FAILED"))
    active = pack(tmp_path, fake, "first", "second")
    begun(active, "first")
    for _ in range(12):
        check(fake.made, active)
    assert fake.again == ["second"] * 12
    assert set(fake.reported) == {"first"}


def test_what_has_saved_a_checkpoint_since_uses_up_no_retry(programs, tmp_path):
    fake = fake_executor(programs, tmp_path, answer(_7="FAILED"))
    (run,) = pack(tmp_path, fake, "run")
    begun([run], "run")
    checkpoint = fake.made.study.layout.run("run", 1).checkpoint
    checkpoint.parent.mkdir(parents=True)
    for number in range(1, 13):
        fake.made.attempts[run.job].saved = fake.made.saved(run.job)  # as at its submission
        checkpoint.touch()
        os.utime(checkpoint, (number, number))
        check(fake.made, [run])
    assert fake.again == ["run"] * 12
    assert not fake.reported
    fake.made.attempts[run.job].saved = fake.made.saved(run.job)
    check(fake.made, [run])
    assert set(fake.reported) == {"run"}


def test_where_nothing_ever_begins_the_retries_are_used_up(programs, tmp_path):
    fake = fake_executor(programs, tmp_path, answer(_7="FAILED"))
    (run,) = pack(tmp_path, fake, "run")
    begun([run])
    for _ in range(executor.MAX_RESUBMISSIONS + 1):
        check(fake.made, [run])
    assert fake.again == ["run"] * executor.MAX_RESUBMISSIONS
    assert set(fake.reported) == {"run"}


def test_a_report_goes_when_the_log_beside_it_does(tmp_path):
    made = StudyExecutor.__new__(StudyExecutor)
    made.slurm_logdir = tmp_path
    report = json.dumps(asdict(JobReport("7", 0, "cpu1", "")))
    for name in ("8.log", "8.json", "7.json", "7of.json", "run.json"):
        (tmp_path / name).write_text(report if name[0] in "78" else "{}")
    (tmp_path / "9.json").write_text("{}")  # somebody else's
    made.remove_old_reports()
    left = {"8.log", "8.json", "7of.json", "run.json", "9.json"}
    assert {path.name for path in tmp_path.iterdir()} == left


@pytest.mark.parametrize(("done", "growth"), [(True, Growth()), (False, Growth(time=2))])
def test_what_is_left_when_the_time_is_up(programs, tmp_path, done, growth):
    """It goes on in another job. If nothing is done, one run is too long for its own time."""
    fake = fake_executor(programs, tmp_path, answer(_7="TIMEOUT"))
    active = pack(tmp_path, fake, "first", "second")
    report(*active, **({"first": 0} if done else {}))
    assert check(fake.made, active) == []
    assert fake.again == (["second"] if done else [])
    assert ("second" in fake.reported) is not done
    assert fake.made.attempts[active[1].job].growth == growth


@pytest.mark.parametrize(
    ("state", "status", "follows"),
    [
        ("COMPLETED", 0, "success"),
        ("FAILED", 0, "success"),
        ("FAILED", 1, "fails whenever it is tried"),
        ("CANCELLED", 143, "submitted again"),
        ("TIMEOUT", 143, "submitted again"),
        ("TIMEOUT", None, "submitted"),
    ],
)
def test_what_follows_an_evaluation_right_after_its_training(
    programs, tmp_path, state, status, follows
):
    """It is not submitted for itself, unless the Slurm job of its training has ended before it."""
    fake = fake_executor(programs, tmp_path, answer(_7=state))
    (info,) = pack(tmp_path, fake, "first")
    evaluation = FakeJob(**vars(info.job) | {"name": "evaluate"})
    info.aux[executor.SLURM_JOB].evaluations[info.job] = evaluation
    report(info, first=0)
    content = json.loads((tmp_path / "7.json").read_text())
    if status is not None:
        cause = cause_of_status(status, 600).name if status else None
        content["runs"]["first/seed1"]["evaluate"] = {"status": status, "cause": cause}
    (tmp_path / "7.json").write_text(json.dumps(content))
    assert check(fake.made, [info]) == []
    assert fake.reported == {"first": "success"}
    fake.reported.clear()
    fake.made.dag = SimpleNamespace(needrun_jobs=lambda: [evaluation])
    fake.made.run_job_pre = lambda job: None
    submitted = []
    fake.made.gather = submitted.extend
    fake.made.run_jobs([evaluation])
    assert submitted == ([evaluation] if "submitted" in follows else [])
    assert ("submitted" in follows) or follows in fake.reported["first"]


def test_what_becomes_ready_one_after_the_other_is_one_pack(programs, tmp_path, monkeypatch):
    fake = fake_executor(programs, tmp_path, "")
    del fake.made.gather
    fake.made.study.runs_per_job = 9
    monkeypatch.setattr(executor, "GATHER", 0.2)
    submitted = []
    fake.made.slurm_jobs_of = lambda jobs: [SlurmJob(jobs)] if jobs else []
    fake.made.send = lambda slurm_job: submitted.append(slurm_job.jobs)
    with ThreadPoolExecutor(4) as fake.made._job_submission_executor:
        for number in range(4):
            fake.made.gather([number])
            time.sleep(0.05)
    assert submitted == [[0, 1, 2, 3]]


def test_jobs_that_cannot_be_submitted_for_an_unforeseen_reason_fail_with_it(programs, tmp_path):
    """Snakemake would wait for them forever."""
    fake = fake_executor(programs, tmp_path, "")
    first, second, third = (each.job for each in jobs(tmp_path, "1", "2", "3"))
    fake.made.ready = [first, second, third]
    fake.made.slurm_jobs_of = lambda jobs: [SlurmJob([job]) for job in jobs]
    failed = {}
    fake.made.report_job_error = lambda info, msg: failed.update({name_of(info.job): msg})

    def send(slurm_job):
        if slurm_job.jobs != [first]:
            raise KeyError("a key")

    fake.made.send = send
    fake.made.run_ready()
    assert failed == dict.fromkeys(("2/seed1", "3/seed1"), "KeyError: 'a key'\n")
    assert [first.attempt, second.attempt] == [1, 3]


def test_the_time_limit_of_a_job_is_the_one_that_is_submitted(programs, tmp_path):
    """It may ask for more than any partition gives, after an attempt that ran out of time."""
    fake = fake_executor(programs, tmp_path, "")
    fitting = SimpleNamespace(resources={"runtime": 1440})
    fake.made.sbatch = SimpleNamespace(fitting=lambda request, growth: (fitting, "long"))
    fake.made.slurm_logdir, fake.made.line = tmp_path, lambda *job, **how: "echo 7"
    fake.made.workflow.workdir_init = "."
    submitted, asked = [], []
    fake.made.report_job_submission = submitted.append
    (made,) = jobs(tmp_path, "1")
    made.job.jobid, made.job.resources = 1, {"runtime": 2880}
    made.job.is_group = lambda: False
    made.job.wildcards = Wildcards(fromdict={"experiment": "mlp", "seed": "1"})
    slurm_job = SlurmJob([made.job])
    slurm_job.script = lambda folder, logs, minutes, executor: asked.append(minutes) or "true"
    fake.made.send(slurm_job)
    assert (submitted[0].external_jobid, asked) == ("7", [1440])
    assert submitted[0].aux[executor.REPORT].name == "7.json"


def test_many_runs_ask_for_no_more_time_than_a_partition_gives(programs, tmp_path, caplog):
    fake = fake_executor(programs, tmp_path, "")
    runs = [
        FakeJob(name="train", threads=1, resources={"runtime": 30}, is_group=lambda: False)
        for _ in range(3)
    ]
    most = {"minutes": 60}
    fake.made.sbatch = SimpleNamespace(most_minutes=lambda request: most["minutes"])
    assert fake.made.within_limits(SlurmJob(runs)).resources["runtime"] == 60
    assert "3 runs in one job need up to 90 minutes, and no partition gives more" in caplog.text
    most["minutes"] = 20  # less than one run asks for: the check says so
    assert fake.made.within_limits(SlurmJob(runs)).resources["runtime"] == 90


FULL = "sbatch: error: AssocMaxSubmitJobLimit"
AWAY = "sbatch: error: Batch job submission failed: Unable to contact slurm controller"


@pytest.mark.parametrize("said", [FULL, *slurm.PASSING])
def test_a_submission_waits(programs, tmp_path, caplog, monkeypatch, said):
    fake = fake_executor(programs, tmp_path, "")
    gone = tmp_path / "gone"
    (tmp_path / "said").write_text(said)
    (tmp_path / "bin" / "sbatch").write_text(
        f"#!/bin/sh\n[ -e {gone} ] && echo 7 && exit\n"
        f"touch {gone}; cat {tmp_path / 'said'} >&2; exit 1\n"
    )
    monkeypatch.setattr(executor, "SUBMISSION_INTERVAL", 0.01)
    monkeypatch.setattr(slurm, "INTERVAL", 0.01)
    assert fake.made.submit("sbatch", "true") == "7\n"
    assert len(caplog.records) == 1


def test_a_submission_waits_for_slurmctld_no_longer_than_its_limit(programs, tmp_path, monkeypatch):
    fake = fake_executor(programs, tmp_path, "")
    (tmp_path / "bin" / "sbatch").write_text(f"#!/bin/sh\necho '{AWAY}' >&2; exit 1\n")
    monkeypatch.setattr(slurm, "PATIENCE", 0.05)
    monkeypatch.setattr(slurm, "INTERVAL", 0.02)
    with pytest.raises(UserError, match="Unable to contact slurm controller"):
        fake.made.submit("sbatch", "true")


def test_a_refusal_is_no_reason_to_wait(programs, tmp_path):
    fake = fake_executor(programs, tmp_path, "")
    refusal = "sbatch: error: Batch job submission failed: Invalid qos specification"
    (tmp_path / "bin" / "sbatch").write_text(f"#!/bin/sh\necho '{refusal}' >&2; exit 1\n")
    with pytest.raises(UserError, match="Invalid qos specification"):
        fake.made.submit("sbatch", "true")


def test_what_the_environment_asks_for_is_not_asked_for(programs, tmp_path, monkeypatch):
    """But the account, which sites say so: where the profile names none, it is charged."""
    for name in ("SBATCH_GRES", "SBATCH_TIMELIMIT", "SBATCH_QOS"):
        monkeypatch.setenv(name, "foo")
    monkeypatch.setenv("SLURM_ACCOUNT", "ours")
    fake = fake_executor(programs, tmp_path, "")
    (tmp_path / "bin" / "sbatch").write_text("#!/bin/sh\nenv | grep ^SBATCH_\n")
    assert fake.made.submit("sbatch", "true") == "SBATCH_ACCOUNT=ours\n"
    monkeypatch.setenv("SBATCH_ACCOUNT", "theirs")
    assert fake.made.submit("sbatch", "true") == "SBATCH_ACCOUNT=theirs\n"
    assert slurm.ignored_variables() == ["SBATCH_GRES", "SBATCH_QOS", "SBATCH_TIMELIMIT"]


def test_after_ctrl_c_no_submission_waits_and_none_is_made(programs, tmp_path):
    fake = fake_executor(programs, tmp_path, "")
    fake.made.cancel_jobs([])
    assert fake.made.submit("sbatch", "true") == ""
    assert fake.called() == ["scancel --name=a-run"]


def test_what_was_being_submitted_at_ctrl_c_is_canceled_too(programs, tmp_path, monkeypatch):
    fake = fake_executor(programs, tmp_path, "")
    monkeypatch.setattr(plugin.Executor, "shutdown", lambda self: None)
    fake.made.shutdown()
    assert fake.called() == []
    fake.made.cancel_jobs([])
    fake.made.shutdown()
    assert fake.called() == ["scancel --name=a-run"] * 2
