"""What Slurm says of a study's jobs: of this study only, whatever a user or a site has set."""

import csv
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import uuid
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT, cluster
from slurm_project import wait_for

import status
from lib.cluster import submissions, usage
from lib.cluster.slurm import run
from lib.core import records
from lib.study.config import read_study

pytestmark = pytest.mark.extended
# With each of them in the environment, jobs were missing or had times of another form.
SET_BY_USERS = {
    "SQUEUE_PARTITION": "gpu",
    "SQUEUE_ACCOUNT": "nosuch",
    "SQUEUE_QOS": "high",
    "SQUEUE_USERS": "nobody",
    "SQUEUE_LICENSES": "nosuch",
    "SLURM_TIME_FORMAT": "relative",
}


class Submitter:
    """A study that submits jobs as the executor does, all of one name."""

    def __init__(self, results: Path, name: str):
        small = read_study([Path("tests/data/config.yaml")], {})
        self.study, self.name = dataclasses.replace(small, results_dir=str(results)), name
        self.layout = self.study.layout

    def submit(self, *options, rule="train", experiment="cnn", command="sleep 600") -> str:
        """Submit a job and write it down; return its id."""
        options += ("--time=15", "--mem=300", "--output=/dev/null")
        words = ["sbatch", "--parsable", f"--job-name={self.name}", *options, "--wrap", command]
        # From the root, as nothing of the project is needed there.
        done = subprocess.run(words, cwd="/", capture_output=True, text=True, check=True)
        job_id = done.stdout.strip()
        job = SimpleNamespace(name=rule, wildcards={"experiment": experiment, "seed": "1"})
        submissions.record(self.layout, job_id, self.name, job)
        return job_id

    def ended(self, job_id: str):
        """Wait until accounting knows how a job has ended; return it."""

        def found():
            job = {job.job_id: job for job in submissions.jobs(self.layout)}[job_id]
            return job.state not in submissions.ACTIVE and job.exit_code and job  # not from squeue

        return wait_for(found, f"the end of job {job_id}")

    def status(self) -> str:
        return status.table(self.study, submissions.jobs(self.layout))

    def why(self, run: str = "cnn/seed1", configs=()) -> str:
        return status.explain(self.study, submissions.jobs(self.layout), run, configs)

    def resources(self) -> list[dict[str, str]]:
        usage.write(self.study)
        with self.layout.resources.open() as file:
            return list(csv.DictReader(file))


@pytest.fixture
def submitter(slurm, tmp_path, monkeypatch):
    """Return a function that gives the study of a `results_dir`. In the end, cancel all jobs."""
    monkeypatch.chdir(ROOT)
    name = f"accounting-{uuid.uuid4()}"
    yield lambda folder: Submitter(tmp_path / folder, name)
    subprocess.run(["scancel", f"--name={name}"], check=True)


def test_studies_in_one_clone_are_not_mixed(submitter):
    """They have the same experiments. A study that never ran shows no job."""
    one, other, third = submitter("one"), submitter("other"), submitter("third")
    mine, others = one.submit("--hold"), other.submit("--hold")
    for study, job, foreign in ((one, mine, others), (other, others, mine)):
        assert "train PENDING" in study.status()
        assert f" {foreign} " not in study.status()
        assert f"Slurm job {job} " in study.why()
        assert f"Slurm job {foreign} " not in study.why()
        assert [row["slurm_job_id"] for row in study.resources()] == [job]
    assert third.status().count("not started") == 2
    assert "Slurm job" not in third.why()
    assert third.resources() == []


@pytest.mark.parametrize("name", SET_BY_USERS)
def test_what_users_set_changes_nothing(accounting, submitter, monkeypatch, name):
    study = submitter("results")
    waits, done = study.submit("--hold"), study.submit(experiment="mlp", command="true")
    study.ended(done)
    plain = study.status(), study.why("mlp/seed1"), study.resources()
    monkeypatch.setenv(name, SET_BY_USERS[name])
    assert (study.status(), study.why("mlp/seed1"), study.resources()) == plain
    assert "JobHeldUser" in plain[0]
    assert [row["slurm_job_id"] for row in plain[2]] == [waits, done]
    assert float(plain[2][1]["queue_seconds"]) >= 0


def test_partitions_that_users_do_not_want_to_see_are_there(slurm, monkeypatch):
    monkeypatch.setenv("SINFO_PARTITION", "gpu")
    shown = run(["sinfo", "--noheader", "--format=%R"]).stdout
    assert {"cpu", "gpu"} <= set(shown.split())


def test_the_record_has_times_of_one_form(accounting, submitter, tmp_path, monkeypatch):
    """The environment of `sbatch` is that of the job."""
    study, said = submitter("results"), tmp_path / "said"
    code = "import json; from lib.core import provenance; print(json.dumps(provenance.slurm_job()))"
    monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "scripts"))
    job = study.submit(command=f"{sys.executable} -c '{code}' > {said}")
    assert study.ended(job).state == "COMPLETED"
    record = json.loads(said.read_text())
    assert record["job_id"] == job
    assert datetime.fromisoformat(record["start_time"]).year >= 2026


def test_the_cores_of_a_whole_node_are_counted(accounting, submitter):
    """For a core's work, all cores of the node were taken: the efficiency is small."""
    study = submitter("results")
    busy = "timeout 4 sh -c 'while :; do :; done'; true"
    job = study.ended(study.submit("--exclusive", command=busy))
    node = subprocess.run(
        ["sinfo", "--noheader", f"--nodes={job.node}", "--format=%c"],
        capture_output=True,
        text=True,
    )
    cores = int(node.stdout.split()[0])
    assert cores > 1
    assert (job.cpus, job.cpus_allocated) == (1, cores)
    assert 0 < job.cpu_efficiency <= 1.5 / cores
    (row,) = study.resources()
    assert (row["cpus_asked"], row["cpus_allocated"]) == ("1", str(cores))
    assert row["suggestion"].startswith(f"asked 1 cores, got {cores}: ")
    assert f"1 cores ({cores} allocated)" in study.why()


def without_sacct(folder: Path) -> str:
    """Return a PATH on which there is squeue, but no sacct."""
    folder.mkdir()
    (folder / "squeue").symlink_to(shutil.which("squeue"))
    return f"{folder}{os.pathsep}/nowhere"


@pytest.mark.parametrize("missing", ["not installed", "away"])
def test_without_accounting(submitter, tmp_path, monkeypatch, request, missing):
    """A job that squeue knows is shown as it is, a forgotten one by its own files."""
    if missing == "away":
        request.getfixturevalue("accounting")
    study = submitter("results")
    waits, forgotten = study.submit("--hold"), "987654321"
    trained = SimpleNamespace(name="train", wildcards={"experiment": "mlp", "seed": "1"})
    submissions.record(study.layout, forgotten, study.name, trained)
    record = study.layout.run("mlp", 1).record
    record.parent.mkdir(parents=True)
    content = {"slurm": {"job_id": forgotten}, "seconds": 61.5, "peak_memory_mb": 795.3}
    records.write(record, content, [])
    if missing == "away":
        assert cluster("stop", "slurmdbd").returncode == 0
    else:
        monkeypatch.setenv("PATH", without_sacct(tmp_path / "bin"))
    try:
        answer, rows = submissions.ask(study.layout), study.resources()
        note = usage.write(study.study)
        why = study.why()
    finally:
        monkeypatch.undo()
        if missing == "away":
            assert cluster("start", "slurmdbd").returncode == 0
    assert [(job.job_id, job.state) for job in answer.jobs] == [
        (waits, "PENDING"),
        (forgotten, submissions.UNKNOWN),
    ]
    assert answer.no_accounting in note
    assert "sacct" in note
    assert f"Slurm job {waits} (train, cpu ): PENDING\n  it is pending (JobHeldUser)\n" in why
    assert [(row["slurm_job_id"], row["state"], row["mem_used_mb"]) for row in rows] == [
        (waits, "PENDING", ""),
        (forgotten, "COMPLETED", "795.3"),
    ]


def test_a_canceled_job_is_gone_on_with_by_the_same_config(accounting, submitter):
    study = submitter("results")
    job = study.submit()
    wait_for(lambda: "RUNNING" in study.status(), "the job to start")
    subprocess.run(["scancel", job], check=True)
    assert study.ended(job).state == "CANCELLED"
    why = study.why(configs=[Path("slurm.yaml")])
    assert "it was canceled (scancel, or Ctrl-C in Snakemake)" in why
    assert why.endswith("snakemake --profile profiles/slurm --configfile slurm.yaml")
