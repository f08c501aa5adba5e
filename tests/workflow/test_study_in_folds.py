"""A study of data in folds as a whole: what is trained, chosen, tested, and reported."""

import csv
import json

import numpy as np
import pandas as pd
import pytest
from color_images import write_color_images
from conftest import fresh_project, shared
from safetensors.numpy import load_file
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from lib.study.config import read_study

FOLDS = (1, 2, 3)
STUDY = """
results_dir: results/small
dataset: mine
datasets_file: mine.yaml
metric: balanced_accuracy
seeds: [1, 2]
runs_per_job: 20
training: {epochs: 1, shuffle: true, validation_size: 0.25}
experiments:
  plain: {model: {name: MLP, hidden: 8}}
  searched:
    model: {name: MLP}
    sweep: {optimizer.lr: [0.001, 0.3], model.hidden: [2, 8]}
"""
OPTIONS = ("--configfile", "study.yaml")


def write_study(project, text=STUDY):
    write_color_images(project.folder / "colors")
    (project.folder / "mine.yaml").write_text("mine:\n  folder: colors\n  folds: 3\n")
    (project.folder / "study.yaml").write_text(text)


@pytest.fixture(scope="module")
def study_once(tmp_path_factory, worker_id):
    """The finished study. Only for looking at."""

    def run(project):
        write_study(project)
        return project.snakemake(config="study.yaml").stdout

    return shared(tmp_path_factory, worker_id, "folds", run)


@pytest.fixture
def study(study_once, tmp_path):
    return study_once.copy(tmp_path / "study")


def table(project, name):
    with (project.results / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_seed_is_trained_once_per_fold(study_once):
    rows = table(study_once, "report")
    assert [(row["experiment"], row["seed"], row["fold"]) for row in rows] == [
        (name, str(seed), str(fold))
        for name in ("plain", "searched")
        for seed in (1, 2)
        for fold in FOLDS
    ]
    assert list(rows[0])[-1] == "fold"
    for row in rows:
        record = json.loads((study_once.results / row["run"] / "run.json").read_text())
        assert record["settings"]["fold"] == int(row["fold"])
        assert row["run"].endswith(f"/seed{row['seed']}-fold{row['fold']}")
        assert (record["train_size"], record["validation_size"]) == (60, 20)


def test_all_images_are_tested_once_per_seed(study_once):
    runs = table(study_once, "report")
    for seed in (1, 2):
        files = [
            name
            for row in runs
            if (row["experiment"], row["seed"]) == ("plain", str(seed))
            for name in pd.read_csv(study_once.results / row["run"] / "predictions.csv.gz")["file"]
        ]
        assert len(files) == len(set(files)) == 120


def test_the_tables_have_scikit_learns_numbers(study_once):
    rows = table(study_once, "report")
    summary = {row["experiment"]: row for row in table(study_once, "summary")}
    found = {}
    for row in rows:
        folder = study_once.results / row["run"]
        labels = pd.read_csv(folder / "predictions.csv.gz")["label"].to_numpy()
        sure = load_file(folder / "probabilities.safetensors")["probabilities"]
        area = np.mean([roc_auc_score(labels == c, sure[:, c]) for c in range(3)])
        balanced = balanced_accuracy_score(labels, sure.argmax(axis=1))
        assert float(row["auroc"]) == pytest.approx(area)
        assert float(row["balanced_accuracy"]) == pytest.approx(balanced)
        found.setdefault(row["experiment"], []).append(balanced)
    for name, values in found.items():
        assert float(summary[name]["balanced_accuracy_mean"]) == pytest.approx(np.mean(values))
        assert (summary[name]["runs"], summary[name]["folds"]) == ("6", "3")
    (pair,) = table(study_once, "comparisons")
    assert (pair["method"], pair["folds"]) == ("corrected t, folds", "3")
    # Nadeau and Bengio: two seeds, of which the spread is not known, in three folds.
    differences = np.subtract(*(np.reshape(found[name], (2, 3)) for name in ("plain", "searched")))
    by_fold = differences.mean(axis=0)
    assert float(pair["difference"]) == pytest.approx(by_fold.mean())
    half = (float(pair["difference_high"]) - float(pair["difference_low"])) / 2
    own = np.sqrt(by_fold.var(ddof=1) * (1 / 3 + 1 / 2))
    assert half >= 1.05 * 4.3026 * own * 0.9999


def test_each_fold_has_a_choice_of_its_own(study_once):
    rows = table(study_once, "sweep")
    assert list(rows[0])[-1] == "fold"
    assert len(rows) == 4 * 3
    for fold in FOLDS:
        own = [row for row in rows if row["fold"] == str(fold)]
        assert [row["rank"] for row in own] == ["1", "2", "3", "4"]
        assert [row["chosen"] for row in own] == ["True", "False", "False", "False"]
        assert {row["seeds"] for row in own} == {"1 2"}
        for row in own:  # only what was chosen for a fold has seen its test images
            for seed in (1, 2):
                folder = study_once.results / "runs" / row["point"] / f"seed{seed}-fold{fold}"
                assert (folder / "run.json").exists()
                assert (folder / "evaluation.json").exists() == (row["chosen"] == "True")
    chosen = {row["fold"]: row["point"] for row in rows if row["chosen"] == "True"}
    for row in table(study_once, "report"):
        if row["experiment"] == "searched":
            assert row["run"].split("/")[1] == chosen[row["fold"]]


def test_the_report_says_what_it_is_about(study_once):
    page = (study_once.results / "report.html").read_text()
    for text in (study_once.printed, page):
        said = " ".join(text.split())
        assert "mean of 3 folds, 2 seeds each" in said
        assert "3 folds, 2 seeds each)" in said
        assert "have different settings" not in said
    assert "The images are divided into 3 folds" in page
    assert "searched, fold 2: of 4 points" in page


def test_nothing_is_left_to_do(study):
    assert "Nothing to be done" in study.snakemake("-n", config="study.yaml").stdout
    status = study.script("status", *OPTIONS).stdout
    assert status.count(" done ") == 2 * 3 + 4 * 2 * 3
    assert "1-fold2" in status
    said = study.script("status", *OPTIONS, "--why", "plain/seed2-fold3").stdout
    assert "This run is done" in said
    script = study.script("job_script", *OPTIONS, "--run", "plain/seed2-fold3", check=False)
    assert "seed=2" in script.stdout
    assert "fold=3" in script.stdout


@pytest.mark.extended
def test_a_run_of_a_fold_is_reproduced(study):
    said = study.script("reproduce", *OPTIONS, "--run", "plain/seed2-fold3").stdout
    assert "plain/seed2-fold3: reproduced bit for bit" in said


def test_a_fold_that_is_lost_is_made_again_alone(study):
    folder = study.results / "runs" / "plain" / "seed2-fold3"
    before = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    said = study.snakemake(config="study.yaml").stdout
    assert said.count("Train plain, seed 2-fold3") == 1
    assert "Train plain, seed 2-fold2" not in said
    assert (folder / "model.safetensors").read_bytes() == before


def test_a_report_without_a_fold_is_without_its_seed(study):
    folder = study.results / "runs" / "plain" / "seed2-fold3"
    (folder / "evaluation.json").unlink()
    words = ("--results", "results/small", "--data", "results/small/data/mine.safetensors")
    runs = ("--runs", *(f"plain={s}-fold1,{s}-fold2,{s}-fold3" for s in (1, 2)))
    said = study.script("report", *words, *runs, check=False)
    assert said.returncode
    assert "--incomplete reports the other runs" in said.stdout
    said = study.script("report", *words, *runs, "--incomplete").stdout
    assert "This report is incomplete: 3 of 6 runs are missing" in said
    assert "plain, seed 2-fold3: not evaluated" in said
    assert "plain, seed 2-fold1: it is there, but other folds of its seed are not" in said
    assert {row["seed"] for row in table(study, "report")} == {"1"}


def test_what_is_done_is_reported_by_the_metric_of_the_study(study):
    more = "  failing: {model: {name: MLP}, optimizer: {name: SGD, lr: 1.0e+30}}\n"
    (study.folder / "study.yaml").write_text(STUDY + more)
    said = study.snakemake(config="study.yaml", check=False).stdout
    assert "This report is incomplete: 6 of 18 runs are missing" in said
    assert "failing, seed 1-fold1: model MLP: its output" in said
    rows = {row["experiment"]: row for row in table(study, "summary")}
    assert list(rows) == ["plain", "searched", "failing"]
    assert {row["metric"] for row in rows.values()} == {"balanced_accuracy"}
    assert "searched, fold 2: of 4 points" in (study.results / "report.html").read_text()


def test_without_folds_a_run_of_a_fold_is_none(study):
    words = ("--results", "results/small", "--data", "results/small/data/mine.safetensors")
    said = study.script("report", *words, "--runs", "plain=1", check=False).stdout
    assert "run plain/seed1: results/small/data/mine.safetensors has 3 folds" in said


@pytest.mark.extended
def test_what_each_fold_has_chosen_is_trained_again(study):
    again = STUDY.replace("hidden: [2, 8]}", "hidden: [2, 8], refit: true}")
    (study.folder / "study.yaml").write_text(again)
    study.snakemake(config="study.yaml")
    chosen = {row["fold"]: row for row in table(study, "sweep") if row["chosen"] == "True"}
    rows = [row for row in table(study, "report") if row["experiment"] == "searched"]
    assert len(rows) == 6
    for row in rows:
        record = json.loads((study.results / row["run"] / "run.json").read_text())
        assert row["run"] == f"runs/searched/seed{row['seed']}-fold{row['fold']}"
        assert (record["train_size"], record["validation_size"]) == (80, 0)
        of_fold = chosen[row["fold"]]
        assert record["settings"]["model"]["hidden"] == int(of_fold["model.hidden"])
        assert record["settings"]["optimizer"]["lr"] == float(of_fold["optimizer.lr"])
    assert "Nothing to be done" in study.snakemake("-n", config="study.yaml").stdout


@pytest.mark.extended
def test_results_of_folds_are_adopted(study):
    loop = "scripts/lib/training/loop.py"
    study.edit(loop, "batch_loss.backward()", "(1 * batch_loss).backward()")
    said = study.script("adopt", *OPTIONS).stdout
    assert "Nothing was replayed" not in said
    assert "adopted by replay" in said
    assert study.planned(config="study.yaml") <= {"choose", "report"}


def test_other_folds_are_other_data(study, monkeypatch):
    monkeypatch.chdir(study.folder)
    assert not read_study(["study.yaml"], {}).undecided
    (study.folder / "mine.yaml").write_text("mine:\n  folder: colors\n  folds: 2\n")
    assert read_study(["study.yaml"], {}).undecided == ["searched"]
    said = study.snakemake("-n", config="study.yaml").stdout
    assert "was made of another entry of mine.yaml" in said
    assert "Train plain, seed 2-fold2" in said
    assert "fold3" not in said


def test_a_study_in_folds_is_planned_before_anything_is_there(tmp_path):
    project = fresh_project(tmp_path / "project")
    write_study(project)
    said = project.snakemake("-n", config="study.yaml").stdout
    assert "Search searched: 4 points, 24 runs" in said
    assert "Train plain, seed 2-fold3" in said
