"""Why a job has ended, by Slurm's words and its own report. tests/slurm lets each happen."""

import json

import pytest

from lib.cluster import job_end
from lib.cluster.job_end import Cause, End, JobReport, Reporter

NOT_FOUND = "/bin/sh: 1: /home/me/project/.venv/bin/python: not found"
OVER = "slurmstepd: error: StepId=7.0 exceeded memory limit (1 > 0), being killed"
OOM = "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=7.batch"
LIMIT = (
    "slurmstepd: error: *** JOB 7 ON cpu1 CANCELLED AT 2026-01-02T03:04:05 DUE TO TIME LIMIT ***"
)
SCANCEL = "slurmstepd: error: *** JOB 7 ON cpu1 CANCELLED AT 2026-01-02T03:04:05 ***"
CHDIR = "slurmstepd: error: couldn't chdir to `/home/me/project': No such file or directory"
NOT_ENDED, NEVER_BEGAN = None, "never began"
# Slurm's state, its log, the exit status of the job's own commands; what is to follow.
ENDS = {
    "memory, cgroup": ("OUT_OF_MEMORY", OOM, NOT_ENDED, Cause.MEMORY),
    "memory, no cgroup": ("FAILED", OVER, 137, Cause.MEMORY),
    "memory, forgotten": ("", OOM, NOT_ENDED, Cause.MEMORY),
    "memory, of which a part of it was killed": ("OUT_OF_MEMORY", OOM, 1, Cause.MEMORY),
    "time": ("TIMEOUT", "", NOT_ENDED, Cause.TIME),
    "time, forgotten": ("", LIMIT, NOT_ENDED, Cause.TIME),
    "canceled": ("CANCELLED", SCANCEL, 143, Cause.EXTERNAL),
    "canceled, forgotten": ("", SCANCEL, NOT_ENDED, Cause.EXTERNAL),
    "canceled before it began": ("CANCELLED", "", NEVER_BEGAN, Cause.EXTERNAL),
    "node failed": ("NODE_FAIL", "", NOT_ENDED, Cause.EXTERNAL),
    "node did not boot": ("BOOT_FAIL", "", NEVER_BEGAN, Cause.NODE),
    "no environment": ("FAILED", NOT_FOUND, NEVER_BEGAN, Cause.NODE),
    "no environment, forgotten": ("", NOT_FOUND, NEVER_BEGAN, Cause.NODE),
    "no project": ("FAILED", CHDIR, NEVER_BEGAN, Cause.NODE),
    "full /tmp": ("FAILED", "No space left on device", NEVER_BEGAN, Cause.NODE),
    "no GPU": ("FAILED", "", 69, Cause.NODE),
    "no GPU, forgotten": ("", "", 69, Cause.NODE),
    "wrong": ("FAILED", "", 1, Cause.DETERMINISTIC),
    "too late": ("DEADLINE", "", NEVER_BEGAN, Cause.DETERMINISTIC),
    "file system": ("FAILED", "", 75, Cause.UNKNOWN),
    "killed": ("FAILED", "", 137, Cause.UNKNOWN),
    "asked to end": ("FAILED", "", 143, Cause.UNKNOWN),
    "full for the job": ("FAILED", "No space left on device", NOT_ENDED, Cause.UNKNOWN),
}


def end(tmp_path, state, slurm_log, status, seconds_left=600, **more):
    path = tmp_path / "7.log"
    path.write_text(slurm_log)
    began = status != NEVER_BEGAN
    status = status if began else None
    noted = None if status is None else job_end.cause_of_status(status, seconds_left)
    return End(state, path, path, began, status=status, noted=noted, **more)


@pytest.mark.parametrize("known", ENDS.values(), ids=ENDS.keys())
def test_the_cause(tmp_path, known):
    *said, cause = known
    assert job_end.cause_of(end(tmp_path, *said)) is cause


def test_a_job_without_any_log_could_not_begin(tmp_path):
    missing = End("FAILED", tmp_path / "7.log", tmp_path / "7.log", began=False)
    assert job_end.cause_of(missing) is Cause.NODE
    assert job_end.last_words(missing) == "it left no log"


@pytest.mark.parametrize(("seconds_left", "cause"), [(78, Cause.TIME), (480, Cause.UNKNOWN)])
@pytest.mark.parametrize("alone", [True, False])
def test_a_training_that_was_asked_to_end_shortly_before_its_limit(
    tmp_path, alone, seconds_left, cause
):
    """It saves a checkpoint and fails: Slurm does not call that a timeout."""
    stopped = end(tmp_path, "FAILED", "", 143, seconds_left, alone=alone)
    assert job_end.cause_of(stopped) is cause


def test_the_last_words_are_the_end_of_the_log(tmp_path):
    lines = [f"line {number}" for number in range(9)]
    said = end(tmp_path, "FAILED", "\n\n".join(lines) + "\n\n", 1)
    assert job_end.last_words(said) == "\n".join(lines[-5:])


# As above, but the Slurm job has worked on many runs.
PACK_ENDS = {
    "it has diverged": ("FAILED", "", 1, Cause.DETERMINISTIC),
    "it has diverged, others used too much": ("OUT_OF_MEMORY", OOM, 1, Cause.DETERMINISTIC),
    "it was killed, others have diverged": ("FAILED", "", 137, Cause.UNKNOWN),
    "it was killed for memory": ("OUT_OF_MEMORY", OOM, 137, Cause.MEMORY),
    "the time is up": ("TIMEOUT", LIMIT, 143, Cause.TIME),
    "the time is up before it has begun": ("TIMEOUT", LIMIT, NOT_ENDED, Cause.TIME),
    "canceled": ("CANCELLED", SCANCEL, NOT_ENDED, Cause.EXTERNAL),
    "the job could not begin": ("FAILED", NOT_FOUND, NEVER_BEGAN, Cause.NODE),
    "its node cannot run it": ("FAILED", "", 69, Cause.NODE),
}


@pytest.mark.parametrize("known", PACK_ENDS.values(), ids=PACK_ENDS.keys())
def test_the_cause_for_one_run_of_many(tmp_path, known):
    *said, cause = known
    assert job_end.cause_of(end(tmp_path, *said, alone=False)) is cause


@pytest.fixture
def path(tmp_path):
    return tmp_path / "7.json"


def begin(path, attempt=0, minutes=10.0):
    report = JobReport("7", attempt, "cpu1", job_end.now().isoformat())
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
