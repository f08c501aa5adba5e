"""What a Slurm job says of itself, and what is read of it."""

import json

import pytest

from lib.cluster import job_report
from lib.cluster.causes import Cause
from lib.cluster.job_report import JobReport, Reporter


@pytest.fixture
def path(tmp_path):
    return tmp_path / "7.json"


def begin(path, attempt=0, minutes=10.0):
    report = JobReport("7", attempt, "cpu1", job_report.now().isoformat())
    return Reporter(path, report, minutes)


def test_it_says_what_has_ended_and_why(path):
    reporter = begin(path)
    assert JobReport.read(path).runs == {}
    reporter.began("mlp/seed1", "train")
    report = JobReport.read(path)
    assert (report.job_id, report.attempt, report.host) == ("7", 0, "cpu1")
    assert report.runs == {"mlp/seed1": {}}
    assert report.status("mlp/seed1", "train") is None
    reporter.ended("mlp/seed1", "train", 0)
    reporter.began("mlp/seed1", "evaluate")
    reporter.ended("mlp/seed1", "evaluate", 1)
    report = JobReport.read(path)
    assert report.status("mlp/seed1", "train") == 0
    assert report.status("mlp/seed1", "evaluate") == 1
    assert report.cause("mlp/seed1", "evaluate") is Cause.DETERMINISTIC
    assert report.cause("mlp/seed2", "train") is None
    assert report.ended is None
    assert report.cause("mlp/seed1", "train") is None
    reporter.began("mlp/seed1", "evaluate")  # once more: nothing is known of its end
    assert JobReport.read(path).cause("mlp/seed1", "evaluate") is None
    reporter.end()
    assert JobReport.read(path).ended is not None


@pytest.mark.parametrize(("minutes", "cause"), [(1.0, Cause.TIME), (10.0, Cause.UNKNOWN)])
def test_a_run_that_was_stopped_shortly_before_the_limit_was_out_of_time(path, minutes, cause):
    reporter = begin(path, minutes=minutes)
    reporter.ended("mlp/seed1", "train", 143)
    assert JobReport.read(path).cause("mlp/seed1", "train") is cause


def test_a_job_that_goes_on_where_it_was_taken_for_lost_says_no_more(path):
    lost = begin(path)
    again = begin(path, attempt=1)
    lost.ended("mlp/seed1", "train", 1)
    lost.end()
    report = JobReport.read(path)
    assert (report.attempt, report.runs, report.ended) == (1, {}, None)
    again.began("mlp/seed1", "train")
    assert JobReport.read(path).runs == {"mlp/seed1": {}}


def test_what_another_job_of_that_number_has_left_is_replaced(path):
    begin(path, attempt=3).end()
    assert JobReport.read(path).ended
    begin(path)
    assert JobReport.read(path).attempt == 0


@pytest.mark.parametrize(
    "runs",
    [{"mlp/seed1": []}, {"mlp/seed1": {"train": {"status": "1"}}}, {"mlp/seed1": {"train": 1}}],
)
def test_what_is_damaged_says_nothing(path, runs):
    begin(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"runs": runs}))
    assert JobReport.read(path).status("mlp/seed1", "train") is None
    path.write_text("{")
    assert JobReport.read(path) is None
