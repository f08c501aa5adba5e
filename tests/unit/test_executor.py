"""The executor for Slurm, as far as it can be tested without one. tests/slurm has the rest."""

import logging
import re
import threading
import time
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest
import snakemake_executor_plugin_slurm as plugin
from conftest import ROOT
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

from lib.cluster import executor
from lib.cluster.executor import QueueWatch, Slurmctld, StudyExecutor


def programs(tmp_path, monkeypatch, **scripts):
    """Put shell scripts on the PATH, alone; each logs its call. Return what was called."""
    folder, log = tmp_path / "bin", tmp_path / "calls"
    folder.mkdir()
    log.touch()
    for name, script in scripts.items():
        (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {log}\n{script}\n')
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return lambda: log.read_text().splitlines()


def test_the_names_are_those_of_the_installed_versions():
    executor.check_names()


def test_a_name_that_is_gone_or_changed_ends_the_run_with_the_versions(monkeypatch):
    monkeypatch.delattr(plugin.job_status_query, "query_job_status")
    monkeypatch.setattr(plugin.Executor, "run_job", lambda self, job, more: None)
    with pytest.raises(WorkflowError) as error:
        StudyExecutor(None, None)
    message = str(error.value)
    assert "was written for snakemake 9.27.1 with snakemake-executor-plugin-slurm 2.8.0" in message
    assert "job_status_query.query_job_status(command, logger)" in message
    assert "Executor.run_job(self, job)" in message
    assert "cancel_jobs" not in message


def test_the_versions_are_those_that_are_pinned():
    pins = (ROOT / "pyproject.toml").read_text()
    for name, version in re.findall(r"([a-z-]+) ([\d.]+)", executor.WRITTEN_FOR):
        assert f'"{name}=={version}"' in pins


def test_it_is_what_the_name_slurm_stands_for(monkeypatch):
    registered = ExecutorPluginRegistry().get_plugin("slurm")
    monkeypatch.setattr(registered, "executor", plugin.Executor)
    executor.register(study="a study")
    assert registered.executor is StudyExecutor
    assert issubclass(StudyExecutor, plugin.Executor)


HELD = 'echo "7|launch failed requeued held"; echo "8|JobHeldUser"; echo "9|Priority"'


@pytest.fixture
def queue(tmp_path, monkeypatch):
    called = programs(tmp_path, monkeypatch, squeue=HELD, scontrol="")
    return QueueWatch("a-run", logging.getLogger("test")), called


def test_nothing_is_asked_about_jobs_that_wait_and_run(queue):
    watch, called = queue
    for states in ({}, {"1": "PENDING"}, {"1": "RUNNING", "2": "PENDING"}, {"1": "COMPLETED"}):
        watch.restart_stuck_jobs(states)
    assert called() == []


@pytest.mark.parametrize("before", [{"7": "RUNNING"}, {"7": "REQUEUED"}, {"7": "NODE_FAIL"}])
def test_a_job_that_is_back_in_the_queue_is_looked_at_once(queue, before):
    watch, called = queue
    watch.restart_stuck_jobs(before | {"1": "PENDING"})
    for _ in range(3):
        watch.restart_stuck_jobs({"7": "PENDING", "1": "PENDING"})
    asked = [call for call in called() if call.startswith("squeue")]
    assert asked[-1].split()[1:3] == ["--name=a-run", "--states=PENDING"]
    assert len(asked) == 1 + (before == {"7": "REQUEUED"})
    assert "scontrol release 7" in called()
    assert not any("release 8" in call or "release 9" in call for call in called())


def test_a_preempted_job_is_requeued(tmp_path, monkeypatch):
    called = programs(tmp_path, monkeypatch, squeue="exit 1", scontrol="")
    watch = QueueWatch("a-run", logging.getLogger("test"))
    watch.restart_stuck_jobs({"3": "PREEMPTED", "4": "RUNNING"})
    assert called() == ["squeue --jobs=3 --noheader --format=%T", "scontrol requeue 3"]


@pytest.mark.parametrize("state", ["RUNNING", "PENDING"])
def test_a_preempted_job_that_is_back_already_is_left_alone(tmp_path, monkeypatch, state):
    """Accounting may be behind, and a requeue would end the job that runs again."""
    called = programs(tmp_path, monkeypatch, squeue=f"echo {state}", scontrol="")
    watch = QueueWatch("a-run", logging.getLogger("test"))
    watch.restart_stuck_jobs({"3": "PREEMPTED"})
    assert not any(call.startswith("scontrol") for call in called())


def test_a_long_wait_is_looked_at_ever_more_rarely(queue, monkeypatch):
    watch, called = queue
    now = time.monotonic()
    looks = []
    for minute in range(61):
        monkeypatch.setattr(executor.time, "monotonic", lambda m=minute: now + 60 * m)
        watch.restart_stuck_jobs({"1": "PENDING"})
        if len([c for c in called() if c.startswith("squeue")]) > len(looks):
            looks.append(minute)
    assert looks == [5, 10, 20, 40]


def fake_executor(monkeypatch, states, **settings):
    """Return an executor without Slurm, what it reports, and the states that its queries see."""

    async def query(command, logger):
        return states.pop(0), 0.0

    monkeypatch.setattr(executor.job_status_query, "query_job_status", query)
    monkeypatch.setattr(executor.QueueWatch, "restart_stuck_jobs", lambda self, states: None)
    made = StudyExecutor.__new__(StudyExecutor)
    made.workflow = SimpleNamespace(
        executor_settings=SimpleNamespace(
            **{"status_attempts": 3, "requeue": True, "keep_successful_logs": False} | settings
        )
    )
    made.logger, made.status_command, made.failed_queries = None, "sacct --name a-run", 0
    made.queue = QueueWatch("a-run", None)
    made.status_rate_limiter = Unlimited()
    reported = {}
    made.report_job_success = lambda job: reported.update({job.external_jobid: "success"})
    made.report_job_error = lambda job, msg, aux_logs: reported.update({job.external_jobid: msg})
    return made, reported


class Unlimited:
    async def __aenter__(self):
        pass

    async def __aexit__(self, *_):
        pass


def jobs(tmp_path, *ids):
    log = tmp_path / "slurm.log"
    log.touch()
    return [SimpleNamespace(external_jobid=i, aux={"slurm_logfile": log}) for i in ids]


def check(made, active):
    import asyncio

    async def still_active():
        return [job.external_jobid async for job in made.check_active_jobs(active)]

    return asyncio.run(still_active())


def test_each_state_is_reported_or_waited_for(tmp_path, monkeypatch):
    states = {
        "1": "COMPLETED", "2": "RUNNING", "3": "PENDING", "4": "CANCELLED by 1000",
        "5": "OUT_OF_MEMORY", "6": "NODE_FAIL", "7": "PREEMPTED", "9": "FAILED", "other": "FAILED",
    }  # fmt: skip
    made, reported = fake_executor(monkeypatch, [states])
    active = check(made, jobs(tmp_path, *"12345678"))
    assert active == ["2", "3", "6", "7", "8"]  # 8 is not known to sacct yet
    assert reported.keys() == {"1", "4", "5"}
    assert reported["1"] == "success"
    assert "its state is CANCELLED" in reported["4"]
    assert "its state is OUT_OF_MEMORY" in reported["5"]
    assert not (tmp_path / "slurm.log").exists()  # of the job that succeeded


def test_a_log_that_cannot_be_removed_ends_nothing(tmp_path, monkeypatch):
    made, reported = fake_executor(monkeypatch, [{"1": "COMPLETED", "2": "RUNNING"}])
    active = jobs(tmp_path, "1", "2")
    active[0].aux["slurm_logfile"] = tmp_path  # a folder, which unlink refuses
    assert check(made, active) == ["2"]
    assert reported == {"1": "success"}


def test_without_requeue_a_node_failure_is_an_error(tmp_path, monkeypatch):
    made, reported = fake_executor(
        monkeypatch, [{"6": "NODE_FAIL"}], requeue=False, keep_successful_logs=True
    )
    assert check(made, jobs(tmp_path, "6")) == []
    assert "its state is NODE_FAIL" in reported["6"]


def test_queries_that_fail_lose_no_job_and_end_the_run_after_some(tmp_path, monkeypatch):
    answers = [None, None, {"1": "RUNNING"}, None, None, None]
    made, reported = fake_executor(monkeypatch, answers)
    for _ in range(5):
        assert check(made, jobs(tmp_path, "1")) == ["1"]
    with pytest.raises(WorkflowError, match="the last 3 status queries have failed: sacct"):
        check(made, jobs(tmp_path, "1"))
    assert reported == {}


def test_without_jobs_nothing_is_asked(tmp_path, monkeypatch):
    made, _ = fake_executor(monkeypatch, [])
    assert check(made, []) == []


def test_a_submission_waits_for_slurmctld(tmp_path, monkeypatch):
    away = tmp_path / "away"
    away.touch()
    script = f'if [ -e {away} ]; then echo "Slurmctld is DOWN"; exit 1; fi; echo "it is UP"'
    called = programs(tmp_path, monkeypatch, scontrol=script)
    said = []
    slurmctld = Slurmctld(
        SimpleNamespace(warning=said.append, error=said.append),
        SimpleNamespace(wait=lambda seconds: away.unlink(missing_ok=True)),
    )
    slurmctld.wait_for_answer()
    assert called() == ["scontrol ping"] * 2
    assert said == ["slurmctld does not answer: submissions wait for it, up to 300 s"]
    for _ in range(10):
        slurmctld.wait_for_answer()  # an answer counts for some seconds
    assert len(called()) == 2


def test_a_submission_waits_no_longer_than_its_limit(tmp_path, monkeypatch):
    called = programs(tmp_path, monkeypatch, scontrol="exit 1")
    now, said = [time.monotonic()], []
    monkeypatch.setattr(executor.time, "monotonic", lambda: now[0])
    slurmctld = Slurmctld(
        SimpleNamespace(warning=said.append, error=said.append),
        SimpleNamespace(wait=lambda seconds: now.append(now.pop() + 60)),
    )
    slurmctld.wait_for_answer()
    assert len(called()) == 7
    assert said[0].startswith("slurmctld does not answer")
    assert said[1:] == ["slurmctld has not answered for 360 s"]
    slurmctld.wait_for_answer()  # the limit is one for all submissions
    assert len(called()) == 8


def test_after_ctrl_c_no_submission_waits_and_none_is_made(tmp_path, monkeypatch):
    programs(tmp_path, monkeypatch, scontrol="exit 1")
    made, submitted = StudyExecutor.__new__(StudyExecutor), []
    made.run_uuid, made.logger = "a-run", SimpleNamespace(warning=lambda text: None, error=print)
    made.canceled = threading.Event()
    made.slurmctld = Slurmctld(made.logger, made.canceled)
    monkeypatch.setattr(plugin.Executor, "run_job", lambda self, job: submitted.append(job))
    monkeypatch.setattr(executor, "cancel", lambda run_id, logger: None)
    made.cancel_jobs([])
    start = time.monotonic()
    made.run_job("a job")
    assert time.monotonic() - start < 3
    assert submitted == []


def test_what_was_being_submitted_at_ctrl_c_is_canceled_too(monkeypatch):
    made, done = StudyExecutor.__new__(StudyExecutor), []
    made.run_uuid, made.logger, made.canceled = "a-run", None, threading.Event()
    monkeypatch.setattr(plugin.Executor, "shutdown", lambda self: done.append("drained"))
    monkeypatch.setattr(executor, "cancel", lambda run_id, logger: done.append(run_id))
    made.shutdown()
    assert done == ["drained"]
    made.cancel_jobs([])
    made.shutdown()
    assert done == ["drained", "a-run", "drained", "a-run"]


def test_a_task_of_an_array_may_be_known_by_its_array():
    states = {"7": "RUNNING", "8_1": "COMPLETED", "9": "CANCELLED by 0"}
    found = {job: executor.state_of(job, states) for job in ("7_3", "8_1", "9", "10", "10_1")}
    assert found == {
        "7_3": "RUNNING", "8_1": "COMPLETED", "9": "CANCELLED", "10": None, "10_1": None
    }  # fmt: skip


@pytest.mark.parametrize(
    ("wish", "sacct", "age", "command"),
    [
        ("sacct", True, 300, "sacct"),
        ("squeue", True, 300, "squeue"),
        ("squeue", True, 5, "sacct"),  # slurmctld would forget a job before it is asked about
        ("squeue", False, 5, "squeue"),
        ("sacct", False, 300, "squeue"),
    ],
)
def test_the_status_command(tmp_path, monkeypatch, wish, sacct, age, command):
    tools = {"scontrol": f'echo "MinJobAge = {age} sec"'} | ({"sacct": ""} if sacct else {})
    programs(tmp_path, monkeypatch, **tools)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    settings = SimpleNamespace(status_command=wish, init_seconds_before_status_checks=5)
    asked = executor.status_command(settings, "a-run")
    assert asked.split()[0] == command
    if command == "sacct":  # it looks back to the start of the run, not for days
        since = datetime.fromisoformat(re.search(r"--starttime (\S+)", asked)[1])
        assert datetime.now() - since < timedelta(minutes=11)


def test_the_module_asks_for_no_other_private_name():
    """Names that begin with an underscore are its own."""
    text = (ROOT / "scripts/lib/cluster/executor.py").read_text()
    assert set(re.findall(r"\.(_[a-z]\w+)", text)) <= {"_is_back", "_is_overdue"}
