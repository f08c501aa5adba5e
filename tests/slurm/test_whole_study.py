"""A whole study as a user types it, on a cluster with accounting or without: check, run, status."""

import csv
import re
import shutil
from pathlib import Path

import pytest
from conftest import NO_ACCOUNTING, ROOT, SMALL_CONFIG
from slurm_project import SlurmProject, scenes

EXPERIMENTS = ("mlp", "cnn")


class WithoutData(SlurmProject):
    """A project as it was cloned."""

    def __init__(self, folder: Path):
        super().__init__(folder, data=False)


def whole_study(project: WithoutData):
    """Check the study of the small data set, and run it."""
    shutil.copy(project.folder / SMALL_CONFIG, project.folder / "slurm.yaml")
    if NO_ACCOUNTING.exists():
        key = "slurm-status-command: squeue"
        project.edit("profiles/slurm/config.yaml", f"# {key}", key)
    project.checked = project.show("check")
    project.log = project.slurm_run().stdout


pytestmark = scenes(whole_study)


@pytest.fixture
def study(stage):
    """The project after its study."""
    return stage(whole_study)[0]


def test_check_says_that_slurm_would_take_the_jobs(study):
    assert "Slurm would take the jobs of all 2 experiments" in study.checked


def test_the_results_are_those_of_a_run_without_slurm(study, finished_once):
    for experiment in EXPERIMENTS:
        for file in ("model.safetensors", "predictions.csv.gz", "accuracy.csv"):
            ours, others = (each.run_folder(experiment) / file for each in (study, finished_once))
            assert ours.read_bytes() == others.read_bytes()


def test_the_report_names_the_jobs(study):
    with (study.results / "report.csv").open() as file:
        rows = {row["experiment"]: row for row in csv.DictReader(file)}
    assert set(rows) == set(EXPERIMENTS)
    for experiment, row in rows.items():
        assert row["partition"] == "cpu"
        assert row["slurm_job_id"] == study.record(experiment)["slurm"]["job_id"]


def test_status_and_why_afterwards(study):
    lines = [line.split() for line in study.show("status").splitlines()]
    assert {tuple(line[:3]) for line in lines[1:]} >= {(each, "1", "done") for each in EXPERIMENTS}
    assert "This run is done" in study.show("status", "--why", "cnn/seed1")


def test_the_documented_question_to_the_queue_is_understood(study):
    (line,) = re.findall(r"^squeue .*", (ROOT / "docs/cluster.md").read_text(), re.MULTILINE)
    assert study.run("bash", "-c", line).stdout.split()[:2] == ["JOBID", "STATE"]


def test_resources_are_those_of_the_trainings(accounting, study):
    with (study.results / "resources.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["rule"] == "train"]
    assert {row["experiment"] for row in rows} == set(EXPERIMENTS)
    for row in rows:
        job_id = study.record(row["experiment"])["slurm"]["job_id"]
        assert row["slurm_job_id"] == job_id, study.log
        assert row["cpus_asked"] == "1"
        assert 200 < float(row["mem_used_mb"]) <= float(row["mem_asked_mb"])
