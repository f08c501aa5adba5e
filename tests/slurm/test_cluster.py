"""The throw-away cluster itself: what it leaves behind, and what it leaves alone."""

import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from conftest import ROOT, cluster

FOLDER = Path("/var/lib/slurm-throwaway")
LINK = Path("/etc/slurm/slurm.conf")
DAEMONS = {"munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd", "slurmstepd"}


@pytest.fixture(autouse=True)
def nothing_before_and_after(slurm_machine):
    if cluster("status").returncode == 0:
        pytest.skip("a throw-away cluster runs here: make cluster-down, to test how it starts")
    yield
    cluster("down")


def left_behind() -> set[str]:
    processes = [p.info for p in psutil.process_iter(["name", "status"])]
    alive = {info["name"] for info in processes if info["status"] != psutil.STATUS_ZOMBIE}
    return (alive & DAEMONS) | {str(path) for path in (FOLDER, LINK) if os.path.lexists(path)}


def test_up_twice_then_down_leaves_nothing():
    first = cluster("up")
    assert first.returncode == 0, first.stdout + first.stderr
    second = cluster("up")
    assert second.returncode == 0
    assert "the cluster was up already" in second.stdout
    subprocess.run(["sbatch", "--output=/dev/null", "--wrap", "sleep 600"], cwd="/", check=True)
    down = cluster("down")
    assert down.returncode == 0
    assert "the cluster is gone" in down.stdout
    assert left_behind() == set()
    assert "there was no cluster" in cluster("down").stdout
    assert cluster("status").returncode == 1


@pytest.mark.parametrize("step", ["starting munged", "starting slurmctld", "running a first job"])
def test_down_after_a_crash_half_way_leaves_nothing(step):
    command = [ROOT / "tests" / "cluster" / "slurm", "up"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert any(step in line for line in process.stdout)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert left_behind()
    assert cluster("down").returncode == 0
    assert left_behind() == set()


def test_a_slurm_of_the_machines_own_is_left_alone():
    LINK.parent.mkdir(exist_ok=True)
    LINK.write_text("ClusterName=real\n")
    try:
        for command in ("up", "down"):
            done = cluster(command)
            assert LINK.read_text() == "ClusterName=real\n"
            assert left_behind() == {str(LINK)}
            if command == "up":
                assert done.returncode == 1
                assert "this machine has a Slurm of its own (/etc/slurm/slurm.conf" in done.stderr
    finally:
        LINK.unlink()
