"""One run of the workflow through everything that a cluster does to a job.

Several networks train side by side, and each meets another fate; meanwhile the daemons fail. All
have the settings of one that trains in peace on this machine, and must end with its bytes.
"""

import csv
import json
import os
import signal
import subprocess
import time

import pytest
from conftest import BIN, cluster, fresh_project
from slurm_project import SlurmProject, wait_for

FATES = ("cancelled", "killed", "requeued", "preempted")
NETWORK = "model: {name: CNN}, shuffle: true"
LIMITS = "mem_mb: 1600, runtime: 10"


@pytest.fixture(scope="module")
def storm(slurm, tmp_path_factory):
    """The project after the storm, with a `calm` run for comparison."""
    project = SlurmProject(fresh_project(tmp_path_factory.mktemp("storm") / "project").folder)
    project.configure(
        "\n".join(
            [
                *(f"{fate}: {{{NETWORK}, {LIMITS}, epochs: 5}}" for fate in FATES),
                f"memory: {{{NETWORK}, mem_mb: 800, runtime: 10, epochs: 5}}",
                f"time: {{{NETWORK}, mem_mb: 1600, runtime: 2, epochs: 10}}",
            ]
        )
    )
    process = project.start()
    try:
        through(project)
        assert process.wait(timeout=420) == 0, project.printed()[-6000:]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(60)
    calm(project)
    return project


def through(project):
    """Let each job meet its fate once it has done an epoch, then stop the daemons."""
    log = project.results / "logs" / "train-time-seed1.log"
    wait_for(lambda: log.exists() and "stopped by" in log.read_text(), 180, "the time limit")
    for fate in FATES:
        checkpoint = project.run_folder(fate) / "checkpoint.safetensors"
        wait_for(checkpoint.exists, 180, f"{fate}'s first checkpoint")
    (job,) = project.job_ids("cancelled")
    project.run("scancel", job)
    lease = json.loads((project.run_folder("killed") / "lease.json").read_text())
    os.kill(lease["process"], signal.SIGKILL)
    (job,) = project.job_ids("requeued")
    project.run("scontrol", "requeue", job)
    (job,) = project.job_ids("preempted")
    node = project.run("squeue", "--noheader", f"--job={job}", "--format=%N").stdout.strip()
    urgent = ("--partition=urgent", f"--nodelist={node}", "--exclusive", "--time=1")
    project.run("sbatch", *urgent, "--output=/dev/null", "--wrap", "sleep 3", cwd="/")
    time.sleep(10)
    for daemons in (["slurmctld"], ["slurmdbd"], ["slurmctld", "slurmdbd"]):
        for daemon in daemons:
            assert cluster("stop", daemon).returncode == 0
        time.sleep(30)
        for daemon in reversed(daemons):
            assert cluster("start", daemon).returncode == 0


def calm(project):
    """Train the same networks in peace, without Slurm."""
    (project.folder / "calm.yaml").write_text(
        (project.folder / "slurm.yaml")
        .read_text()
        .replace("results_dir: results/small", "results_dir: results/calm")
        .split("experiments:")[0]
        + f"experiments:\n  five: {{{NETWORK}, epochs: 5}}\n  ten: {{{NETWORK}, epochs: 10}}\n"
    )
    subprocess.run(
        [BIN / "snakemake", "--profile", "profiles/local", "--configfile", "calm.yaml"],
        cwd=project.folder,
        check=True,
        capture_output=True,
    )


@pytest.mark.parametrize("fate", [*FATES, "memory", "time"])
def test_it_ends_with_the_bytes_of_a_calm_run(storm, fate):
    calm_name = "ten" if fate == "time" else "five"
    calm_folder = storm.folder / "results" / "calm" / "runs" / calm_name / "seed1"
    for file in ("model.safetensors", "predictions.csv.gz"):
        theirs = (calm_folder / file).read_bytes()
        assert (storm.run_folder(fate) / file).read_bytes() == theirs, file


@pytest.mark.parametrize("fate", [*FATES, "time"])
def test_it_went_on_from_its_checkpoint(storm, fate):
    assert storm.record(fate)["resumes"] >= 1
    log = (storm.results / "logs" / f"train-{fate}-seed1.log").read_text()
    assert "resuming at epoch " in log
    assert log.count("Train Epoch: 1 [0/2000") == 1  # never from zero, and nothing is lost of it


def test_the_report_is_complete(storm):
    with (storm.results / "report.csv").open() as file:
        rows = {row["experiment"]: row for row in csv.DictReader(file)}
    assert set(rows) == {*FATES, "memory", "time"}
    assert all(row["slurm_job_id"] and row["partition"] == "cpu" for row in rows.values())


def test_what_was_killed_for_memory_asked_for_more(storm):
    asked = [row[1] for row in storm.accounting("ReqMem") if "train_wildcards_memory" in row[0]]
    assert asked[0] == "800M"
    assert asked[-1] in ("1600M", "1.56G")
    assert "exceeded" in storm.printed()  # Slurm's own log, which is shown, says why


def test_what_ran_out_of_time_asked_for_more(storm):
    asked = [row[1] for row in storm.accounting("Timelimit") if "train_wildcards_time" in row[0]]
    assert asked[0] == "00:02:00"
    assert asked[-1] > asked[0]
    log = (storm.results / "logs" / "train-time-seed1.log").read_text()
    assert "stopped by SIGTERM; the checkpoint is saved" in log


def test_requeued_jobs_came_back_as_themselves(storm):
    for fate in ("requeued", "preempted"):
        jobs = {row[1] for row in storm.accounting("JobID") if f"train_wildcards_{fate}" in row[0]}
        assert storm.record(fate)["slurm"]["job_id"] in jobs


def test_resources_are_what_slurm_counted(storm):
    with (storm.results / "resources.csv").open() as file:
        rows = {row["slurm_job_id"]: row for row in csv.DictReader(file)}
    counted = storm.accounting("JobID,State,ElapsedRaw,ReqCPUS,TimelimitRaw")
    trained = [row[1:] for row in counted if "train_wildcards" in row[0]]
    assert trained
    for job, state, elapsed, cpus, limit in trained:
        row = rows[job]
        assert row["state"] == state.split()[0]
        assert (row["elapsed_seconds"], row["cpus_asked"]) == (elapsed, cpus)
        assert row["time_asked_minutes"] == limit
        if state == "COMPLETED":
            assert 400 < float(row["mem_used_mb"]) < 2000
            assert "MB would do" in row["suggestion"] or "fitting request" in row["suggestion"]


def test_status_and_why_afterwards(storm):
    status = storm.script("status", "--configfile", "slurm.yaml").stdout
    for fate in (*FATES, "memory", "time"):
        line = next(line for line in status.splitlines() if line.split()[:1] == [fate])
        assert " done " in line
    why = storm.script("status", "--configfile", "slurm.yaml", "--why", "cancelled/seed1").stdout
    assert "it was cancelled" in why or "exit code" in why
    assert "The end of results/small/logs/evaluate-cancelled-seed1.log" in why
