"""The profile: which one a run has, and which key a value comes from."""

import sys
from types import SimpleNamespace

import pytest

from lib.cluster.profile import Profile

PROFILE = """
slurm-qos: big
default-resources: {slurm_account: "'ours'", mem_mb: 0, qos: small}
set-resources: {train: {constraint: fast}}
"""
JOB = SimpleNamespace(name="train", wildcards={"experiment": "cnn"}, resources={"license": "x"})


@pytest.fixture
def folder(tmp_path):
    """The folder of a profile, of which Snakemake does not read the older file."""
    (tmp_path / "config.yaml").write_text("jobs: 1")
    (tmp_path / "config.v9+.yaml").write_text(PROFILE)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "variable", "partitions"),
    [
        ("--cores 1 --profile {} --quiet", "", None),
        ("--profile=/nosuch --profile={}", "", None),
        ("-n", "{}", None),
        ("-n", "", "{}/partitions.yaml"),
    ],
)
def test_the_profile_of_a_run(folder, monkeypatch, words, variable, partitions):
    monkeypatch.setattr(sys, "argv", ["snakemake", *words.format(folder).split()])
    monkeypatch.setenv("SNAKEMAKE_PROFILE", variable.format(folder))
    found = Profile.of_this_run(partitions and partitions.format(folder))
    assert found.file == folder / "config.v9+.yaml"


def test_no_profile(tmp_path):
    none = Profile.read(tmp_path)
    assert none.partitions == {}
    assert none.for_all_jobs("qos") == ""
    assert none.origin(JOB, ["qos"]) == "the profile/config.yaml: qos"


def test_what_all_jobs_ask_for(folder):
    profile = Profile.read(folder)
    names = ("qos", "slurm_account", "mem_mb", "constraint")
    assert [profile.for_all_jobs(name) for name in names] == ["big", "ours", "0", ""]


@pytest.mark.parametrize(
    ("names", "origin"),
    [
        (["qos"], "slurm-qos"),
        (["constraint"], "set-resources: train: constraint"),
        (["slurm_account"], "default-resources: slurm_account"),
        (["license"], "default-resources: license"),
        (["gpu_model", "gpu"], "gpu_model or gpu"),
    ],
)
def test_the_key_of_a_value(folder, names, origin):
    profile = Profile.read(folder)
    assert profile.origin(JOB, names) == f"{profile.file}: {origin}"


def test_the_key_of_a_value_outside_of_config_yaml(folder):
    profile = Profile.read(folder)
    assert profile.origin(JOB, ["mem_mb", "cpus"]) == "config: experiments.cnn.mem_mb and cpus"
    assert profile.origin(JOB, ["slurm_partition"]) == str(folder / "partitions.yaml")
    evaluation = SimpleNamespace(**vars(JOB) | {"name": "evaluate"})  # whose time is the rule's
    key = f"{profile.file}: set-resources: evaluate: runtime"
    assert profile.origin(evaluation, ["runtime"]) == key
