"""resources.csv: what is said of each job, with accounting and without."""

import csv
import dataclasses
import math
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT

from lib.cluster import submissions, usage
from lib.core import records
from lib.study.config import read_study

PEAK = 795.3  # MiB, of a training by its own count
# Printed by Slurm 22.05: it looked at the job's memory once, before the training had any.
SACCT = """\
3|COMPLETED|0:0|cpu|cpu1|2026-11-26T00:43:29|2026-11-26T00:43:29|1|15|1|1|3072M|00:00.002||None
3.batch|COMPLETED|0:0||cpu1|2026-11-26T00:43:29|2026-11-26T00:43:29|1||1|1||00:00.002|3.14M|
"""


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study on a machine without Slurm."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PATH", "")
    small = read_study([Path("tests/data/config.yaml")], {})
    return dataclasses.replace(small, results_dir=str(tmp_path / "results"))


def submitted(study, job_id: str, experiment: str = "mlp", rule: str = "train") -> None:
    """Write down a job, as the executor does."""
    job = SimpleNamespace(name=rule, wildcards={"experiment": experiment, "seed": "1"})
    submissions.record(study.layout, job_id, "a-run", job)


def trained(study, job_id: str | None) -> None:
    """Write the record of a training."""
    path = study.layout.run("mlp", 1).record
    path.parent.mkdir(parents=True)
    slurm = job_id and {
        "job_id": job_id,
        "partition": "cpu",
        "submit_time": "2026-11-26T00:43:29",
        "start_time": "2026-11-26T00:43:39",
    }
    records.write(path, {"slurm": slurm, "seconds": 61.5, "peak_memory_mb": PEAK}, [])


def answer_of_sacct(folder: Path, text: str, monkeypatch) -> None:
    """Let `sacct` print what it has printed before, and squeue nothing."""
    folder.mkdir()
    (folder / "text").write_text(text)
    for name, body in (("sacct", f"exec cat {folder}/text"), ("squeue", "true")):
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/bin")


def table(study) -> list[dict[str, str]]:
    """Return the rows of a new resources.csv."""
    usage.write(study)
    with study.layout.resources.open() as file:
        return list(csv.DictReader(file))


def megabytes(suggestion: str) -> int:
    """Return the memory that is suggested."""
    return int(suggestion.partition("MB: ")[2].split()[0])


def test_memory_that_is_suggested_was_enough(study, tmp_path, monkeypatch):
    """sacct misses the peak of a job that is short."""
    answer_of_sacct(tmp_path / "bin", SACCT, monkeypatch)
    submitted(study, "3")
    (row,) = table(study)
    assert megabytes(row["suggestion"]) == 100
    trained(study, "3")
    (row,) = table(study)
    assert float(row["mem_used_mb"]) == 3.14  # what sacct has counted
    assert "asked 3072 MB, used 795 MB: 1000 MB would do" in row["suggestion"]


@pytest.mark.parametrize("used", [1.0, 83.3, 83.4, 500.0, 795.3, 2559.9, 2560.1, 30000.0])
def test_a_suggestion_is_a_fifth_above_the_peak(used):
    enough = megabytes(usage.memory_suggestion(3072, used))
    assert enough >= math.floor(1.2 * used)
    assert enough - 1.2 * used <= 100


def test_a_job_that_was_killed_on_a_whole_node(study, tmp_path, monkeypatch):
    """Some sites ignore the memory that is asked for: Slurm names none."""
    killed = SACCT.replace("COMPLETED|0:0", "OUT_OF_MEMORY|0:125").replace("3072M", "0")
    answer_of_sacct(tmp_path / "bin", killed, monkeypatch)
    submitted(study, "3")
    (row,) = table(study)
    assert (row["mem_asked_mb"], row["state"]) == ("", "OUT_OF_MEMORY")
    assert row["suggestion"] == "asked all memory of the node, needs more"


def test_more_cores_than_were_asked_for(study, tmp_path, monkeypatch):
    answer_of_sacct(tmp_path / "bin", SACCT.replace("|15|1|1|", "|15|1|8|"), monkeypatch)
    submitted(study, "3")
    (row,) = table(study)
    assert (row["cpus_asked"], row["cpus_allocated"]) == ("1", "8")
    assert float(row["cpu_efficiency"]) == pytest.approx(0.002 / 8)
    assert row["suggestion"].startswith("asked 1 cores, got 8: ")


def test_without_slurm_the_records_say_it(study):
    """A job without a record has a row too: that it was submitted is known."""
    submitted(study, "3")
    submitted(study, "4", experiment="cnn")
    trained(study, "3")
    mlp, cnn = table(study)
    assert (mlp["slurm_job_id"], mlp["state"], mlp["partition"]) == ("3", "COMPLETED", "cpu")
    assert (mlp["cpus_asked"], mlp["mem_asked_mb"], mlp["time_asked_minutes"]) == (
        "1",
        "1536",
        "20",
    )
    assert (float(mlp["mem_used_mb"]), float(mlp["queue_seconds"])) == (PEAK, 10)
    assert (mlp["elapsed_seconds"], mlp["cpus_allocated"], mlp["cpu_efficiency"]) == (
        "61.5",
        "",
        "",
    )
    assert megabytes(mlp["suggestion"]) == 1000
    assert (cnn["slurm_job_id"], cnn["state"], cnn["suggestion"]) == ("4", "UNKNOWN", "")
    assert "resources.csv: no accounting (cannot start sacct: No such file" in usage.write(study)


def test_an_attempt_before_the_one_that_was_recorded_stays_unknown(study):
    submitted(study, "3")
    submitted(study, "4")
    trained(study, "4")
    assert [row["state"] for row in table(study)] == ["UNKNOWN", "COMPLETED"]


def test_a_run_on_this_machine(study):
    trained(study, None)
    (row,) = table(study)
    assert (row["slurm_job_id"], row["state"], row["elapsed_seconds"]) == ("", "COMPLETED", "61.5")
    assert usage.write(study) == ""  # Slurm was not asked: nothing is missing


def test_a_study_of_other_runs_in_the_same_folder(study):
    """The jobs of experiments that the config does not have are not its own."""
    submitted(study, "3")
    alone = dataclasses.replace(study, experiments={"cnn": study.experiments["cnn"]})
    assert table(alone) == []
    assert [row["slurm_job_id"] for row in table(study)] == ["3"]
