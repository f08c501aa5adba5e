"""Forked runs: the same bytes, records and exit statuses as those of processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from conftest import PATIENCE, ROOT, SMALL_STUDY, cases, fresh_project, run_job, stage_of

from lib.core import records
from lib.core.layout import Layout, RunFiles
from lib.core.subprocesses import shell_prefix
from lib.forks.server import ForkWorker
from lib.forks.start import VARIABLE, ForkServer

# What two trainings of the same settings do not share.
OWN = {
    "command", "start", "end", "seconds", "train_seconds", "images_per_second", "peak_memory_mb",
    "files", "sha256",
}  # fmt: skip
SEVERAL = f"""{SMALL_STUDY}seeds: [1, 2]
runs_per_job: 10
experiments:
  mlp: {{model: {{name: MLP}}, epochs: 2}}
  bad: {{model: {{name: MLP}}, optimizer: {{name: SGD, lr: 1e30}}}}
"""


@pytest.fixture(scope="module")
def server():
    """A fork server for the commands of this process."""
    with ForkServer() as server:
        assert os.environ[VARIABLE]
        yield server


def shell(command, **options):
    return subprocess.Popen(
        ["bash", "-c", shell_prefix() + command], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options,
    )  # fmt: skip


def trained(folder, data, *options, **environment):
    """Train by the command of the rule; return the exit status and what was said."""
    words = " ".join(map(str, ("--set", "model.name=MLP", "epochs=1", *options)))
    command = f"python scripts/train.py --data {data} --output {folder} {words}"
    process = shell(command, env=os.environ | environment)
    said, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, said


def test_the_same_bytes_and_the_same_record(server, small_data, tmp_path):
    assert trained(tmp_path / "forked", small_data)[0] == 0
    plain = os.environ.copy()
    plain.pop(VARIABLE)
    command = f"python scripts/train.py --data {small_data} --output {tmp_path / 'plain'} "
    assert shell(command + "--set model.name=MLP epochs=1", env=plain).wait(PATIENCE) == 0
    for file in ("model.safetensors", "run.json"):
        one, other = ((tmp_path / name / file).read_bytes() for name in ("forked", "plain"))
        if file != "run.json":
            assert one == other
            continue
        one, other = json.loads(one), json.loads(other)
        assert {key for key in one if one[key] != other[key]} <= OWN
        assert one["code"] == other["code"]
        assert one["command"][0].endswith("scripts/train.py")


def test_exit_status_and_messages_are_the_commands(server, small_data, tmp_path):
    status, said = trained(tmp_path / "bad", small_data, "'optimizer={name: SGD, lr: 1e30}'")
    assert status == 1
    assert "error: the training loss is nan" in said
    status, said = trained(tmp_path / "wrong", small_data, "--no-such-option")
    assert status == 2
    assert "unrecognized arguments: --no-such-option" in said


def start_long(folder, data):
    """Start a long training; return the process, and that which trains, once it has begun."""
    command = f"exec 3>&1; python scripts/train.py --set model.name=MLP epochs=5000 --data {data}"
    process = shell(f"{command} --output {folder}", start_new_session=True)
    lease = folder / "lease.json"
    deadline = time.monotonic() + PATIENCE
    while not RunFiles(folder).checkpoint.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process, json.loads(lease.read_text())["process"]


def test_a_signal_to_the_command_is_one_to_the_training(server, small_data, tmp_path):
    process, training = start_long(tmp_path / "run", small_data)
    os.killpg(process.pid, signal.SIGTERM)
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode in (143, -15)
    if process.returncode == 143:
        assert "the same command resumes from there" in said
    assert not alive(training)


def test_a_training_whose_command_was_killed_ends(server, small_data, tmp_path):
    process, training = start_long(tmp_path / "run", small_data)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(PATIENCE)
    assert not alive(training)


def alive(pid) -> bool:
    """Whether a process never ends."""
    deadline = time.monotonic() + PATIENCE
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    return psutil.pid_exists(pid)


def test_a_command_that_ends_as_its_client_goes_is_no_error():
    ForkWorker(ROOT / "scripts" / "train.py", None).client_gone(
        2**22 + 1
    )  # a process that never was


@pytest.mark.extended
def test_without_its_server_a_command_runs_itself(small_data, tmp_path):
    gone = {VARIABLE: str(tmp_path / "gone")}
    assert trained(tmp_path / "run", small_data, **gone)[0] == 0


def test_a_study_of_forked_runs(tmp_path, finished_once):
    """One start of torch for all; the bytes of runs of their own; a bad one stops no other."""
    project = fresh_project(tmp_path / "project", data=True)
    (project.folder / "many.yaml").write_text(SEVERAL)
    done = project.snakemake(config="many.yaml", check=False)
    assert done.returncode == 1
    assert "bad, seed 2: train failed: the training loss is nan" in done.stdout
    layout = Layout(project.results)
    assert all(layout.run("mlp", seed).has_all("evaluate") for seed in (1, 2))
    for file in ("model.safetensors", "predictions.csv.gz", "accuracy.csv"):
        one, other = (each.run_folder("mlp") / file for each in (project, finished_once))
        assert one.read_bytes() == other.read_bytes()


def test_the_job_works_on_what_it_is_given(small_data, tmp_path):
    """By hand, as on Slurm: it says what became of each run."""
    train = f"python scripts/train.py --set model.name=MLP epochs=1 --data {small_data}"
    runs = {"good": f"{train} --output {tmp_path / 'good'} > /dev/null", "bad": "exit 3"}
    done = run_job(runs, "--at-once", 2)
    assert done.returncode == 3
    assert "good: done in" in done.stdout
    assert "bad: exit status 3\n" in done.stdout
    assert done.stdout.endswith("1 of 2 runs are done\n")
    command = [sys.executable, "scripts/job.py"]
    wrong = subprocess.run(command, cwd=ROOT, input="{}", capture_output=True, text=True)
    assert wrong.returncode == 1
    assert "error: standard input: no run in '{}'" in wrong.stderr


@pytest.mark.extended
def test_a_run_that_may_succeed_later_is_tried_again_when_the_others_have_ended(tmp_path):
    other, tried = tmp_path / "other", tmp_path / "tried"
    commands = {
        "needs": f"[ -e {other} ] || {{ touch {tried}; exit 75; }}",
        "never": "exit 75",
        "other": f"until [ -e {tried} ]; do sleep 0.1; done; sleep 1; touch {other}",
    }
    done = run_job(commands, "--at-once", 3)
    assert "needs: exit status 75, tried again when the others" in done.stdout
    ends = [line.split(": ")[0] for line in done.stdout.splitlines() if line.startswith("[")]
    assert ends == ["[1 of 3] other", "[2 of 3] needs", "[3 of 3] never"]
    assert "[3 of 3] never: exit status 75\n2 of 3 runs are done" in done.stdout


MEANWHILE = {
    "evaluated": ("7", "evaluation.json", False, True),
    "point of a search, which is not evaluated": ("7", "run.json", True, True),
    "killed as it cleaned up": ("7", "evaluation.json", True, False),
    "somebody wants it again": ("6", "evaluation.json", False, False),
    "not by a job": (None, "evaluation.json", False, False),
}


@pytest.mark.parametrize(
    ("job_id", "file", "log", "is_done"), cases(MEANWHILE, "evaluated", "killed as it cleaned up")
)
def test_what_the_same_job_has_done_meanwhile_is_left_alone(tmp_path, job_id, file, log, is_done):
    """As on a node that was taken for lost, where it goes on for a while."""
    ran, ready = tmp_path / "ran", tmp_path / "ready.json"
    records.write(ready, {"slurm": job_id and {"job_id": job_id}}, [])
    files = RunFiles(tmp_path / "run")
    files.folder.mkdir()
    if log:
        files.log.touch()
    record = str(files.folder / file)
    one = {"name": "one", "stages": [stage_of(f"mv {ready} {record}")]}
    other = {"name": "other", "stages": [stage_of(f"touch {ran}", outputs=[record])]}
    lines = f"{json.dumps(one)}\n{json.dumps(other)}"
    done = subprocess.run(
        [sys.executable, "scripts/job.py"], cwd=ROOT, input=lines,
        capture_output=True, text=True, env=os.environ | {"SLURM_JOB_ID": "7"},
    )  # fmt: skip
    assert "2 of 2 runs are done" in done.stdout
    assert ran.exists() is not is_done


@pytest.mark.extended
@pytest.mark.parametrize(
    ("starts", "at_once", "said"),
    [
        (True, 2, "the runs take turns on the GPU: NVIDIA MPS does not work on this node"),
        (False, 2, "the runs take turns"),
        (True, 1, ""),
    ],
)
def test_a_gpu_sharing_service_that_does_not_work_is_not_used(tmp_path, starts, at_once, said):
    """A simulated service, as NVIDIA's needs a GPU: it starts or does not, and shares no GPU."""
    control = tmp_path / "bin" / "nvidia-cuda-mps-control"
    control.parent.mkdir()
    calls = tmp_path / "calls"
    control.write_text(f'#!/bin/sh\necho "$@" $(cat) >> {calls}\nexit {int(not starts)}\n')
    control.chmod(0o755)
    path = f"{control.parent}:{os.environ['PATH']}"
    unset = {"run": '[ -z "${CUDA_MPS_PIPE_DIRECTORY-}" ]'}
    options = ("--at-once", at_once, "--share-gpu")
    done = run_job(unset, *options, env=os.environ | {"PATH": path})
    assert "1 of 1 runs are done" in done.stdout
    assert done.stdout.startswith(said)
    assert ("NVIDIA MPS" in done.stdout) == bool(said)
    assert (calls.read_text() if calls.exists() else "") == ("-d\nquit\n" if said else "")
