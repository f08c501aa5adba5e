"""Many runs in one Slurm job, and what a cluster does to such jobs: each a project of its own.

All train the same network with the same seeds, and must end with the bytes of an undisturbed run.
"""

import csv
import json
import os
import signal
from contextlib import suppress

import psutil
import pytest
from conftest import PATIENCE
from slurm_project import NETWORK, scenes, wait_for

pytestmark = pytest.mark.usefixtures("accounting")
SEEDS = (1, 2, 3)
KILLS = 4
LIMITS = "mem_mb: 700, runtime: 20"
SHORT = f"short: {{{NETWORK}, {LIMITS}, epochs: 12}}"
PACKED = {"seeds": list(SEEDS), "runs_per_job": 9, "cpus_per_job": 3}


def submitted(project) -> list[list[str]]:
    """Return the jobs that were submitted, each with its number of runs and its last state."""
    rows = {row[1]: row for row in project.accounting("JobID,State")}
    first = {job: row[0].split()[0] if " the first" in row[0] else "1" for job, row in rows.items()}
    return [[first[job], rows[job][2].split()[0]] for job in sorted(rows, key=int)]


def finish(project, process):
    """Wait for the end of the workflow, which must be a success."""
    wait_for(lambda: process.poll() is not None, project.waiting_for)
    assert process.returncode == 0, project.printed()[-6000:]


def process_of(project, seed: int) -> int:
    """Return the process that trains a run."""
    return json.loads(project.lease("short", seed).read_text())["process"]


def uninterrupted(project):
    """Nothing happens, but that all wait while one asks how they are."""
    project.configure(SHORT, **PACKED)
    process = project.start()
    project.pack_trained("short", SEEDS)
    training = [process_of(project, seed) for seed in SEEDS]
    for each in training:
        os.kill(each, signal.SIGSTOP)
    running = project.show("status"), project.show("status", "--why", "short/seed2")
    for each in training:
        os.kill(each, signal.SIGCONT)
    finish(project, process)
    return running


def one_killed(project):
    """The process of one run is killed."""
    project.configure(SHORT, **PACKED)
    process = project.start()
    project.pack_trained("short", SEEDS)
    os.kill(process_of(project, 2), signal.SIGKILL)
    finish(project, process)


def main_killed(project):
    """The process that works on all runs is killed more often than there are retries."""
    long = SHORT.replace("epochs: 12", "epochs: 50")
    project.configure(long, **PACKED | {"cpus_per_job": 2})
    process = project.start()
    saved = {}
    for _ in range(KILLS):
        wait_for(lambda before=saved: since(project, before), project.waiting_for)
        (job,) = project.pack_ids()
        for each in psutil.process_iter(["cwd", "cmdline"]):
            works = any(word.endswith("scripts/job.py") for word in each.info["cmdline"] or [])
            if works and each.info["cwd"] == str(project.folder):
                each.kill()
        wait_for(lambda killed=job: killed not in project.pack_ids(), "the end of the job")
        saved = checkpoints(project)
    finish(project, process)


def checkpoints(project) -> dict[int, int]:
    """Return when each run that has one has saved its checkpoint."""
    paths = {seed: project.checkpoint("short", seed) for seed in SEEDS}
    found = {}
    for seed, path in paths.items():
        with suppress(FileNotFoundError):
            found[seed] = path.stat().st_mtime_ns
    return found


def since(project, saved: dict[int, int]) -> bool:
    """Return whether all runs that are being trained have saved a checkpoint since."""
    now = checkpoints(project)
    training = [seed for seed in SEEDS if project.lease("short", seed).exists()]
    return bool(training) and all(now.get(seed) not in (None, saved.get(seed)) for seed in training)


def put_back(project):
    """Others want the node, and Slurm starts the job again, with one run that is done."""
    quick = f"quick: {{{NETWORK}, {LIMITS}, epochs: 2}}"
    # All at once: Snakemake names them in any order.
    project.configure(f"{quick}\n{SHORT}", **PACKED | {"cpus_per_job": 6})
    process = project.start()
    done = project.run_folder("quick", 3) / "evaluation.json"
    wait_for(done.exists, "the first runs")
    (job,) = project.pack_ids()
    wait_for(project.checkpoint("short").exists, "a checkpoint")
    logs = [project.results / "logs" / f"{rule}-quick-seed3.log" for rule in ("train", "evaluate")]
    before = [log.read_text() for log in logs]
    project.run("scontrol", "requeue", job)
    finish(project, process)
    return before, [log.read_text() for log in logs]


def too_little_memory(project):
    project.configure(SHORT.replace("mem_mb: 700", "mem_mb: 1"), **PACKED)
    finish(project, project.start())


def too_little_time(project):
    """What runs one after the other does not end in time; some of it does."""
    slow = SHORT.replace("Slow", "Slow, pause: 0.12").replace("runtime: 20", "runtime: 1")
    project.configure(slow, **PACKED | {"cpus_per_job": 1})
    finish(project, project.start())


def ctrl_c(project):
    """Interrupt Snakemake, and run it again."""
    project.configure(SHORT.replace("epochs: 12", "epochs: 50"), **PACKED)
    process = project.start()
    project.pack_trained("short", SEEDS)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) != 0
    wait_for(lambda: not project.pack_ids(), "the jobs to be canceled")
    kept = [project.checkpoint("short", seed).exists() for seed in SEEDS]
    project.configure(SHORT.replace("epochs: 12", "epochs: 50"), **PACKED | {"runs_per_job": 2})
    project.slurm_run()
    return kept


def searched(project):
    """A search, whose chosen point is trained again."""
    sweep = "sweep: {optimizer.lr: [0.001, 1.0], refit: true}"
    project.configure(
        f"best: {{{NETWORK}, {LIMITS}, epochs: 2, validation_size: 500, {sweep}}}", **PACKED
    )
    finish(project, project.start())


def outcomes(project, experiment="short") -> list[bytes]:
    """Return what a disturbance must not change, of all seeds."""
    files = ("model.safetensors", "predictions.csv.gz")
    return [
        (project.run_folder(experiment, seed) / f).read_bytes() for seed in SEEDS for f in files
    ]


@scenes(uninterrupted)
def test_one_job_trains_and_evaluates_many_runs_with_the_bytes_of_jobs_of_their_own(
    stage, undisturbed
):
    project, (status, why) = stage(uninterrupted)
    assert project.outcome("short") == undisturbed(12)
    assert submitted(project) == [["3", "COMPLETED"]]
    assert [line.split()[:2] for line in status.splitlines() if "train RUNNING" in line] == [
        ["short", str(seed)] for seed in SEEDS
    ]
    assert f"Slurm job {project.record('short')['slurm']['job_id']}" in why
    with (project.results / "resources.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["rule"] for row in rows] == ["pack", "train", "train", "train"]
    assert rows[0]["runs"] == "3"
    assert float(rows[0]["mem_used_mb"]) < float(rows[0]["mem_asked_mb"])
    log = project.results / "logs" / "train-short-seed2.log"
    assert not log.is_symlink()
    assert "Train Epoch: 12 " in log.read_text()


@pytest.mark.extended
@scenes(one_killed, uninterrupted)
def test_of_a_run_that_is_killed_the_others_go_on_and_only_it_is_tried_again(stage):
    project, _ = stage(one_killed)
    assert outcomes(project) == outcomes(stage(uninterrupted)[0])
    assert submitted(project) == [["3", "FAILED"], ["1", "COMPLETED"]]
    assert [project.record("short", seed)["resumes"] for seed in SEEDS] == [0, 1, 0]


@pytest.mark.extended
@scenes(main_killed)
def test_a_job_whose_main_process_is_killed_uses_up_no_retry(stage, undisturbed):
    """But of a run that has begun a moment before, it may."""
    project, _ = stage(main_killed)
    assert project.outcome("short") == undisturbed(50)
    assert [state for _, state in submitted(project)] == ["FAILED"] * KILLS + ["COMPLETED"]


@pytest.mark.extended
@scenes(put_back, uninterrupted)
def test_a_job_that_is_started_again_resumes_what_is_not_done(stage):
    project, (before, after) = stage(put_back)
    assert outcomes(project) == outcomes(stage(uninterrupted)[0])
    assert submitted(project) == [["6", "COMPLETED"]]
    assert project.record("short")["resumes"] == 1
    assert before == after  # a run that was done is left alone


@pytest.mark.extended
@scenes(too_little_memory, uninterrupted)
def test_what_was_killed_for_memory_asks_for_more(stage):
    project, _ = stage(too_little_memory)
    assert outcomes(project) == outcomes(stage(uninterrupted)[0])
    asked = [row[1] for row in project.accounting("ReqMem") if " the first" in row[0]]
    assert len(asked) > 1
    assert asked[0] != asked[-1]
    assert "it was killed for using more memory than it asked for" in project.printed()


@pytest.mark.extended
@scenes(too_little_time, uninterrupted)
def test_what_is_left_when_the_time_is_up_goes_on_in_another_job(stage):
    project, _ = stage(too_little_time)
    assert outcomes(project) == outcomes(stage(uninterrupted)[0])
    (first, state), (second, _), *_ = submitted(project)
    assert (first, state in ("TIMEOUT", "FAILED")) == ("3", True)
    assert second in ("1", "2")
    assert "What is left of it is submitted again." in project.printed()


@pytest.mark.extended
@scenes(searched)
def test_what_a_search_has_chosen_is_trained_again_in_a_job_of_its_own(stage):
    project, _ = stage(searched)
    assert submitted(project) == [["6", "COMPLETED"], ["3", "COMPLETED"]]
    with (project.results / "report.csv").open() as file:
        assert [(row["experiment"], row["seed"]) for row in csv.DictReader(file)] == [
            ("best", str(seed)) for seed in SEEDS
        ]
    with (project.results / "resources.csv").open() as file:
        names = [row["experiment"] for row in csv.DictReader(file) if row["rule"] == "train"]
    assert names.count("best") == 3
    assert len(names) == 9


@pytest.mark.extended
@scenes(ctrl_c)
def test_ctrl_c_cancels_the_jobs_and_the_next_run_goes_on(stage, undisturbed):
    project, kept = stage(ctrl_c)
    assert kept == [True] * 3
    assert project.outcome("short") == undisturbed(50)
    assert [project.record("short", seed)["resumes"] for seed in SEEDS] == [1, 1, 1]
    assert sorted(runs for runs, _ in submitted(project)) == ["1", "2", "3"]
