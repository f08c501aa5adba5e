"""Runs of the workflow that end early, or that should not start: each a scene of its own."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import BIN, PATIENCE, ROOT
from slurm_project import NETWORK, SlurmProject, scenes, wait_for

from lib.core.layout import TRAINED

pytestmark = pytest.mark.usefixtures("accounting")
SHORT = f"short: {{{NETWORK}, mem_mb: 1600, runtime: 20, epochs: 12}}"
DIVERGING = (
    "bad: {model: {name: MLP}, optimizer: {name: SGD, lr: 1e30}, mem_mb: 1500, runtime: 20}\n"
    "good: {model: {name: MLP}, epochs: 1, mem_mb: 1500, runtime: 20}"
)
GPU = "gpu: {model: {name: MLP}, epochs: 1, device: cuda, mem_mb: 1500, runtime: 20}"
# Where Snakemake asks after its jobs, this takes its time and says so.
SLOW_SACCT = """#!/bin/sh
case "$*" in *--name*) touch asking; sleep 8; rm asking ;; esac
exec {} "$@"
"""
CANCEL = """
from types import SimpleNamespace
from lib.cluster import executor
executor.cancel("a-run", SimpleNamespace(error=print))
"""
LESSON = "mlp: {model: {name: MLP}, runtime: 5}\ncnn: {model: {name: CNN}, runtime: 15}"


def ctrl_c(project):
    """Interrupt Snakemake as from the keyboard while it asks after its jobs; run it again.

    The training is long: on a slow machine, what comes before the interrupt takes a minute.
    """
    project.configure(SHORT.replace("epochs: 12", "epochs: 50"))
    slow = project.folder / "slow" / "sacct"
    slow.parent.mkdir()
    slow.write_text(SLOW_SACCT.format(shutil.which("sacct")))
    slow.chmod(0o755)
    process = project.start(PATH=f"{slow.parent}{os.pathsep}{os.environ['PATH']}")
    project.trained("short")
    running = project.show("status")
    wait_for((project.folder / "asking").exists, "Snakemake to ask after its jobs")
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) != 0
    wait_for(lambda: not project.job_ids("short"), "the jobs to be cancelled")
    kept = project.checkpoint("short").exists()
    stopped = project.show("status")
    project.slurm_run()
    return kept, running, stopped


def killed(project):
    """Kill Snakemake, and start it again while its job trains on."""
    project.configure(SHORT)
    process = project.start()
    project.trained("short")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    alive = project.job_ids("short")
    return alive, project.slurm_run().stdout


def useless(project):
    """Begin where one checkpoint is no checkpoint, and another is one of other settings."""
    brief = SHORT.replace("epochs: 12", "epochs: 2")
    project.configure(
        brief.replace("short:", "corrupt:") + "\n" + brief.replace("short:", "other:")
    )
    project.run_folder("corrupt").mkdir(parents=True)
    project.checkpoint("corrupt").write_bytes(b"corrupt")
    project.hand_over()
    project.slurm_run("--until", "prepare")
    options = ("--data", project.data, "--output", project.run_folder("other"))
    project.script("train", "--set", "model.name=Slow", "epochs=1", *options)
    for output in ("model.safetensors", "history.csv", "run.json"):
        (project.run_folder("other") / output).unlink()
    project.slurm_run()


def full(project):
    """Train where there is no room for the weights, then where there is."""
    project.configure(SHORT.replace("epochs: 12", "epochs: 1"))
    project.slurm_run("--until", "prepare")
    # As a full disk does, the limit lets a write fail; sbatch hands it on to the job.
    command = ("prlimit", "--fsize=150000", *project.command("--retries", "0"))
    failed = project.run(*command, check=False)
    left = {path.name for path in project.run_folder("short").iterdir()}
    project.slurm_run()
    return failed, left


def diverging(project):
    """Train what cannot be trained, beside what can."""
    project.configure(DIVERGING)
    return failing(project, "bad")


def no_gpu(project):
    """Ask for a GPU on a node whose GPU does not work."""
    project.configure(GPU)
    return failing(project, "gpu")


def broken(project):
    """Train what was trained with code that does not work any more."""
    project.configure("mlp: {model: {name: MLP}, epochs: 1, mem_mb: 1500, runtime: 20}")
    project.slurm_run()
    outputs = [project.run_folder("mlp") / name for name in TRAINED]
    before = [path.read_bytes() for path in outputs]
    project.edit("scripts/models/mlp.py", "self.fc2(x)", "self.fc3(x)")
    failed = project.slurm_run("--retries", "0", check=False)
    return failed, before, [path.read_bytes() for path in outputs if path.exists()]


def benchmarked(project):
    """Train by a rule that needs Snakemake on the node, too."""
    project.configure("mlp: {model: {name: MLP}, epochs: 1, mem_mb: 1500, runtime: 20}")
    benchmark = "    benchmark:\n        'results/small/{experiment}-{seed}.tsv'\n    threads:"
    project.edit("workflow/rules/train.smk", "    threads:", benchmark)
    project.slurm_run()


def failing(project, experiment):
    """Run to the failure; return what was said, and the seconds since it was first in the log."""
    process = project.start()
    wait_for(lambda: "error: " in project.train_log(experiment), "the error")
    cause = time.monotonic()
    assert process.wait(PATIENCE) == 1
    return project.printed(), time.monotonic() - cause


def edited(project):
    """Edit all code while a pack waits, requeue it, and look at what the next start would do."""
    extra = "--signal=TERM@60 --open-mode=append"
    project.edit("profiles/slurm/config.yaml", extra, f"{extra} --hold")
    project.configure(SHORT, seeds=[1, 2], runs_per_job=2, cpus_per_job=2)  # both at once
    process = project.start()
    (job,) = wait_for(project.pack_ids, "the pack")
    broken = project.edit_everything()
    project.as_root("scontrol", "release", job)
    project.pack_trained("short", (1, 2))
    project.as_root("scontrol", "requeue", job)
    assert process.wait(PATIENCE) == 0, project.printed()
    for path, text in broken.items():
        path.write_text(text)
    return project.slurm_run("-n").stdout


def reproduced(project):
    """Repeat a finished study on Slurm, after its code was edited; then adopt it."""
    project.configure(SHORT.replace("epochs: 12", "epochs: 2"), seeds=[1, 2])
    project.slurm_run()
    project.edit(
        "scripts/lib/training/loop.py", "batch_loss.backward()", "(-batch_loss).backward()"
    )
    options = ("--configfile", "slurm.yaml", "--profile", "profiles/slurm")
    done = project.script("reproduce", *options, "--run", "all", "--exact")
    project.edit(
        "scripts/lib/training/loop.py", "(-batch_loss).backward()", "(1 * batch_loss).backward()"
    )
    adopted = project.script("adopt", *options)
    return done.stdout, project.show("status"), adopted.stdout


def lesson(project):
    """Train the lesson's two networks with what the lesson asks of Slurm."""
    project.configure(LESSON, training="{epochs: 2}")
    project.slurm_run()


@pytest.mark.extended
@scenes(ctrl_c)
def test_ctrl_c_cancels_the_jobs_and_the_next_run_goes_on(stage, undisturbed):
    project, (kept, running, stopped) = stage(ctrl_c)
    assert "train RUNNING" in running
    assert kept
    assert "train CANCELLED" in stopped
    assert "/50 " in stopped
    assert project.record("short")["resumes"] >= 1
    assert project.outcome("short") == undisturbed(50)


@pytest.mark.extended
def test_ctrl_c_says_so_where_it_cannot_cancel(stage, tmp_path):
    """Interruptions run meanwhile: scancel tries for some seconds where no slurmctld listens.

    In a process of its own, since they start programs with the environment of this one.
    """
    conf = tmp_path / "slurm.conf"
    conf.write_text(
        "ClusterName=away\nSlurmctldHost=localhost\nSlurmctldPort=1\nAuthType=auth/none\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", CANCEL],
        cwd=ROOT / "scripts",
        env=os.environ | {"SLURM_CONF": str(conf)},
        capture_output=True,
        text=True,
    )
    assert "type: scancel --name=a-run" in done.stdout, done.stderr
    assert "Unable to contact slurm controller" in done.stdout


@pytest.mark.extended
@scenes(killed)
def test_a_killed_snakemake_does_not_train_twice_at_once(stage, undisturbed):
    project, (alive, said) = stage(killed)
    assert alive
    assert "The Snakemake that had locked this folder is dead" in said
    assert project.outcome("short") == undisturbed(12)
    log = project.train_log("short")
    assert log.count("Train Epoch: 1 [0/2000") == 1  # the second waited, or went on
    assert not project.lease("short").exists()


@pytest.mark.extended
@scenes(edited)
def test_queued_jobs_run_the_code_that_they_were_submitted_with(stage, undisturbed):
    project, planned = stage(edited)
    assert project.outcome("short") == undisturbed(12)
    assert project.record("short", 2)["resumes"] == 1
    (kept,) = (project.results / "code").iterdir()
    assert kept.name == f"{project.record('short')['snapshot']}.tar.gz"
    assert "train short, seed 1 again: other code (lib/training/loop.py)" in planned


@pytest.mark.extended
@scenes(reproduced)
def test_runs_are_repeated_by_slurm_jobs(stage):
    project, (said, status, adopted) = stage(reproduced)
    for seed in (1, 2):
        assert f"short/seed{seed}: reproduced bit for bit" in said
    assert "2 of 2 runs were repeated" in said
    rows = project.accounting("State")
    assert ["rule_reproduce_wildcards_short_1", "COMPLETED"] in rows
    trained = project.record("short")["slurm"]["job_id"]
    assert trained in status  # not the job that has repeated it
    assert "adopted by replay of 50 steps of short/seed1: short/seed1, short/seed2" in adopted
    assert ["rule_replay_wildcards_short_1", "COMPLETED"] in rows


@pytest.mark.extended
@scenes(useless)
@pytest.mark.parametrize(
    ("experiment", "reason"), [("corrupt", "cannot be read"), ("other", "settings")]
)
def test_a_useless_checkpoint_starts_from_scratch(stage, undisturbed, experiment, reason):
    project, _ = stage(useless)
    log = project.train_log(experiment)
    assert reason in log
    assert "training starts from scratch" in log
    assert project.record(experiment)["resumes"] == 0
    assert project.outcome(experiment) == undisturbed(2)


@pytest.mark.extended
@scenes(full)
def test_a_full_disk_leaves_no_partial_file(stage):
    project, (failed, left) = stage(full)
    assert failed.returncode == 1
    assert "cannot write results/small/runs/short/seed1/model.safetensors" in failed.stdout
    assert left == {"train.log", "progress.json"}
    assert (project.run_folder("short") / "accuracy.csv").exists()


@pytest.mark.extended
@scenes(diverging)
def test_a_divergence_ends_the_run_soon_and_is_explained(stage):
    project, (printed, seconds) = stage(diverging)
    print(f"ended {seconds:.0f} s after its cause")
    assert "the training loss is nan at epoch 1, step 2" in printed
    assert "bad, seed 1: train failed: the training loss is nan at epoch 1, step 2" in printed
    assert project.train_log("bad").count("Train Epoch: 1 [0/2000") == 1  # the retries knew
    assert (project.run_folder("good") / "accuracy.csv").exists()
    why = project.show("status", "--why", "bad/seed1")
    assert "It fails whenever it is tried: change experiments.bad" in why


@pytest.mark.extended
@scenes(no_gpu)
def test_a_gpu_job_goes_to_the_gpu_partition_and_fails_loudly_without_one(stage):
    project, (printed, seconds) = stage(no_gpu)
    print(f"ended {seconds:.0f} s after its cause")
    assert "device cuda: torch sees no GPU here. Check `nvidia-smi` on this node" in printed
    assert "gpu, seed 1: train is not done; see results/small/logs/train-gpu-seed1.log" in printed
    rows = [row for row in project.accounting("Partition,AllocTRES,NodeList") if "train" in row[0]]
    assert rows
    for _, partition, resources, node in rows:
        assert (partition, node) == ("gpu", "gpu1")
        assert "gres/gpu=1" in resources
    assert (project.results / "resources.csv").is_file()  # after a failed run too
    assert list((project.results / "logs" / "slurm").rglob("*.log"))  # Slurm's own, of the failed
    why = project.show("status", "--why", "gpu/seed1")
    assert "FAILED" in why
    assert "torch sees no GPU" in why


@pytest.mark.extended
@scenes(lesson)
def test_the_lesson_asks_slurm_for_what_it_did_and_gives_the_same_answer(stage, finished_once):
    project, _ = stage(lesson)
    trained = {
        row[0]: row[1:]
        for row in project.accounting("Timelimit,ReqMem,ReqCPUS,State,Partition")
        if "train" in row[0]
    }
    assert trained == {
        "rule_train_wildcards_mlp_1": ["00:05:00", "3G", "1", "COMPLETED", "cpu"],
        "rule_train_wildcards_cnn_1": ["00:15:00", "3G", "1", "COMPLETED", "cpu"],
    }
    job = project.record("mlp")["slurm"]["job_id"]
    steps = project.run("sacct", "-n", "-P", f"--jobs={job}", "--format=JobID,JobName").stdout
    # The training and the evaluation, and no Snakemake.
    assert steps.splitlines()[1:] == [f"{job}.batch|batch", f"{job}.0|bash", f"{job}.1|bash"]
    changing = {"train_seconds", "images_per_second", "peak_memory_mb", "resumes", "host"}
    changing |= {"slurm_job_id", "partition", "git_commit"}
    tables = []
    for each in (project, finished_once):
        header, *rows = (each.results / "report.csv").read_text().splitlines()
        keep = [i for i, name in enumerate(header.split(",")) if name not in changing]
        tables.append([[row.split(",")[i] for i in keep] for row in [header, *rows]])
    assert tables[0] == tables[1]
    slurm = project.record("mlp")["slurm"]
    assert slurm["partition"] == "cpu"
    assert slurm["submit_time"] <= slurm["start_time"]


def test_make_status_and_why(slurm, tmp_path):
    project = SlurmProject(tmp_path / "project")
    environment = {**os.environ, "VENV": str(BIN.parent)}
    assert "not started" in project.run("make", "status", env=environment).stdout
    done = project.run("make", "why", "RUN=cnn/seed1", env=environment)
    assert "cnn/seed1: not started" in done.stdout
    done = project.run("make", "why", "RUN=nosuch/seed1", env=environment, check=False)
    assert done.returncode != 0
    assert "there is no run 'nosuch/seed1'; there are: mlp/seed1, cnn/seed1" in done.stdout


@pytest.mark.extended
@scenes(broken)
def test_a_failed_training_leaves_the_run_before_it(stage):
    """The training has not written its files; Snakemake must not remove those of the one before."""
    _, (failed, before, after) = stage(broken)
    assert failed.returncode != 0
    assert "has no attribute 'fc3'" in failed.stdout
    assert after == before


@pytest.mark.extended
@scenes(benchmarked)
def test_a_rule_that_needs_snakemake_on_the_node_has_it_there(stage):
    project, _ = stage(benchmarked)
    assert (project.results / "mlp-1.tsv").read_text().startswith("s\th:m:s\t")
    assert (project.run_folder("mlp") / "accuracy.csv").exists()
