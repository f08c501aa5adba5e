"""What is said of a run: that it was not started, why it failed, and what to type next."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from test_download import read_only

import status
from lib.cluster import summary
from lib.cluster.submissions import UNKNOWN, Job
from lib.core import records
from lib.core.failure_file import Failure
from lib.core.progress_file import RunProgress
from lib.study.config import read_study

CONFIG = Path("tests/data/config.yaml")
MESSAGE = "the training loss is nan at epoch 1, step 3"


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PATH", "")  # no Slurm
    return dataclasses.replace(read_study([CONFIG], {}), results_dir=str(tmp_path / "results"))


@pytest.fixture
def mlp(study):
    """The files of a run, in a folder that exists."""
    files = study.layout.run("mlp", 1)
    files.folder.mkdir(parents=True)
    study.layout.logs.mkdir(parents=True)
    return files


def fail(study, files, **changes):
    """Write down that the MLP fails whenever it is tried."""
    settings = study.experiments["mlp"].settings(1).as_dict() | changes
    Failure(settings, "0", {}, MESSAGE).write(files.failure)


def trained(study, files, **changes):
    """Write what a training leaves, all of it but real weights."""
    files.weights.touch()
    files.history.write_text("epoch,split,loss,accuracy\n1,test,0.1,0.9\n2,test,0.1,0.9\n")
    settings = study.experiments["mlp"].settings(1).as_dict() | changes
    record = {"settings": settings, "data_sha256": "0", "code": {}}
    records.write(files.record, record, [files.weights, files.history])


def test_a_run_that_was_not_started(study):
    said = status.explain(study, [], "mlp/seed1", [Path("my config.yaml")])
    assert "log" not in said
    assert said.endswith(
        "It was not started. To start it:\n"
        "  snakemake --profile profiles/local --configfile 'my config.yaml'"
    )


def test_a_run_that_failed_has_a_log(study, mlp):
    study.layout.log("train", "mlp", 1).write_text("error: something\n")
    said = status.explain(study, [], "mlp/seed1")
    assert "  error: something\n" in said
    assert "Fix what the log says, then\n  snakemake --profile profiles/local" in said


def test_a_run_that_fails_whenever_it_is_tried(study, mlp):
    fail(study, mlp)
    said = status.explain(study, [], "mlp/seed1")
    assert f"\n{MESSAGE}.\nIt fails whenever it is tried: change experiments.mlp in" in said


def test_what_failed_before_the_config_was_changed(study, mlp):
    fail(study, mlp, epochs=99)
    assert "It was not started" in status.explain(study, [], "mlp/seed1")
    assert "mlp, seed 1: train is not done" in summary.unfinished(study)


def test_a_run_that_trains(study, mlp):
    RunProgress(2, 32).write(mlp.progress)
    mlp.lease.touch()
    assert status.explain(study, [], "mlp/seed1").endswith("how far it is: make watch")
    said = status.explain(study, [], "mlp/seed1", [Path("my config.yaml")])
    assert said.endswith("make watch 'CONFIGFILE=my config.yaml'")


@pytest.mark.parametrize("state", ["BOOT_FAIL", "CANCELLED", "NODE_FAIL", "PREEMPTED"])
def test_a_run_whose_job_was_canceled(study, mlp, state):
    """After Ctrl-C, say: the same command goes on, with the same config."""
    study.layout.log("train", "mlp", 1).write_text("stopped by SIGTERM\n")
    job = Job("7", "train", "mlp", 1, state, partition="cpu")
    said = status.explain(study, [job], "mlp/seed1", [Path("a.yaml"), Path("b.yaml")])
    assert said.endswith(
        "Nothing has to be changed. To go on:\n"
        "  snakemake --profile profiles/local --configfile a.yaml b.yaml"
    )


def test_a_job_that_slurm_has_forgotten(study, mlp):
    """What a job asked for and used is not known; that it was submitted is."""
    job = Job("7", "train", "mlp", 1, UNKNOWN)
    (line,) = (each for each in status.table(study, [job]).splitlines() if "mlp" in each)
    assert line.split() == "mlp 1 train not finished 7 0/2".split()
    said = status.explain(study, [job], "mlp/seed1")
    assert "\nSlurm job 7 (train): UNKNOWN\n  Slurm does not know it any more\n\n" in said
    assert "It was not started" in said
    study.layout.log("train", "mlp", 1).write_text("error: something\n")
    assert "Fix what the log says, then" in status.explain(study, [job], "mlp/seed1")
    trained(study, mlp)
    assert " trained " in status.table(study, [job])


def test_a_run_that_trains_after_a_job_that_slurm_has_forgotten(study, mlp):
    RunProgress(2, 32).write(mlp.progress)
    mlp.lease.touch()
    job = Job("7", "train", "mlp", 1, UNKNOWN)
    assert "It is training." in status.explain(study, [job], "mlp/seed1")
    trained(study, mlp, epochs=99)
    mlp.lease.unlink()
    mlp.progress.unlink()
    assert "It will be trained again." in status.explain(study, [job], "mlp/seed1")


def test_a_job_of_a_whole_node(study, mlp):
    job = Job("7", "train", "mlp", 1, "RUNNING", elapsed_seconds=5, cpus=1, cpus_allocated=64)
    said = status.explain(study, [job], "mlp/seed1")
    assert "  time 0:00:05 without a limit, memory unknown without a limit, 1 cores (64 al" in said


def test_slurms_own_log_of_a_job_that_failed(study, mlp):
    """Slurm says there why it has ended a job."""
    folder = study.layout.slurm_logs / "rule_train" / "mlp_1"
    folder.mkdir(parents=True)
    (folder / "7.log").write_text("slurmstepd: error: exceeded memory limit\n")
    job = Job("7", "train", "mlp", 1, "FAILED", exit_code="1:0")
    assert "exceeded memory limit" in status.explain(study, [job], "mlp/seed1")
    running = dataclasses.replace(job, state="RUNNING")
    assert "exceeded memory limit" not in status.explain(study, [running], "mlp/seed1")


def test_a_run_that_is_out_of_date(study, mlp):
    trained(study, mlp, epochs=99)
    said = status.explain(study, [], "mlp/seed1")
    assert said.startswith("mlp/seed1: out of date\n  to train again: other settings (epochs)\n")
    assert "It will be trained again." in said
    assert "mlp, seed 1: train is not done" in summary.unfinished(study)


def test_a_run_that_is_trained(study, mlp):
    trained(study, mlp)
    assert "its evaluation was not started" in status.explain(study, [], "mlp/seed1")


def test_the_end_says_what_has_to_change(study, mlp):
    fail(study, mlp)
    lines = summary.unfinished(study).splitlines()
    assert lines[1] == (
        f"  mlp, seed 1: train failed: {MESSAGE}; change experiments.mlp in the config"
    )
    assert lines[2:] == [
        "  cnn, seed 1: train is not done; it was not started",
        "What is done is kept: the same command resumes from here.",
    ]


def test_what_no_repetition_helps_is_not_to_be_repeated(study, mlp):
    alone = dataclasses.replace(study, experiments={"mlp": study.experiments["mlp"]})
    fail(study, mlp)
    assert "resumes" not in summary.unfinished(alone)


@pytest.mark.parametrize("content", ["", "[]", "3", "{}", '{"message": 3}', "\0", "[" * 100_000])
def test_a_failure_file_that_is_none(study, mlp, content):
    mlp.failure.write_text(content)
    assert Failure.read(mlp.failure) is None
    assert "train is not done" in summary.unfinished(study)
    assert "It was not started" in status.explain(study, [], "mlp/seed1")


PROGRESS = {"epochs": 2, "steps": 32, "epoch": 1, "step": 8, "seconds": 1.0, "done": []}


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0},
        {"epochs": 0},
        {"steps": "32"},
        {"epoch": None},
        {"seconds": float("nan")},
        {"seconds": float("inf")},
        {"step": 10**400},
        {"done": [3]},
        {"done": [{"epoch": 1, "split": "test", "loss": 0.1, "accuracy": "0.9"}]},
    ],
)
def test_a_progress_file_of_other_types_is_no_progress(study, mlp, change):
    mlp.progress.write_text(json.dumps(PROGRESS))
    assert RunProgress.read(mlp.progress).fraction == 0.125
    mlp.progress.write_text(json.dumps(PROGRESS | change))
    assert RunProgress.read(mlp.progress) is None
    assert "0/2" in status.table(study, [])


def test_a_history_with_a_nul_is_none(study, mlp):
    trained(study, mlp)
    mlp.history.write_bytes(b"epoch,split,loss,accuracy\n1,te\0st,0.1,0.9\n")
    os.utime(mlp.history, (1, 1))  # not newer than the record, which would be noticed
    assert "trained" in status.table(study, [])


def test_a_log_that_is_a_folder(study, mlp):
    study.layout.log("train", "mlp", 1).mkdir()
    assert "It was not started" in status.explain(study, [], "mlp/seed1")


def test_a_run_that_is_a_file(study, mlp):
    mlp.folder.rmdir()
    mlp.folder.touch()
    assert "not started" in status.table(study, [])


def test_a_damaged_record_is_named_where_resources_are_counted(study, mlp, capsys):
    mlp.record.write_text("[]")
    summary.write_resources(study)
    assert f"no resources.csv: {mlp.record} was not written by" in capsys.readouterr().out


def test_a_study_that_cannot_be_written(tmp_path):
    text = (ROOT / CONFIG).read_text().replace("results_dir: results/small", "results_dir: PATH")
    (tmp_path / "config.yaml").write_text(text.replace("PATH", str(tmp_path)))

    def run(name):
        command = [*read_only(tmp_path), sys.executable, f"scripts/{name}.py", "--configfile"]
        command.append(tmp_path / "config.yaml")
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    done = run("resources")
    assert done.stderr == f"error: cannot write {tmp_path}/resources.csv: Read-only file system\n"
    assert "not started" in run("status").stdout
