"""A job that has ended is tried again in a way that fits the cause, or not at all."""

from pathlib import Path

import pytest
from conftest import PATIENCE
from slurm_project import NETWORK, PARTITIONS, SlurmProject, scenes, wait_for

from lib.cluster.job_end import JobReport

LIMITS = "epochs: 1, runtime: 20"
# Slurm warns the training `time` after 60 seconds, of the 80 that its network sleeps.
STUDY = f"""
memory: {{{NETWORK}, epochs: 2, mem_mb: 300, runtime: 20}}
canceled: {{{NETWORK}, epochs: 12, mem_mb: 1600, runtime: 20}}
time: {{{NETWORK}, epochs: 50, mem_mb: 1600, runtime: 2}}
bad: {{model: {{name: MLP}}, optimizer: {{name: SGD, lr: 1e30}}, mem_mb: 1500, {LIMITS}}}
wrong: {{model: {{name: MLP}}, mem_mb: 1500, {LIMITS}}}
"""
FIELDS = "JobID,State,ReqMem,Timelimit"


def failing(project):
    """Run a study in which each job ends too early, or fails, in a way of its own."""
    project.configure(STUDY)
    # A run whose folder cannot be made fails like a wrong config: in its first second, for good.
    (project.results / "runs" / "wrong").mkdir(parents=True)
    (project.results / "runs" / "wrong" / "seed1" / "lease.json").mkdir(parents=True)
    project.hand_over()
    process = project.start("--retries", "2")
    job = project.trained("canceled")
    project.run("scancel", job)
    wait_for(lambda: process.poll() is not None, project.waiting_for)
    assert process.returncode == 1, project.printed()[-6000:]


pytestmark = [pytest.mark.usefixtures("accounting"), scenes(failing)]


@pytest.fixture
def project(stage):
    """The project of the study."""
    return stage(failing)[0]


def attempts(project, experiment) -> list[list[str]]:
    """Return state, memory and time of the trainings of an experiment, in their order."""
    rows = project.accounting(FIELDS)
    return [row[2:] for row in rows if row[0] == f"rule_train_wildcards_{experiment}_1"]


def test_more_memory_and_the_same_time(project, undisturbed):
    states, memory, time = zip(*attempts(project, "memory"), strict=True)
    assert states[-1] == "COMPLETED"
    assert list(memory) == ["300M", "600M", "900M"][: len(memory)]
    assert len(memory) > 1
    assert set(time) == {"00:20:00"}
    assert "it was killed for using more memory than it asked for" in project.printed()
    assert project.outcome("memory") == undisturbed(2)


def test_more_time_and_the_same_memory(project, undisturbed):
    states, memory, time = zip(*attempts(project, "time"), strict=True)
    assert states[-1] == "COMPLETED"
    assert list(time) == ["00:02:00", "00:04:00", "00:06:00"][: len(time)]
    assert len(time) > 1
    assert set(memory) == {"1600M"}
    assert "stopped by SIGTERM; the checkpoint is saved" in project.train_log("time")
    assert project.record("time")["resumes"] == len(time) - 1
    assert project.outcome("time") == undisturbed(50)


def test_what_was_canceled_is_submitted_as_it_was_and_does_not_count(project, undisturbed):
    first, second = attempts(project, "canceled")
    assert first[0].startswith("CANCELLED")
    assert second[0] == "COMPLETED"
    assert first[1:] == second[1:]
    said = [line for line in project.printed().splitlines() if "preempted or canceled" in line]
    assert len(said) == 1
    assert "It is submitted again." in said[0]
    assert project.record("canceled")["resumes"] == 1
    assert project.outcome("canceled") == undisturbed(12)


@pytest.mark.parametrize("experiment", ["bad", "wrong"])
def test_what_always_fails_is_submitted_once(project, experiment):
    assert [row[0] for row in attempts(project, experiment)] == ["FAILED"]
    (path,) = (project.results / "logs/slurm/rule_train" / f"{experiment}_1").glob("*.json")
    report = JobReport.read(path)
    assert report.runs == {
        f"{experiment}/seed1": {"train": {"status": 1, "cause": "DETERMINISTIC"}}
    }


@pytest.mark.extended
def test_a_node_that_cannot_start_a_job_is_left_out(stage, tmp_path):
    """Slurm holds a job that its daemon cannot start, and would start it there again.

    `only` can run on gpu1 alone. `mlp` has to wait for cpu2, once it could not be started on cpu1.
    """
    stage.wait()  # what is broken here is broken for all jobs
    starter = Path("/var/lib/slurm-throwaway/slurmstepd")
    project = SlurmProject(tmp_path / "project")
    (project.folder / "profiles/slurm/partitions.yaml").write_text(PARTITIONS)
    model = "{model: {name: MLP}, epochs: 1, mem_mb: 1500, runtime: %d}"
    project.configure(f"mlp: {model % 2}\nonly: {model % 700}")

    def set_state(node, state, *reason):
        update = ("scontrol", "update", f"nodename={node}", f"state={state}", *reason)
        project.as_root(*update, check=False)

    set_state("cpu2", "drain", "reason=test")
    starter.chmod(0o644)
    try:
        process = project.start()
        given_up = "There is no other node for it."
        wait_for(lambda: given_up in project.printed(), project.waiting_for)
    finally:
        starter.chmod(0o755)
        for node in ("cpu1", "cpu2", "gpu1"):
            set_state(node, "resume")
    assert process.wait(PATIENCE) == 1
    printed = project.printed()
    assert (project.run_folder("mlp") / "accuracy.csv").exists()
    assert printed.count("was held after a failed start: releasing it") == 2
    assert printed.count(given_up) == 1
    for node in ("cpu1", "gpu1"):
        assert f"Jobs could not run on the node {node}, which was not used any more" in printed
    assert "Tell the support of the cluster" in printed
