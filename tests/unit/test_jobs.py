"""What is read out of Slurm's words."""

import dataclasses
from types import SimpleNamespace

import pytest

from lib.cluster import jobs
from lib.cluster.jobs import Job
from lib.core.layout import Layout

KILLED = Job(
    job_id="7",
    rule="train",
    experiment="cnn",
    seed=1,
    state="FAILED",
    exit_code="1:0",
    partition="cpu",
    node="n1",
    submit="2026-01-31T23:59:50",
    start="2026-02-01T00:00:20",
    elapsed_seconds=100,
    limit_minutes=15,
    cpus=2,
    mem_asked_mb=800.0,
    mem_used_mb=801.5,
    cpu_seconds=50.0,
    reason="None",
)


@pytest.mark.parametrize(
    ("text", "megabytes"),
    [("3072M", 3072), ("1.5G", 1536), ("512K", 0.5), ("2Gn", 2048), ("1000Mc", 1000), ("", None)],
)
def test_memory(text, megabytes):
    assert jobs._megabytes(text) == megabytes


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("00:05:00", 300), ("1-02:03:04", 93784), ("04:05.678", 245.678), ("UNLIMITED", 0), ("", 0)],
)
def test_time(text, seconds):
    assert jobs.slurm_seconds(text) == pytest.approx(seconds)


def test_submissions_are_remembered_by_experiment_and_seed(tmp_path):
    files = Layout(tmp_path)
    for number, wildcards in enumerate([{"experiment": "my,mlp", "seed": "12"}, {}]):
        job = SimpleNamespace(name="train", wildcards=wildcards)
        jobs.record_submission(files, str(7 + number), "a-run", job)
    rows = jobs._submissions(files)
    assert list(rows) == ["7", "8"]
    assert (rows["7"]["experiment"], rows["7"]["seed"]) == ("my,mlp", "12")
    assert rows["8"]["slurm_job_name"] == "a-run"


def test_a_row_that_is_cut_off_is_left_out(tmp_path):
    files = Layout(tmp_path)
    for number in ("7", "8"):
        job = SimpleNamespace(name="train", wildcards={"experiment": "cnn", "seed": "1"})
        jobs.record_submission(files, number, "a-run", job)
    files.submissions.write_text(files.submissions.read_text()[:-12])
    assert list(jobs._submissions(files)) == ["7"]


def test_a_study_without_submissions_asks_slurm_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert jobs.jobs(Layout(tmp_path)) == []


def test_a_kill_for_memory_is_told_from_another_kill():
    assert KILLED.out_of_memory
    assert KILLED.cause == "it used more memory than it asked for"
    for change in ({"mem_used_mb": 500.0}, {"mem_used_mb": None}, {"mem_asked_mb": None}):
        other = dataclasses.replace(KILLED, **change)
        assert not other.out_of_memory
        assert "its log says why" in other.cause
    with_cgroups = dataclasses.replace(KILLED, state="OUT_OF_MEMORY", mem_used_mb=700.0)
    assert with_cgroups.out_of_memory


def test_efficiency_and_wait():
    assert KILLED.cpu_efficiency == 0.25
    assert KILLED.queue_seconds == 30
    assert dataclasses.replace(KILLED, start="Unknown").queue_seconds is None
    assert dataclasses.replace(KILLED, elapsed_seconds=0).cpu_efficiency is None


GARBAGE = {
    "binary": b"\xff\xfe\x00\n",
    "nul": b"7,train,cnn,1,2026-01-31T00:00:00,a\0run\n",
    "no date": b"7,train,cnn,1,yesterday,a-run\n",
    "early date": b"7,train,cnn,1,0001-01-01,a-run\n",
    "zone": b"7,train,cnn,1,2026-01-31T00:00:00+01:00,a-run\n",
    "no seed": b"7,train,cnn,x,2026-01-31T00:00:00,a-run\n",
    "no number": b"x;y,train,cnn,1,2026-01-31T00:00:00,a-run\n",
    "more": b"7,train,cnn,1,2026-01-31T00:00:00,a-run,and,more\n",
    "long": b"7," + b"x" * 200_000 + b"\n",
    "quote": b'7,"train\n',
}


@pytest.mark.parametrize("line", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.parametrize("first", [True, False])
def test_a_row_that_is_none_is_left_out(tmp_path, line, first):
    files = Layout(tmp_path)
    job = SimpleNamespace(name="train", wildcards={"experiment": "cnn", "seed": "1"})
    jobs.record_submission(files, "8", "a-run", job)
    good = files.submissions.read_bytes()
    files.submissions.write_bytes(line + good if first else good + line)
    assert list(jobs._submissions(files)) == ["8"]
    jobs.jobs(files)


def test_a_line_of_slurm_that_is_no_row_is_left_out(monkeypatch):
    row = "8|RUNNING|0:0|cpu|n1|t|t|5|15|1|800M|0||None"
    monkeypatch.setattr(jobs, "_output", lambda *_: f"sacct: warning\n\n||||\n{row}\n")
    found = jobs._from_sacct(
        "a-run", "now", {"8": {"rule": "train", "experiment": "cnn", "seed": ""}}
    )
    assert [job.state for job in found.values()] == ["RUNNING"]
