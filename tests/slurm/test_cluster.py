"""The throw-away cluster itself: what it leaves behind, and what it leaves alone."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from conftest import NO_ACCOUNTING, ROOT, cluster

pytestmark = pytest.mark.extended
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
    command = [ROOT / "tests" / "cluster" / "slurm.py", "up"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert any(step in line for line in process.stdout)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert left_behind()
    assert cluster("down").returncode == 0
    assert left_behind() == set()


def test_accounting_that_does_not_start_is_an_error(tmp_path):
    """On a release that has to go without accounting, too: there may be another cause."""
    folder = shutil.copytree(ROOT / "tests" / "cluster", tmp_path / "cluster")
    with (folder / "slurmdbd.conf").open("a") as file:
        file.write("NoSuchKey=1\n")
    done = subprocess.run([folder / "slurm.py", "up"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "slurmdbd does not start" in done.stderr
    assert "NoSuchKey" in done.stderr


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


def test_run_leaves_nothing_and_returns_the_exit_status():
    done = cluster("run", "--", "sh", "-c", "srun --partition=gpu printenv SLURMD_NODENAME; exit 7")
    assert done.returncode == 7, done.stderr
    assert done.stdout == "gpu1\n"  # what `up` says goes elsewhere
    assert left_behind() == set()


def test_run_is_apart_from_the_machines_cluster():
    up = cluster("up", "--site", "department")
    assert up.returncode == 0, up.stdout + up.stderr
    subprocess.run(["sbatch", "--output=/dev/null", "--wrap", "sleep 600"], cwd="/", check=True)
    done = cluster("run", "--", "sh", "-c", "squeue --noheader; sinfo --noheader --format=%R")
    assert done.stdout.split() == ["cpu", "gpu", "urgent", "spare"], done.stderr
    here = subprocess.run(["sinfo", "--noheader", "--format=%R"], capture_output=True, text=True)
    assert here.stdout.split() == ["batch"]
    jobs = subprocess.run(["squeue", "--noheader"], capture_output=True, text=True)
    assert len(jobs.stdout.splitlines()) == 1
    other = cluster("up", "--site", "center")
    assert other.returncode == 1
    assert "a cluster as at site 'department' is up" in other.stderr


def test_only_users_that_are_named_submit_jobs():
    submit = "setpriv --reuid=nobody --clear-groups srun id --user --name"
    refused = cluster("run", "--", "sh", "-c", f"ls {NO_ACCOUNTING}; cd /; {submit}")
    if str(NO_ACCOUNTING) in refused.stdout:
        pytest.skip("accounting, which knows who may submit jobs, is not available here")
    assert refused.returncode != 0
    assert "Invalid account" in refused.stderr
    done = cluster("run", "--user", "nobody", "--", "sh", "-c", f"cd /; {submit}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "nobody"
    assert cluster("run", "--user", "no-such-user", "--", "true").returncode == 2
