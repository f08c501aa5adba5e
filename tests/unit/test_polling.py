"""When Slurm is asked: rarely, and soon after a job has reported that it has ended."""

import json
import logging
from dataclasses import asdict
from types import SimpleNamespace

import pytest

from lib.cluster import polling
from lib.cluster.job_end import JobReport
from lib.cluster.polling import Polling, Status
from lib.core.files import replace_text


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(time=1000.0)
    monkeypatch.setattr(polling.time, "monotonic", lambda: now.time)
    return now


@pytest.fixture
def report(tmp_path):
    """The report of a job that has been started again."""
    path = tmp_path / "7.json"
    write(path, attempt=1)
    return path


def write(path, **known):
    replace_text(path, json.dumps(asdict(JobReport("7", **{"host": "", "began": ""} | known))))


def asked_at(clock, report, seconds, act=lambda second: None):
    """Return the seconds at which Slurm is asked, of one look every 5; before it, act."""
    poll, start, asked = Polling(30), clock.time, []
    for second in range(0, seconds, 5):
        clock.time = start + second
        if poll.is_due([report]):
            asked.append(second)
        act(second)
    return asked


def test_while_nothing_ends_it_is_asked_twice_a_minute(clock, report):
    assert asked_at(clock, report, 200) == [30, 60, 90, 120, 150, 180]
    assert asked_at(clock, report.with_name("none"), 100) == [30, 60, 90]


def test_after_a_job_has_reported_its_end_it_is_asked_soon(clock, report):
    def end(second):
        if second == 40:
            write(report, attempt=1, ended="2026-01-02T03:04:05")

    # In case that Slurm is behind, some times; if it never agrees, as rarely as before.
    asked = [30, 45, 55, 65, 75, 85, 95, 125, 155, 185]
    assert asked_at(clock, report, 200, end) == asked


def test_each_end_of_a_job_that_is_started_again_counts(clock, report):
    def end_twice(second):
        if second in (40, 120):
            write(report, attempt=second // 100, ended=f"2026-01-02T03:04:{second % 60}")
        if second == 45:
            write(report, attempt=1)

    assert asked_at(clock, report, 160, end_twice) == [30, 45, 75, 105, 125, 135, 145, 155]


def test_a_status_query_is_read_line_by_line(programs):
    programs(sacct="echo '7|CANCELLED by 1000|cpu1'; echo '8_1|RUNNING|cpu2'; echo '9|'")
    found = polling.query(["sacct"])
    assert found == {"7": Status("CANCELLED", "cpu1"), "8_1": Status("RUNNING", "cpu2")}
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
