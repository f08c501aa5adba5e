"""What is read out of Slurm's words."""

import dataclasses

import pytest

import slurm_jobs
from slurm_jobs import Job

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
    assert slurm_jobs._megabytes(text) == megabytes


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("00:05:00", 300), ("1-02:03:04", 93784), ("04:05.678", 245.678), ("UNLIMITED", 0), ("", 0)],
)
def test_time(text, seconds):
    assert slurm_jobs.slurm_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("comment", "names"),
    [
        ("rule_train_wildcards_cnn_1", ("train", "cnn", 1)),
        ("rule_evaluate_wildcards_my_mlp_64_12", ("evaluate", "my_mlp_64", 12)),
        ("rule_train_wildcards_a_wildcards_b_3", ("train", "a_wildcards_b", 3)),
    ],
)
def test_names(comment, names):
    assert tuple(slurm_jobs._names(comment).values()) == names


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
