"""Tests of the report's tables, and of its errors for runs that cannot be reported."""

import csv
import gzip
import json
import subprocess
import sys

import pandas as pd
import pytest
from conftest import ROOT
from made_up import make_up
from safetensors.torch import load_file, save_file
from scipy.stats import binomtest

from lib.core.errors import UserError
from lib.reporting import finished_runs, tables, uncertainty


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def run(*options, check=True):
    command = [sys.executable, "scripts/report.py", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_report_csv_has_one_row_per_run(finished_once):
    rows = read(finished_once.results / "report.csv")
    assert list(rows[0]) == tables.REPORT
    assert [row["experiment"] for row in rows] == ["mlp", "cnn"]  # the order of the config
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


def test_a_single_run_has_a_wilson_interval(finished_once):
    rows = read(finished_once.results / "summary.csv")
    assert list(rows[0]) == tables.SUMMARY
    for row, run in zip(rows, read(finished_once.results / "report.csv"), strict=True):
        assert (row["interval"], row["runs"], row["accuracy_sd"]) == ("wilson", "1", "")
        low, high = float(row["accuracy_low"]), float(row["accuracy_high"])
        expected = uncertainty.wilson(int(run["correct"]), 1000)
        assert (low, high) == expected == (float(run["accuracy_low"]), float(run["accuracy_high"]))


def test_two_networks_are_compared_image_by_image(finished_once):
    (row,) = read(finished_once.results / "comparisons.csv")
    assert list(row) == tables.COMPARISONS
    right = []
    for experiment in ("mlp", "cnn"):
        with gzip.open(finished_once.run_folder(experiment) / "predictions.csv.gz", "rt") as file:
            right.append([line["label"] == line["prediction"] for line in csv.DictReader(file)])
    only = [sum(x and not y for x, y in zip(*each, strict=True)) for each in (right, right[::-1])]
    assert [int(row[f"only_{one}_right"]) for one in "ab"] == only
    assert float(row["difference"]) == pytest.approx((only[0] - only[1]) / 1000)
    assert row["method"] == "exact McNemar"
    p = binomtest(only[0], sum(only)).pvalue
    assert float(row["p_value"]) == pytest.approx(p)
    assert row["p_adjusted"] == row["p_value"]
    assert row["verdict"] == ("not shown" if p >= 0.05 else "a better" if p and only[0] > only[1]
                              else "b better")  # fmt: skip


def test_without_options_all_runs_are_reported(finished_once, tmp_path):
    options = ("--results", finished_once.results, "--data", finished_once.data)
    done = run(*options, "--output", tmp_path)
    rows = read(tmp_path / "report.csv")
    assert [row["run"] for row in rows] == ["runs/cnn/seed1", "runs/mlp/seed1"]
    assert "The cnn classifies" in done.stdout
    assert "<pre" not in (tmp_path / "report.html").read_text()  # the command is unknown


def test_runs_keep_their_order():
    assert finished_runs.parse_runs(["b=2,10", "a=1"]) == [("b", 2), ("b", 10), ("a", 1)]


def test_runs_are_paired_whatever_the_order_of_their_seeds(finished_once, tmp_path):
    make_up(tmp_path, finished_once.run_folder("mlp"), experiments=2, seeds=3)
    mixed = [("made00", 1), ("made00", 2), ("made00", 3)] + [("made01", i) for i in (3, 1, 2)]
    in_order, other = (
        tables.comparison_rows(finished_runs.read(tmp_path, names))
        for names in (sorted(mixed), mixed)
    )
    assert in_order == other


def test_a_run_cannot_be_named_twice():
    with pytest.raises(UserError, match="twice"):
        finished_runs.parse_runs(["mlp=1,01"])


@pytest.mark.parametrize("word", ["mlp", "mlp=", "mlp=a", "a/b=1", "=1"])
def test_a_word_that_is_not_a_run(word):
    with pytest.raises(UserError, match="EXPERIMENT=SEED"):
        finished_runs.parse_runs([word])


@pytest.mark.parametrize(
    "file",
    ["run.json", "evaluation.json", "accuracy.csv", "predictions.csv.gz", "history.csv"],
)
@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_the_error_names_a_truncated_or_missing_file(finished, tmp_path, file, damage):
    path = finished.run_folder("cnn") / file
    path.write_bytes(path.read_bytes()[:40])
    if damage == "missing":
        path.unlink()
    output = tmp_path / "output"
    options = ("--results", finished.results, "--data", finished.data, "--output", output)
    done = run(*options, check=False)
    assert done.returncode == 1
    assert str(path) in done.stderr
    assert not output.exists()


def change_predictions(finished, change):
    path = finished.run_folder("cnn") / "predictions.csv.gz"
    table = pd.read_csv(path)
    change(table)
    table.to_csv(path, index=False)
    options = ("--results", finished.results, "--data", finished.data)
    done = run(*options, "--output", finished.folder / "new", check=False)
    assert done.returncode == 1
    assert str(path.parent) in done.stderr
    return done.stderr


def test_predictions_that_contradict_the_accuracy_table(finished):
    def change(table):
        table.loc[0, "prediction"] = (table.loc[0, "prediction"] + 1) % 10

    assert "one of the two files is corrupt" in change_predictions(finished, change)


def test_confidences_that_are_not_probabilities(finished):
    def change(table):
        table.loc[3, "confidence"] = float("nan")

    assert "not probabilities" in change_predictions(finished, change)


def test_a_different_test_set(finished):
    def change(table):  # the number of correct predictions stays the same
        table.loc[:1, ["label", "prediction"]] = table.loc[1::-1, ["label", "prediction"]].values

    assert "evaluated on a different test set" in change_predictions(finished, change)


def test_a_different_data_file(finished, tmp_path):
    tensors = load_file(finished.data)
    tensors["test_labels"] = tensors["test_labels"].roll(1)
    save_file(tensors, tmp_path / "other.safetensors")
    options = ("--results", finished.results, "--data", tmp_path / "other.safetensors")
    done = run(*options, "--output", tmp_path / "new", check=False)
    assert done.returncode == 1
    assert "other.safetensors" in done.stderr


def test_no_runs_at_all(tmp_path):
    done = run("--results", tmp_path, "--data", tmp_path / "none", check=False)
    assert done.returncode == 1
    assert f"no folder matches {tmp_path / 'runs/*/seed*'}" in done.stderr


def test_the_columns_of_slurm(finished):
    edit_record(finished, slurm={"job_id": "17", "partition": "cpu"})
    row = tables.report_row(finished_runs.read_run(finished.results, "mlp", 1))
    assert (row["slurm_job_id"], row["partition"]) == ("17", "cpu")


def edit_record(finished, file="run.json", **values):
    path = finished.run_folder("mlp") / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("file", "values", "words"),
    [
        ("run.json", {"gpu": "NVIDIA H100"}, "trained on different devices (NVIDIA H100, cpu)"),
        ("run.json", {"data_sha256": "0"}, "trained on different data"),
        ("run.json", {"git_dirty": True}, "run with uncommitted changes in scripts/ or workflow/"),
        ("evaluation.json", {"git_dirty": True}, "run with uncommitted changes"),
        (
            "run.json",
            {"code": {"lib/core/command_line.py": "0"}},
            "run with different code (lib/core/command_line.py)",
        ),
    ],
)
def test_a_comparison_of_runs_made_differently_has_a_warning(finished, file, values, words):
    edit_record(finished, file, **values)
    output = finished.folder / "new"
    options = ("--results", finished.results, "--data", finished.data, "--output", output)
    done = run(*options)
    assert words in read(output / "comparisons.csv")[0]["warning"]
    assert words in (output / "report.html").read_text()
    assert words in done.stdout.replace("\n", " ")


def test_different_model_files_are_not_different_code(finished_once):
    """An MLP and a CNN share all code except the files of their models."""
    (row,) = read(finished_once.results / "comparisons.csv")
    assert "code" not in row["warning"]


def test_different_losses_are_not_compared(finished):
    settings = finished.record("mlp")["settings"] | {"loss": "cross_entropy"}
    edit_record(finished, settings=settings)
    output = finished.folder / "new"
    run("--results", finished.results, "--data", finished.data, "--output", output)
    page = (output / "report.html").read_text()
    assert "their test losses cannot be compared" in page
    assert "training loss (nll_loss)" in (output / "figures/learning-curves.svg").read_text()


def test_more_than_twenty_experiments_are_compared_with_the_first(finished_once, tmp_path):
    make_up(tmp_path, finished_once.run_folder("mlp"), experiments=21, seeds=1)
    experiments = finished_runs.read(tmp_path, finished_runs.discover_runs(tmp_path))
    assert [row["a"] for row in tables.comparison_rows(experiments)] == ["made00"] * 20
    assert len(tables.comparison_rows(experiments[:20])) == 190
