"""The report's table."""

import csv
import json
import math
import subprocess
import sys

import pytest
from conftest import ROOT

import report
from cli import Failure


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def run(*options, check=True):
    command = [sys.executable, "scripts/report.py", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_the_rows_are_the_runs(finished_once):
    rows = read(finished_once.results / "report.csv")
    assert list(rows[0]) == report.COLUMNS
    assert [row["experiment"] for row in rows] == ["mlp", "cnn"]  # the config's order
    for row in rows:
        folder = finished_once.results / row["run"]
        record = finished_once.record(row["experiment"])
        overall = read(folder / "accuracy.csv")[-1]
        last = read(folder / "history.csv")[-1]
        assert (row["correct"], row["test_size"]) == (overall["correct"], overall["total"])
        assert float(row["test_accuracy"]) == int(row["correct"]) / 1000
        assert row["test_loss"] == last["loss"]
        assert row["epochs"] == "2"
        assert (row["device"], row["resumes"]) == ("cpu", "0")
        assert row["model"] == record["settings"]["model"]["name"]
        assert int(row["parameters"]) == record["parameters"]
        assert row["torch_version"] == record["versions"]["torch"]
        assert float(row["train_seconds"]) == record["train_seconds"]


def test_the_interval_is_wilsons(finished_once):
    # E. B. Wilson's formula, J. Am. Stat. Assoc. 22 (1927) 209-212, z for 95 %.
    z = 1.959963984540054
    for row in read(finished_once.results / "report.csv"):
        n, p = int(row["test_size"]), float(row["test_accuracy"])
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        assert float(row["accuracy_low"]) == pytest.approx(centre - half, rel=1e-9)
        assert float(row["accuracy_high"]) == pytest.approx(centre + half, rel=1e-9)


def test_all_runs_by_hand(finished_once, tmp_path):
    run("--results", finished_once.results, "--output", tmp_path / "report.csv")
    rows = read(tmp_path / "report.csv")
    assert [row["run"] for row in rows] == ["runs/cnn/seed1", "runs/mlp/seed1"]


def test_runs_have_an_order():
    assert report.named_runs(["b=2,10", "a=1"]) == [("b", 2), ("b", 10), ("a", 1)]


@pytest.mark.parametrize("word", ["mlp", "mlp=", "mlp=a", "a/b=1", "=1"])
def test_a_word_that_names_no_run(word):
    with pytest.raises(Failure, match="EXPERIMENT=SEED"):
        report.named_runs([word])


@pytest.mark.parametrize("file", ["run.json", "evaluation.json", "accuracy.csv"])
@pytest.mark.parametrize("damage", ["torn", "missing"])
def test_a_run_that_is_not_whole_is_named(finished, tmp_path, file, damage):
    path = finished.run_folder("cnn") / file
    path.write_bytes(path.read_bytes()[:40])
    if damage == "missing":
        path.unlink()
    output = tmp_path / "report.csv"
    done = run("--results", finished.results, "--output", output, check=False)
    assert done.returncode == 1
    assert str(path) in done.stderr
    assert not output.exists()


def test_no_runs_at_all(tmp_path):
    done = run("--results", tmp_path, "--output", tmp_path / "report.csv", check=False)
    assert done.returncode == 1
    assert f"no run below {tmp_path / 'runs'}" in done.stderr


def test_slurms_columns(finished):
    path = finished.run_folder("mlp") / "run.json"
    record = json.loads(path.read_text())
    record["slurm"] = {"job_id": "17", "partition": "cpu"}
    path.write_text(json.dumps(record))
    row = report.report_row(finished.results, "mlp", 1)
    assert (row["slurm_job_id"], row["partition"]) == ("17", "cpu")
