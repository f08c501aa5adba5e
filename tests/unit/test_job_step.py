"""The script of a Slurm job, run here without srun: tests/slurm runs it with it."""

import os
import subprocess
import threading

import pytest

from lib.cluster import causes, job_step
from lib.cluster.causes import Cause

NODE = {
    "SLURM_JOB_ID": "7",
    "SLURM_CONF": "/etc/slurm/slurm.conf",
    "SLURM_MEM_PER_NODE": "100",
    "SBATCH_QOS": "normal",
    "SRUN_DEBUG": "3",
    "OMP_NUM_THREADS": "64",
}


def run(place, commands="echo done > out/done", **changed):
    """Run a script in a folder, as Slurm would."""
    how = {
        "folder": str(place),
        "srun": "",
        "threads": 2,
        "inputs": ["in put"],
        "outputs": ["out/done"],
        "logs": ["logs/a log"],
        "latency_wait": 2,
    }
    text = job_step.script(commands, **how | changed)
    return subprocess.run(
        ["sh"],
        cwd=place,
        env=os.environ | NODE,
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in put").touch()
    return tmp_path


def test_it_makes_room_and_runs_the_commands(folder):
    (folder / "logs").mkdir()
    (folder / "logs/a log").write_text("of an earlier start")
    done = run(folder, "[ ! -e 'logs/a log' ] && echo \"it's done\" > out/done; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
    assert (folder / "out/done").read_text() == "it's done\n"


def test_the_commands_see_which_job_it_is_and_no_options_of_srun(folder):
    seen = set(run(folder, "env").stdout.splitlines())
    assert {"SLURM_JOB_ID=7", "SLURM_CONF=/etc/slurm/slurm.conf", "OMP_NUM_THREADS=2"} <= seen
    assert not [line for line in seen if line.startswith(("SLURM_MEM", "SBATCH_", "SRUN_"))]


def test_a_file_may_appear_late(folder):
    (folder / "in put").unlink()
    threading.Timer(0.5, (folder / "in put").touch).start()
    assert run(folder, latency_wait=30).returncode == 0
    assert (folder / "out/done").exists()


def test_a_file_that_does_not_appear_is_named(folder):
    done = run(folder, inputs=["in put", "not here"])
    assert done.returncode == 1
    assert "not here is not there after 2 s (latency-wait in the profile)" in done.stderr
    assert not (folder / "out").exists()


@pytest.mark.parametrize("missing", ["python", "folder"])
def test_a_node_without_the_environment_or_the_project_is_at_fault(folder, missing):
    done = run(folder, **{missing: f"{folder}/not here"})
    assert done.returncode not in (0, 1)
    assert f"{folder}/not here" in done.stderr
    (folder / "7.log").write_text(done.stderr)
    end = causes.End("7", "FAILED", f"{done.returncode}:0", 10.0, None, folder / "7.log")
    assert causes.cause_of(end) is Cause.NODE
