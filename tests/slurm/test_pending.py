"""Runs of the workflow whose jobs wait: how often Slurm is asked meanwhile, and what is told."""

import os
import signal
import time

import pytest
from conftest import PATIENCE
from slurm_project import counting_wrappers, scenes, wait_for

pytestmark = [pytest.mark.usefixtures("accounting"), pytest.mark.extended]
JOBS = 20
MLP = "mlp: {model: {name: MLP}, epochs: 1, mem_mb: 1500, runtime: RUNTIME}"
TOLD = "waits: QOSMaxWallDurationPerJobLimit (ask for less time"


def end(process):
    os.killpg(process.pid, signal.SIGINT)
    process.wait(PATIENCE)


def asking(project):
    """Return what Slurm is asked in a minute by the profile's own values.

    Jobs that wait for a time cost no processor.
    """
    extra = "--signal=TERM@60 --open-mode=append"
    project.edit("profiles/slurm/config.yaml", extra, f"{extra} --begin=now+1hour")
    project.configure(MLP.replace("RUNTIME", "2"), seeds=list(range(JOBS)))
    log = project.folder / "asked"
    asking = ("sacct", "squeue", "scontrol", "sinfo")
    wrappers = counting_wrappers(project.folder / "counting", log, asking)
    path = f"{wrappers}{os.pathsep}{os.environ['PATH']}"
    process = project.start("--max-status-checks-per-second", "0.0333", PATH=path)
    try:
        wait_for(lambda: project.printed().count(" is Slurm job ") == JOBS, "submissions")
        before = len(log.read_text().splitlines())
        time.sleep(65)
        return log.read_text().splitlines()[before:]
    finally:
        end(process)


def never(project):
    """Return what is printed of a QoS whose limit is below the runtime: sbatch takes the job."""
    project.configure(MLP.replace("RUNTIME", "30"))
    name = project.user.pw_name if project.user else "root"
    project.as_root("sacctmgr", "-i", "add", "qos", "brief", "MaxWall=5")
    project.as_root("sacctmgr", "-i", "modify", "user", name, "set", "qos+=brief")
    process = project.start("--slurm-qos", "brief")
    try:
        wait_for(lambda: TOLD in project.printed() or process.poll() is not None, TOLD)
        return project.printed()
    finally:
        end(process)
        project.as_root("sacctmgr", "-i", "delete", "qos", "brief")


@scenes(asking)
def test_slurm_is_asked_rarely(stage):
    _, asked = stage(asking)
    assert len([line for line in asked if line.startswith("sacct")]) in (2, 3)
    # Why jobs wait is asked after a minute, then after two, and so on.
    others = [line for line in asked if not line.startswith("sacct")]
    assert len(others) <= 1
    assert all(line.startswith("squeue") for line in others)


@scenes(never)
def test_a_job_that_will_wait_forever_is_told(stage):
    _, printed = stage(never)
    assert TOLD in printed
