"""One run of the workflow through everything that a cluster does to its jobs.

Several networks train side by side, each with a fault of its own; meanwhile a node is lost and the
daemons fail. All have the settings of one that trains undisturbed on this machine, and must end
with its bytes.
"""

import csv
import json
import os
import signal
import time

import pytest
from conftest import PATIENCE, cluster
from slurm_project import NETWORK, SlurmProject, wait_for

pytestmark = pytest.mark.extended
LIMITS = "mem_mb: 1600, runtime: 10"
# What sacct must have seen of each, at least once.
FAULTS = {
    "cancelled": "CANCELLED",
    "killed": "FAILED",
    "requeued": "REQUEUED",
    "preempted": "PREEMPTED",
    "bumped": "REQUEUED",  # by us: its partition cancels what it preempts
    "lost": "NODE_FAIL",
    "time": "TIMEOUT FAILED",  # FAILED where the training acts on the signal in time
    "memory": "FAILED",
}
# The CNN needs more memory than it asks for; all others train the same network, for so long that
# each still trains when its fault comes.
EPOCHS = dict.fromkeys(FAULTS, 50) | {"memory": 3}
CNN = NETWORK.replace("Slow", "CNN")
# It reaches its time limit, though slurmctld, which sends the signal before it, is away for long;
# or it still trains when all that are struck with it have a checkpoint.
LONG = NETWORK.replace("Slow", "Slow, pause: 0.1")
NETWORKS = {"memory": CNN} | dict.fromkeys(("time", "preempted", "bumped"), LONG)
# Jobs that train two runs each, with the faults of the experiment of that name.
PACKS = {"preempted": "PREEMPTED", "lost": "NODE_FAIL"}
SEEDS, PACK_EPOCHS = (1, 2), 50
# By its runtime a job comes to a partition: `spare`, whose jobs Slurm cancels for good when others
# want the node, or the node of `gpu`, which is lost.
PARTITIONS = """
partitions:
  cpu: {max_runtime: 60, max_mem_mb: 12288, max_cpus_per_task: 8}
  spare: {max_runtime: 600, max_mem_mb: 12288, max_cpus_per_task: 8}
  gpu: {max_runtime: 1440, max_mem_mb: 12288, max_cpus_per_task: 8}
"""


@pytest.fixture(scope="module")
def all_injected(accounting, undisturbed, tmp_path_factory):
    """The project after all faults, and the projects of the packs, by fault."""
    project = new_project(tmp_path_factory.mktemp("faults") / "project")
    limits = dict.fromkeys(FAULTS, LIMITS) | {
        "bumped": "mem_mb: 1600, runtime: 100",
        "lost": "mem_mb: 1600, runtime: 700",
        "memory": "mem_mb: 800, runtime: 10",
        "time": "mem_mb: 1600, runtime: 2",
    }
    project.configure(
        "\n".join(
            f"{fault}: {{{NETWORKS.get(fault, NETWORK)}, epochs: {EPOCHS[fault]}, {limits[fault]}}}"
            for fault in FAULTS
        )
    )
    packs = {}
    for fault in PACKS:
        packs[fault] = new_project(tmp_path_factory.mktemp(f"packs-{fault}") / "project")
        less = limits[fault].replace("1600", "700")  # each run; what they share comes to it
        packs[fault].configure(
            f"{fault}: {{{NETWORKS.get(fault, NETWORK)}, epochs: {PACK_EPOCHS}, {less}}}",
            **{"seeds": list(SEEDS), "runs_per_job": 2, "cpus_per_job": 2},
        )
    # On a slow machine the job that runs out of time does so more often than it is retried.
    every = {project: project.start("--retries", "6")}
    every |= {pack: pack.start() for pack in packs.values()}
    try:
        strike_the_jobs(project, packs)
        stop_the_daemons(project, packs)
        for each, process in every.items():
            wait_for(lambda process=process: process.poll() is not None, each.waiting_for)
            assert process.returncode == 0, each.printed()[-6000:]
    finally:
        for process in every.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
                process.wait(PATIENCE)
        assert cluster("start", "slurmd-gpu1").returncode == 0
        # Where it has not come back of itself.
        project.as_root("scontrol", "update", "NodeName=gpu1", "State=RESUME", check=False)
    return project, packs


@pytest.fixture(scope="module")
def injected(all_injected):
    """The project after all faults."""
    return all_injected[0]


def new_project(folder) -> SlurmProject:
    """Return a copy of the project with the partitions of these tests."""
    project = SlurmProject(folder)
    (project.folder / "profiles/slurm/partitions.yaml").write_text(PARTITIONS)
    return project


def strike_the_jobs(project, packs):
    """Inject the fault of each job once it has saved a checkpoint."""
    job = project.trained("cancelled")
    project.run("scancel", job)
    killed = project.trained("killed")
    os.kill(json.loads(project.lease("killed").read_text())["process"], signal.SIGKILL)
    job = project.trained("requeued")
    project.run("scontrol", "requeue", job)
    wait_for(lambda: killed not in project.job_ids("killed"), "the killed job to end")
    jobs = [project.trained(fault) for fault in ("preempted", "bumped")]
    jobs.append(packs["preempted"].pack_trained("preempted", SEEDS))
    for node in {project.node_of(job) for job in jobs}:
        urgent = ("--wait", "--partition=urgent", f"--nodelist={node}", "--exclusive", "--time=1")
        project.as_root("sbatch", *urgent, "--output=/dev/null", "--wrap", "sleep 1", cwd="/")
    project.trained("lost")
    packs["lost"].pack_trained("lost", SEEDS)


def stop_the_daemons(project, packs):
    """Lose a node; stop slurmdbd for 30 s, then slurmctld too, then slurmctld alone."""
    assert project.trains("lost")
    # The jobs on the node live on, and Slurm shall start them again elsewhere.
    project.as_root("scontrol", "update", "PartitionName=gpu", "Nodes=gpu1,cpu1")
    assert cluster("stop", "slurmd-gpu1", "--kill").returncode == 0
    project.as_root("scontrol", "update", "NodeName=gpu1", "State=DOWN", "Reason=lost")
    assert cluster("stop", "slurmdbd").returncode == 0
    time.sleep(30)
    for jobs in (lambda: project.job_ids("lost"), packs["lost"].pack_ids):
        again = lambda jobs=jobs: [project.node_of(job) for job in jobs()] == ["cpu1"]  # noqa: E731
        wait_for(again, "the jobs of the lost node to start again")
    assert cluster("stop", "slurmctld").returncode == 0
    time.sleep(30)
    assert cluster("start", "slurmdbd").returncode == 0
    time.sleep(30)
    assert cluster("start", "slurmctld").returncode == 0


def states(project, fault) -> set[str]:
    """Return the states in which the trainings of an experiment have ended."""
    rows = project.accounting("JobID,State", "--duplicates")
    # Slurm keeps the comment with the last record of a job that was requeued.
    jobs = {job for comment, job, _ in rows if comment == f"rule_train_wildcards_{fault}_1"}
    return {state.split()[0] for _, job, state in rows if job in jobs}


@pytest.mark.parametrize("fault", FAULTS)
def test_it_met_its_fault_and_ends_with_the_bytes_of_an_undisturbed_run(
    injected, undisturbed, fault
):
    assert set(FAULTS[fault].split()) & states(injected, fault)
    assert injected.outcome(fault) == undisturbed(EPOCHS[fault])


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in ("memory", "lost")])
def test_it_resumed_from_its_checkpoint(injected, fault):
    assert injected.record(fault)["resumes"] >= 1
    log = injected.train_log(fault)
    assert "resuming at epoch " in log
    assert log.count("Train Epoch: 1 [0/2000") == 1  # never from zero, and nothing is lost of it


@pytest.mark.parametrize("fault", PACKS)
def test_the_runs_of_a_pack_met_its_fault_too(all_injected, undisturbed, fault):
    pack = all_injected[1][fault]
    rows = pack.accounting("State", "--duplicates")
    seen = {state.split()[0] for comment, state in rows if " the first" in comment}
    assert PACKS[fault] in seen
    assert pack.outcome(fault) == undisturbed(PACK_EPOCHS)
    for seed in SEEDS:
        assert pack.record(fault, seed)["resumes"] == (1 if fault == "preempted" else 0)
        log = (pack.results / "logs" / f"train-{fault}-seed{seed}.log").read_text()
        assert log.count("Train Epoch: 1 [0/2000") == 1
        assert (pack.run_folder(fault, seed) / "evaluation.json").exists()


def test_the_lost_node_had_no_second_writer(injected):
    log = injected.train_log("lost")
    assert log.count("Train Epoch: 1 [0/2000") == 1
    assert "is training into" in log
    assert injected.record("lost")["resumes"] == 0  # the first one, which lived on, finished it
    assert not list((injected.results / "runs").glob("*/*/*lease*"))


def test_the_report_is_complete(injected):
    with (injected.results / "report.csv").open() as file:
        rows = {row["experiment"]: row for row in csv.DictReader(file)}
    assert set(rows) == set(FAULTS)
    for fault, row in rows.items():
        assert row["slurm_job_id"]
        assert row["partition"] == {"bumped": "spare", "lost": "gpu"}.get(fault, "cpu")


def test_what_was_killed_for_memory_asked_for_more(injected):
    asked = [row[1] for row in injected.accounting("ReqMem") if "train_wildcards_memory" in row[0]]
    assert asked[0] == "800M"
    assert asked[-1] in ("1600M", "1.56G")
    with (injected.results / "resources.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["experiment"] == "memory"]
    killed = [row for row in rows if row["suggestion"] == "asked 800 MB, needs more"]
    assert killed[0] == rows[0]
    # Slurm's own log, which is shown, says why: of the training, and of the evaluation, too.
    printed = injected.printed()
    for row in killed:
        assert f"StepId={row['slurm_job_id']}.0 exceeded memory limit" in printed
    assert "using more memory than it asked for" in injected.show("status", "--why", "memory/seed1")


def test_what_ran_out_of_time_asked_for_more(injected):
    asked = [row[1] for row in injected.accounting("Timelimit") if "train_wildcards_time" in row[0]]
    assert asked[0] == "00:02:00"
    assert asked[-1] > asked[0]
    assert "stopped by SIGTERM; the checkpoint is saved" in injected.train_log("time")


def test_requeued_jobs_came_back_as_themselves(injected):
    for fault in ("requeued", "preempted", "bumped"):
        jobs = {
            row[1] for row in injected.accounting("JobID") if f"train_wildcards_{fault}" in row[0]
        }
        assert injected.record(fault)["slurm"]["job_id"] in jobs


def test_resources_are_what_slurm_counted(injected):
    with (injected.results / "resources.csv").open() as file:
        rows = {row["slurm_job_id"]: row for row in csv.DictReader(file)}
    counted = injected.accounting("JobID,State,ElapsedRaw,ReqCPUS,TimelimitRaw")
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


def test_status_and_why_afterwards(injected):
    status = injected.show("status")
    for fault in FAULTS:
        line = next(line for line in status.splitlines() if line.split()[:1] == [fault])
        assert " done " in line
    why = injected.show("status", "--why", "cancelled/seed1")
    assert "it was canceled" in why or "exit code" in why
    assert "The end of results/small/logs/evaluate-cancelled-seed1.log" in why
