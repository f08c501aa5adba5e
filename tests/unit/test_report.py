"""Tests of the report's tables, and of its errors for runs that cannot be reported."""

import csv
import gzip
import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from conftest import ROOT, in_process
from made_up import change_record, make_up
from safetensors.torch import load_file, save_file
from scipy.stats import binomtest

import report
from lib.core.errors import UserError
from lib.core.failure_file import Failure
from lib.core.layout import Layout
from lib.reporting import finished_runs, tables, uncertainty, verdict

DIGITS = [str(digit) for digit in range(10)]


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def run(*options, check=True):
    done = in_process(report, *options)
    assert not check or done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_report_csv_has_one_row_per_run(finished_once):
    rows = read(finished_once.results / "report.csv")
    assert list(rows[0]) == tables.report_columns(DIGITS)
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
    assert list(rows[0]) == tables.summary_columns(DIGITS)
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
    test_set = finished_runs.read_test_set(finished_once.data)
    in_order, other = (
        tables.comparison_rows(finished_runs.read(tmp_path, names, test_set))
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


def error_of(finished, *options):
    """Return the error of a report on a finished project, which must name a file of a cnn."""
    options = ("--results", finished.results, "--data", finished.data, *options)
    done = run(*options, "--output", finished.folder / "new", check=False)
    assert done.returncode == 1
    assert str(finished.run_folder("cnn").parent) in done.stderr
    assert done.stderr.count("error:") == 1
    return done.stderr


def change_predictions(finished, change, seal=True):
    """Return the error of a report if a run's predictions are changed."""
    path = finished.run_folder("cnn") / "predictions.csv.gz"
    table = pd.read_csv(path)
    change(table)
    table.to_csv(path, index=False)
    if seal:  # as if evaluate.py had written them
        change_record(path.parent, "evaluation.json")
    return error_of(finished)


def test_predictions_that_were_changed(finished):
    def change(table):  # the number of correct predictions stays the same
        table.loc[:1, ["label", "prediction"]] = table.loc[1::-1, ["label", "prediction"]].values

    assert "not the file that" in change_predictions(finished, change, seal=False)


def test_confidences_that_are_not_probabilities(finished):
    def change(table):
        table.loc[3, "confidence"] = float("nan")

    assert "not probabilities" in change_predictions(finished, change)


@pytest.mark.parametrize("prediction", [10, -1, 30000])
def test_predictions_that_are_no_class(finished, prediction):
    def change(table):
        table.loc[3, "prediction"] = prediction

    assert "none of the 10 classes" in change_predictions(finished, change)


def test_labels_of_a_different_test_set(finished):
    def change(table):
        table.loc[:1, ["label", "prediction"]] = table.loc[1::-1, ["label", "prediction"]].values

    assert "labels of a different test set" in change_predictions(finished, change)


def test_a_run_that_was_trained_again_but_not_evaluated_again(finished):
    folder = finished.run_folder("cnn")
    old = (folder / "evaluation.json").read_bytes()
    change_record(folder, "run.json", threads=7)
    (folder / "evaluation.json").write_bytes(old)
    assert "was evaluated before it was last trained" in error_of(finished).replace("\n", " ")


def test_a_run_in_the_folder_of_another_seed(finished):
    shutil.copytree(finished.run_folder("cnn"), finished.run_folder("cnn", 2))
    assert "is of seed 1, not of seed 2" in error_of(finished)


@pytest.mark.parametrize("file", ["run.json", "evaluation.json"])
def test_a_run_of_different_data(finished, file):
    change_record(finished.run_folder("cnn"), file, data_sha256="0")
    assert f"{file} is of a different dataset than {finished.data}" in error_of(finished)


def test_the_data_file_is_compared_as_a_whole(finished, tmp_path):
    tensors = load_file(finished.data)
    tensors["test_images"][0] += 1  # the labels are the same
    other = tmp_path / "other.safetensors"
    save_file(tensors, other)
    assert f"of a different dataset than {other}" in error_of(finished, "--data", other)


def test_the_weights_are_not_read(finished):
    """A large study has gigabytes of them, and the report uses none."""
    (finished.run_folder("cnn") / "model.safetensors").write_bytes(b"")
    options = ("--results", finished.results, "--data", finished.data)
    run(*options, "--output", finished.folder / "new")


def test_no_runs_at_all(tmp_path):
    done = run("--results", tmp_path, "--data", tmp_path / "none", check=False)
    assert done.returncode == 1
    assert f"no folder matches {tmp_path / 'runs/*/seed*'}" in done.stderr


def test_the_columns_of_slurm(finished):
    slurm = {"job_id": "17", "partition": "cpu"}
    change_record(finished.run_folder("mlp"), "run.json", slurm=slurm)
    test_set = finished_runs.read_test_set(finished.data)
    row = tables.report_row(finished_runs.read_run(finished.results, "mlp", 1, test_set))
    assert (row["slurm_job_id"], row["partition"]) == ("17", "cpu")


@pytest.mark.parametrize(
    ("file", "values", "words"),
    [
        ("run.json", {"gpu": "NVIDIA H100"}, "trained on different devices (NVIDIA H100, cpu)"),
        (
            "run.json",
            {"git_dirty": True},
            "run with uncommitted changes in scripts/, workflow/, config/",
        ),
        ("evaluation.json", {"git_dirty": True}, "run with uncommitted changes"),
        (
            "run.json",
            {"code": {"lib/training/loop.py": "0"}},
            "run with different code (lib/training/loop.py)",
        ),
    ],
)
def test_a_comparison_of_runs_made_differently_has_a_warning(finished, file, values, words):
    change_record(finished.run_folder("mlp"), file, **values)
    output = finished.folder / "new"
    options = ("--results", finished.results, "--data", finished.data, "--output", output)
    done = run(*options)
    assert words in read(output / "comparisons.csv")[0]["warning"]
    assert words in (output / "report.html").read_text()
    assert words in done.stdout.replace("\n", " ")


def test_different_versions_are_a_warning_for_every_row(finished, finished_once):
    assert {row["warning"] for row in read(finished_once.results / "report.csv")} == {""}
    versions = finished.record("mlp")["versions"]
    change_record(
        finished.run_folder("mlp"), "run.json", versions=versions | {"torch": "1.0", "python": "3"}
    )
    output = finished.folder / "new"
    run("--results", finished.results, "--data", finished.data, "--output", output)
    words = f"made with different versions of torch (1.0, {versions['torch']})"
    assert [row["warning"] for row in read(output / "report.csv")] == [words, words]
    assert words in read(output / "comparisons.csv")[0]["warning"]
    assert words in (output / "report.html").read_text()


def test_different_model_files_are_not_different_code(finished_once):
    """An MLP and a CNN share all code except the files of their models."""
    (row,) = read(finished_once.results / "comparisons.csv")
    assert "code" not in row["warning"]


def test_different_losses_are_not_compared(finished):
    settings = finished.record("mlp")["settings"] | {"loss": "cross_entropy"}
    change_record(finished.run_folder("mlp"), "run.json", settings=settings)
    output = finished.folder / "new"
    run("--results", finished.results, "--data", finished.data, "--output", output)
    page = (output / "report.html").read_text()
    assert "their test losses cannot be compared" in page
    assert "training loss (nll_loss)" in (output / "figures/learning-curves.svg").read_text()


def test_more_than_twenty_experiments_are_compared_with_the_first(finished_once, tmp_path):
    make_up(tmp_path, finished_once.run_folder("mlp"), experiments=21, seeds=1)
    test_set = finished_runs.read_test_set(finished_once.data)
    experiments = finished_runs.read(tmp_path, finished_runs.discover_runs(tmp_path), test_set)
    assert [row["a"] for row in tables.comparison_rows(experiments)] == ["made00"] * 20
    assert len(tables.comparison_rows(experiments[:20])) == 190


class Study:
    """A made-up study of three experiments with two seeds each, `whole`, `partial` and `none`."""

    def __init__(self, results, finished):
        self.layout = Layout(results)
        make_up(results, finished.run_folder("mlp"), experiments=3, seeds=2)
        for number, name in enumerate(("whole", "partial", "none")):
            (results / f"runs/made0{number}").rename(results / f"runs/{name}")
        runs = ("--runs", "none=1,2", "whole=1,2", "partial=1,2")
        self.options = ("--results", results, "--data", finished.data, *runs)

    def remove(self, experiment, seed, *names):
        for name in names or [path.name for path in self.folder(experiment, seed).iterdir()]:
            (self.folder(experiment, seed) / name).unlink()

    def folder(self, experiment, seed):
        return self.layout.run(experiment, seed).folder

    def log(self, stage, experiment, seed, text):
        path = self.layout.log(stage, experiment, seed)
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def table(self, name):
        return read(self.layout.table(name))


@pytest.fixture
def study(tmp_path, finished_once):
    return Study(tmp_path / "results", finished_once)


@pytest.fixture
def partial_study(study):
    """Two of its six runs are complete, and one more of the third experiment."""
    study.remove("none", 1)
    study.remove("none", 2)
    study.remove("partial", 2)
    message = "the training loss is nan; at epoch 1,\nstep 3"
    Failure({}, "", {}, message).write(study.layout.run("partial", 2).failure)
    study.log("train", "none", 1, "error: the first\nsteps\nerror: no space <left>\nwarning: x\n")
    return study


def test_an_incomplete_report_says_what_is_missing_and_why(partial_study):
    done = run(*partial_study.options, "--incomplete")
    assert done.stdout.splitlines()[:4] == [
        "This report is incomplete: 3 of 6 runs are missing.",
        "  none, seed 1: no space <left>",
        "  none, seed 2: not trained",
        "  partial, seed 2: the training loss is nan, at epoch 1, step 3",
    ]
    assert "No verdict on whole and partial: runs are missing." in done.stdout
    rows = {row["experiment"]: row for row in partial_study.table("summary.csv")}
    assert list(rows) == ["none", "whole", "partial"]
    assert list(rows["none"])[: len(tables.SUMMARY)] == tables.SUMMARY
    assert rows["none"]["missing"] == "seed 1: no space <left>; seed 2: not trained"
    assert rows["whole"]["missing"] == ""
    assert [row["runs"] for row in rows.values()] == ["0", "2", "1"]
    empty = {key for key, value in rows["none"].items() if value == ""}
    filled = {"experiment", "runs", "missing", "metric"}
    assert empty == set(tables.summary_columns(DIGITS)) - filled
    assert [row["run"] for row in partial_study.table("report.csv")] == [
        "runs/whole/seed1",
        "runs/whole/seed2",
        "runs/partial/seed1",
    ]
    page = partial_study.layout.page.read_text(encoding="utf-8")
    assert "This report is incomplete: 3 of 6 runs are missing." in page
    assert "<li>none, seed 1: no space &lt;left&gt;</li>" in page
    assert verdict.is_incomplete(partial_study.layout)
    assert "3 of 6 runs are missing" in verdict.verdict_of(partial_study.layout)


def test_a_pair_of_which_runs_are_missing_is_not_tested(partial_study):
    run(*partial_study.options, "--incomplete")
    pairs = {(row["a"], row["b"]): row for row in partial_study.table("comparisons.csv")}
    assert list(pairs) == [("none", "whole"), ("none", "partial"), ("whole", "partial")]
    for row in pairs.values():
        assert row["verdict"] == "incomplete"
        assert {row[key] for key in ("p_value", "p_adjusted", "detectable_difference")} == {""}
    for (a, _), row in pairs.items():
        numbers = {row[key] for key in ("difference", "only_a_right", "only_b_right")}
        assert (numbers == {""}) == (a == "none")


def test_the_other_pairs_are_tested_as_if_there_were_no_more(study):
    one_seed = ("--runs", "whole=1", "partial=1", "none=1")
    study.remove("none", 1, "evaluation.json")
    run(*study.options, *one_seed, "--incomplete")
    tested = study.table("comparisons.csv")[0]
    run(*study.options, "--runs", "whole=1", "partial=1")
    assert study.table("comparisons.csv") == [tested]
    assert tested["p_adjusted"] == tested["p_value"] != ""


@pytest.mark.parametrize(
    ("removed", "log", "reason"),
    [
        (["evaluation.json"], "error: out of memory\n", "out of memory"),
        (["evaluation.json"], "evaluating\n", "not evaluated"),
        (["evaluation.json"], None, "not evaluated"),
        (["predictions.csv.gz"], None, "predictions.csv.gz: No such file or directory"),
        (["run.json"], "error: out of memory\n", "not trained"),
    ],
)
def test_why_a_run_is_missing(study, finished_once, removed, log, reason):
    study.remove("whole", 2, *removed)
    if log:
        study.log("evaluate", "whole", 2, log)
    test_set = finished_runs.read_test_set(finished_once.data)
    names = [("whole", 1), ("whole", 2)]
    (each,) = finished_runs.read(study.layout.results, names, test_set, incomplete=True)
    assert [run.seed for run in each.runs] == [1]
    assert list(each.missing) == [2]
    assert each.missing[2].endswith(reason)


@pytest.mark.parametrize("content", ["", "[]", "{}", '"message"', "\0"])
def test_a_note_of_a_failure_that_cannot_be_read(study, content):
    study.remove("whole", 2)
    study.layout.run("whole", 2).failure.write_text(content)
    done = run(*study.options, "--incomplete")
    assert "whole, seed 2: not trained" in done.stdout


def test_many_missing_runs_are_counted(partial_study):
    seeds = ",".join(map(str, range(1, 101)))
    options = (*partial_study.options, "--runs", f"partial={seeds}")
    done = run(*options, "--incomplete")
    assert "99 of 100 runs are missing.\n" in done.stdout
    assert "and 94 more\n" in done.stdout
    assert "<li>and 79 more</li>" in partial_study.layout.page.read_text(encoding="utf-8")


def test_without_the_option_a_missing_run_is_an_error(partial_study):
    done = run(*partial_study.options, check=False)
    assert done.returncode == 1
    assert str(partial_study.folder("none", 1)) in done.stderr
    assert "--incomplete" in done.stderr
    assert not partial_study.layout.page.exists()


def test_a_report_needs_a_complete_run(partial_study):
    options = (*partial_study.options, "--runs", "none=1,2")
    done = run(*options, "--incomplete", check=False)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("no run is complete. none, seed 1: no space <left>")


def test_a_complete_report_is_the_same_with_the_option(study):
    outputs = []
    for more in ((), ("--incomplete",)):
        done = run(*study.options, *more)
        files = (*map(study.layout.table, ("report.csv", "summary.csv")), study.layout.page)
        outputs.append([done.stdout, *(path.read_bytes() for path in files)])
    assert outputs[0] == outputs[1]
    assert b"incomplete" not in outputs[0][-1].split(b"</style>")[1]
    assert not verdict.is_incomplete(study.layout)


def test_no_report_lacks_nothing(tmp_path):
    assert not verdict.is_incomplete(Layout(tmp_path))
    (tmp_path / "summary.csv").write_bytes(b"experiment,missing\n\xff\xfe")
    assert verdict.is_incomplete(Layout(tmp_path))
    (tmp_path / "summary.csv").write_text("experiment,warning\nmlp,\n")  # of an earlier version
    assert not verdict.is_incomplete(Layout(tmp_path))


def test_a_terminal_that_cannot_print_a_dash(finished_once, tmp_path):
    """All files are written before anything is printed."""
    options = ("--results", finished_once.results, "--data", finished_once.data)
    command = [sys.executable, "scripts/report.py", *options, "--output", tmp_path]
    environment = os.environ | {"PYTHONIOENCODING": "ascii:strict"}
    subprocess.run(command, cwd=ROOT, env=environment, capture_output=True)
    for name in ("report.csv", "summary.csv", "comparisons.csv"):
        assert read(tmp_path / name)
    assert "\N{EN DASH}" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("loss", [1e308, -1.7e308, float("inf"), float("nan")])
def test_a_loss_that_has_exploded(study, finished_once, loss):
    for path in study.layout.results.glob("runs/*/*/history.csv"):
        table = pd.read_csv(path)
        table["train_loss"] = table["loss"] = [table["loss"].iloc[0], loss]
        table.to_csv(path, index=False)
        change_record(path.parent, "run.json")
        change_record(path.parent, "evaluation.json", test_loss=loss)
    done = run(*study.options)
    assert max(map(len, done.stdout.splitlines()[:-1])) < 100
    assert f"{loss:.4g}" in done.stdout
    assert f"<td>{loss:.4g}</td>" in study.layout.page.read_text(encoding="utf-8")
    assert study.layout.figure("learning-curves").exists()
