"""When Slurm is asked: rarely, and soon after a job's own files say that it has ended."""

import logging
import os
from types import SimpleNamespace

import pytest

from lib.cluster import polling
from lib.cluster.polling import Polling, Status


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(time=1000.0)
    monkeypatch.setattr(polling.time, "monotonic", lambda: now.time)
    return now


@pytest.fixture
def job(tmp_path):
    """A job that was submitted while an earlier one's files were there."""
    (tmp_path / "out").write_text("old")
    (tmp_path / "log").write_text("exit status 137\n")
    made = SimpleNamespace(output=[tmp_path / "out"], log=[tmp_path / "log"])
    aux = {polling.FILES_BEFORE: polling.signatures(made)}
    return SimpleNamespace(job=made, external_jobid="7", aux=aux, folder=tmp_path)


def asked_at(clock, job, seconds, act=lambda second: None):
    """Return the seconds at which Slurm is asked, of one look every 5; before it, act."""
    poll, start, asked = Polling(30), clock.time, []
    for second in range(0, seconds, 5):
        clock.time = start + second
        if poll.is_due([job]):
            asked.append(second)
        act(second)
    return asked


def test_while_nothing_ends_it_is_asked_twice_a_minute(clock, job):
    assert asked_at(clock, job, 200) == [30, 60, 90, 120, 150, 180]


@pytest.mark.parametrize("file", ["out", "log"])
def test_after_a_job_has_written_its_last_file_it_is_asked_soon(clock, job, file):
    def write(second):
        if second == 40:
            (job.folder / file).write_text("new\nexit status 1\n")

    # In case that Slurm is behind, some times; if it never agrees, as rarely as before.
    asked = [30, 45, 55, 65, 75, 85, 95, 125, 155, 185]
    assert asked_at(clock, job, 200, write) == asked


def test_a_log_that_grows_is_no_end(clock, job):
    def write(second):
        (job.folder / "log").write_text(f"epoch {second}\n")

    assert asked_at(clock, job, 100, write) == [30, 60, 90]


def test_what_was_there_before_is_no_end(job):
    assert not polling.has_ended(job.job, job.aux[polling.FILES_BEFORE])
    os.utime(job.folder / "out", (1, 1))
    assert polling.has_ended(job.job, job.aux[polling.FILES_BEFORE])


def test_a_status_query_is_read_line_by_line(programs):
    programs(sacct="echo '7|CANCELLED by 1000|cpu1|0:15'; echo '8_1|RUNNING|cpu2|'; echo '9|'")
    found = polling.query(["sacct"])
    assert found == {"7": Status("CANCELLED", "cpu1", "0:15"), "8_1": Status("RUNNING", "cpu2", "")}
    assert polling.query(["nosuch"]) is None


def test_a_task_of_an_array_may_be_known_by_its_array():
    states = {"7": "RUNNING", "8_1": "COMPLETED"}
    found = {job: polling.status_of(job, states) for job in ("7_3", "8_1", "10", "10_1")}
    assert found == {"7_3": "RUNNING", "8_1": "COMPLETED", "10": None, "10_1": None}


@pytest.mark.parametrize(
    ("wish", "sacct", "command"),
    [
        ("sacct", "", "sacct"),
        ("squeue", "", "squeue"),
        ("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1", "squeue"),
        ("sacct", None, "squeue"),
    ],
)
def test_the_status_command_is_one_that_works(programs, caplog, wish, sacct, command):
    programs(**({} if sacct is None else {"sacct": sacct}), path=False)
    chosen = polling.choose(wish, "a-run", logging.getLogger("test"))
    assert chosen[0] == command
    assert ("no accounting here (sacct: " in caplog.text) == (wish != command)
