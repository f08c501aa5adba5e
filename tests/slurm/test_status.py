"""A job that waits: what `status` shows of it, and what a run does about one that is stuck."""

from pathlib import Path

import pytest
from conftest import cluster, fresh_project
from slurm_project import SlurmProject, wait_for

import beginning
import slurm_jobs


@pytest.fixture
def project(slurm, tmp_path):
    project = SlurmProject(fresh_project(tmp_path / "project").folder)
    project.configure("cnn: {model: {name: CNN}}")
    project.job = submit(project, "--hold")
    yield project
    project.run("scancel", project.job)


def submit(project, *options) -> str:
    options += ("--time=15", "--mem=3G", "--comment=rule_train_wildcards_cnn_1")
    options += ("--parsable", "--output=/dev/null", "--wrap", "sleep 600")
    return project.run("sbatch", *options).stdout.strip()


def shown(project) -> list[str]:
    header, line = project.show("status").splitlines()
    assert header.split()[:4] == ["experiment", "seed", "state", "job"]
    return line.split()


def test_a_waiting_job_and_its_reason(project):
    wait_for(lambda: "PENDING" in shown(project), 30, "sacct to know the job")
    assert "JobHeldUser" in shown(project)
    assert "it waits in the queue (JobHeldUser)" in project.show("status", "--why", "cnn/seed1")


def test_without_accounting_squeue_is_asked(project):
    assert cluster("stop", "slurmdbd").returncode == 0
    try:
        words = shown(project)
        why = project.show("status", "--why", "cnn/seed1")
    finally:
        assert cluster("start", "slurmdbd").returncode == 0
    assert {"PENDING", "cpu", "0:15:00", "0/3", "JobHeldUser"} <= set(words)
    assert "time 0:00:00 of 0:15:00, memory unknown of 3072 MB, 1 cores" in why
    assert "Wait, or stop it: scancel " in why


def test_a_job_that_a_broken_node_could_not_start_is_released(project):
    starter = Path("/var/lib/slurm-throwaway/slurmstepd")
    starter.chmod(0o644)
    try:
        job = submit(project, "--nodelist=cpu2")
        command = ("squeue", "--noheader", f"--jobs={job}", "--format=%r")
        wait_for(lambda: "held" in project.run(*command).stdout, 30, "the start to fail")
    finally:
        starter.chmod(0o755)
        project.run("scontrol", "update", "nodename=cpu2", "state=resume", check=False)
    for each in slurm_jobs.jobs(project.folder):
        beginning.bring_back(each)
    found = {each.job_id: each for each in slurm_jobs.jobs(project.folder)}
    assert found[project.job].reason == "JobHeldUser"  # its owner's wish
    assert found[job].reason != beginning.HELD
    wait_for(lambda: "RUNNING" in project.run("squeue", f"--jobs={job}", "--format=%T").stdout, 60)
    project.run("scancel", job)
