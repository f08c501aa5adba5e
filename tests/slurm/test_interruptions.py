"""What happens to Snakemake itself and to whole nodes; and to jobs that Slurm cancels for good."""

import json
import os
import signal
import subprocess

import pytest
from conftest import BIN, cluster, fresh_project
from slurm_project import SlurmProject, wait_for

CNN = "model: {name: CNN}, shuffle: true, mem_mb: 1600, runtime: 10, epochs: 4"


@pytest.fixture
def project(slurm, tmp_path):
    project = SlurmProject(fresh_project(tmp_path / "project").folder)
    project.configure(f"cnn: {{{CNN}}}")
    return project


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """The bytes of the same training in peace, without Slurm."""
    project = SlurmProject(fresh_project(tmp_path_factory.mktemp("calm") / "project").folder)
    project.configure(f"cnn: {{{CNN}}}")
    project.snakemake(config="slurm.yaml")
    return outcome(project)


def outcome(project):
    files = ("model.safetensors", "predictions.csv.gz")
    return [(project.run_folder("cnn") / file).read_bytes() for file in files]


def started(project) -> subprocess.Popen:
    """Start the workflow and wait until the training has done an epoch."""
    process = project.start()
    checkpoint = project.run_folder("cnn") / "checkpoint.safetensors"
    wait_for(checkpoint.exists, 120, "the first checkpoint")
    return process


def test_ctrl_c_cancels_the_jobs_and_the_next_run_goes_on(project, calm):
    process = started(project)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) != 0
    wait_for(lambda: not project.job_ids("cnn"), 60, "the jobs to be cancelled")
    assert (project.run_folder("cnn") / "checkpoint.safetensors").exists()
    status = project.script("status", "--configfile", "slurm.yaml").stdout
    assert "train CANCELLED" in status
    assert "/4 " in status
    project.slurm_run()
    assert project.record("cnn")["resumes"] >= 1
    assert outcome(project) == calm


def test_a_killed_snakemake_does_not_train_twice_at_once(project, calm):
    process = started(project)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert project.job_ids("cnn")  # the job lives on
    locked = project.slurm_run(check=False)
    assert locked.returncode == 1
    assert "--unlock" in locked.stdout
    project.slurm_run("--unlock")
    project.slurm_run()
    assert outcome(project) == calm
    log = (project.results / "logs" / "train-cnn-seed1.log").read_text()
    assert log.count("Train Epoch: 1 [0/2000") == 1  # the second waited, or went on
    assert not (project.run_folder("cnn") / "lease.json").exists()


def test_preemption_by_cancel_is_submitted_again(project, calm):
    (project.folder / "profiles/slurm/partitions.yaml").write_text(
        "partitions: {spare: {max_runtime: 1440, max_mem_mb: 8192, max_cpus_per_task: 4}}\n"
    )
    process = started(project)
    (job,) = project.job_ids("cnn")
    node = project.run("squeue", "--noheader", f"--job={job}", "--format=%N").stdout.strip()
    project.run(
        "sbatch", "--partition=urgent", f"--nodelist={node}", "--exclusive", "--time=1",
        "--output=/dev/null", "--wrap", "sleep 3", cwd="/",
    )  # fmt: skip
    assert process.wait(240) == 0, project.printed()[-3000:]
    assert project.record("cnn")["resumes"] >= 1
    assert outcome(project) == calm


def test_a_lost_node_that_trains_on_has_no_second_writer(project, calm):
    process = started(project)
    (job,) = project.job_ids("cnn")
    node = project.run("squeue", "--noheader", f"--job={job}", "--format=%N").stdout.strip()
    first = json.loads((project.run_folder("cnn") / "lease.json").read_text())["process"]
    assert cluster("stop", f"slurmd-{node}", "--kill").returncode == 0
    try:
        assert process.wait(300) == 0, project.printed()[-3000:]
    finally:
        assert cluster("start", f"slurmd-{node}").returncode == 0
    assert outcome(project) == calm
    log = (project.results / "logs" / "train-cnn-seed1.log").read_text()
    assert log.count("Train Epoch: 1 [0/2000") == 1
    assert f"process {first} on " in log or project.record("cnn")["resumes"] == 0


def test_a_torn_checkpoint_starts_afresh(project, calm):
    project.snakemake("--until", "prepare", config="slurm.yaml")
    folder = project.run_folder("cnn")
    folder.mkdir(parents=True)
    (folder / "checkpoint.safetensors").write_bytes(b"torn")
    project.slurm_run()
    log = (project.results / "logs" / "train-cnn-seed1.log").read_text()
    assert "cannot be read" in log
    assert "training starts afresh" in log
    assert outcome(project) == calm


def test_a_divergence_ends_the_run_soon_and_is_explained(project):
    project.configure(
        "bad: {model: {name: MLP}, optimizer: {name: SGD, lr: 1e30}, mem_mb: 1500, runtime: 2}"
    )
    done = project.slurm_run(check=False)
    assert done.returncode == 1
    assert "the training loss is nan at epoch 1, step 2" in done.stdout
    assert (
        "bad, seed 1: train is not done; see results/small/logs/train-bad-seed1.log" in done.stdout
    )
    log = (project.results / "logs" / "train-bad-seed1.log").read_text()
    assert log.count("Train Epoch: 1 [0/2000") == 1  # the retries knew
    why = project.script("status", "--configfile", "slurm.yaml", "--why", "bad/seed1").stdout
    assert "It fails whenever it is tried: change experiments.bad" in why


def test_make_status_and_why(project):
    environment = {**os.environ, "VENV": str(BIN.parent)}
    assert "not started" in project.run("make", "status", env=environment).stdout
    done = project.run("make", "why", "RUN=cnn/seed1", env=environment)
    assert "cnn/seed1: not started" in done.stdout
    done = project.run("make", "why", "RUN=nosuch/seed1", env=environment, check=False)
    assert done.returncode != 0
    assert "there is no run 'nosuch/seed1'; there are: mlp/seed1, cnn/seed1" in done.stdout
