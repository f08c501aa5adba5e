"""A job that waits: what `status` shows of it, and what a run does about one that is stuck."""

import logging
import os
import re
import uuid
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import cluster
from slurm_project import SlurmProject, counting_wrappers, wait_for

from lib.cluster import queue_watch, submissions
from lib.cluster.bad_nodes import BadNodes
from lib.cluster.queue_watch import QueueWatch
from lib.core.layout import Layout

pytestmark = pytest.mark.extended


@pytest.fixture
def project(slurm, tmp_path):
    project = SlurmProject(tmp_path / "project")
    project.configure("cnn: {model: {name: CNN}}")
    project.run_id = f"queue-{uuid.uuid4()}"
    project.job = submit(project, "--hold")
    yield project
    project.run("scancel", f"--name={project.run_id}")


def submit(project, *options) -> str:
    """Submit a job as the executor does, and write it down as the executor does."""
    options += ("--time=15", "--mem=3G", f"--job-name={project.run_id}")
    options += ("--parsable", "--output=/dev/null", "--wrap", "sleep 600")
    job_id = project.run("sbatch", *options).stdout.strip()
    job = SimpleNamespace(name="train", wildcards={"experiment": "cnn", "seed": "1"})
    submissions.record(Layout(project.results), job_id, project.run_id, job)
    project.hand_over()
    return job_id


def shown(project) -> list[str]:
    header, line, *_ = project.show("status").splitlines()
    assert header.split()[:4] == ["experiment", "seed", "state", "job"]
    return line.split()


def test_a_waiting_job_and_its_reason(project):
    wait_for(lambda: "PENDING" in shown(project), "sacct to know the job")
    assert "JobHeldUser" in shown(project)
    assert "it is pending (JobHeldUser)" in project.show("status", "--why", "cnn/seed1")


def test_without_accounting_squeue_is_asked(project, accounting):
    assert cluster("stop", "slurmdbd").returncode == 0
    try:
        words = shown(project)
        why = project.show("status", "--why", "cnn/seed1")
        resources = project.show("resources")
    finally:
        assert cluster("start", "slurmdbd").returncode == 0
    assert {"PENDING", "cpu", "0:15:00", "0/3", "JobHeldUser"} <= set(words)
    assert "time 0:00:00 of 0:15:00, memory unknown of 3072 MB, 1 cores" in why
    assert "Wait, or stop it: scancel " in why
    assert "\nNo accounting (sacct: error: Problem talking to the database: " in why
    assert "resources.csv: no accounting (sacct: error: " in resources


def test_a_job_that_a_broken_node_could_not_start_is_released(accounting, project):
    starter = Path("/var/lib/slurm-throwaway/slurmstepd")
    starter.chmod(0o644)
    try:
        job = submit(project)
        command = ("squeue", "--noheader", f"--jobs={job}", "--format=%r")
        wait_for(lambda: "held" in project.run(*command).stdout, "the start to fail")
    finally:
        starter.chmod(0o755)
        for node in ("cpu1", "cpu2"):
            project.as_root("scontrol", "update", f"nodename={node}", "state=resume", check=False)
    bad_nodes = BadNodes()
    watch = QueueWatch(project.run_id, bad_nodes, logging.getLogger("test"))
    assert watch.look_at_pending({project.job, job}) == {}
    assert watch.releases == {job: 1}  # the other is held by its owner
    found = {each.job_id: each for each in submissions.jobs(Layout(project.results))}
    assert found[project.job].reason == "JobHeldUser"
    assert found[job].reason != queue_watch.HELD
    (bad,) = bad_nodes
    good = {"cpu1": "cpu2", "cpu2": "cpu1"}[bad]
    command = ("squeue", f"--jobs={job}", "--format=%T %N")
    wait_for(lambda: f"RUNNING {good}" in project.run(*command).stdout)
    watch.look_at_pending({project.job, job})
    assert watch.releases == {job: 1}


def test_slurm_is_asked_twice_at_the_most(project, tmp_path):
    """Whatever the number of jobs: sacct once, and squeue once while any has not ended."""
    for _ in range(3):
        submit(project, "--hold")
    log = tmp_path / "asked"
    wrappers = counting_wrappers(tmp_path / "bin", log, ("sacct", "squeue", "scontrol", "sinfo"))
    path = f"{wrappers}{os.pathsep}{os.environ['PATH']}"
    project.script("status", "--configfile", "slurm.yaml", env={**os.environ, "PATH": path})
    asked = log.read_text().splitlines()
    assert sorted(line.split()[0] for line in asked) == ["sacct", "squeue"], asked
    for line in asked:
        assert f"--name={project.run_id}" in line
    began = Layout(project.results).submissions.read_text().splitlines()[1].split(",")[4]
    since = re.search(r"--starttime=(\S+)", " ".join(asked))[1]
    assert since == (datetime.fromisoformat(began) - submissions.CLOCK_SKEW).isoformat()
