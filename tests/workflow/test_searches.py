"""A search over settings as a whole: what is trained, chosen, evaluated, and what is not."""

import csv
import json

import pytest
from conftest import BIN, SEARCH, cases, in_process
from safetensors.torch import load_file

import choose as choose_command
from lib.core import records
from lib.core.layout import Layout
from lib.core.metric import Metric
from lib.study.config import read_study
from lib.training.predictions import prediction_table, write_predictions

BEST = "searched_hidden128_lr1"


class Searched:
    """A project with a search, in `search.yaml`."""

    def __init__(self, project):
        self.project, self.layout = project, Layout(project.results)

    def write(self, text):
        (self.project.folder / "search.yaml").write_text(text)

    def run(self, *arguments, **options):
        return self.project.snakemake(*arguments, config="search.yaml", **options).stdout

    def planned(self):
        """Return the runs that a dry run would train."""
        words = [each.split() for each in self.project.planned(config="search.yaml")]
        return {" ".join(rest) for stage, *rest in words if stage == "train"}

    def table(self, name="sweep"):
        with (self.project.results / f"{name}.csv").open() as file:
            return list(csv.DictReader(file))

    def copy(self, folder):
        return Searched(self.project.copy(folder))


@pytest.fixture(scope="module")
def searched_once(finished_search):
    """A finished search. Only for looking at."""
    made = Searched(finished_search)
    made.printed = finished_search.printed
    return made


@pytest.fixture
def searched(searched_once, tmp_path):
    return searched_once.copy(tmp_path / "searched")


def test_the_best_on_the_validation_images_is_chosen(searched_once):
    rows = searched_once.table()
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4"]
    assert [row["point"] for row in rows if row["chosen"] == "True"] == [BEST]
    assert rows[0]["point"] == BEST
    accuracies = [float(row["validation_accuracy"]) for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)
    assert (rows[0]["model.hidden"], rows[0]["optimizer.lr"]) == ("128", "1.0")
    for row in rows:
        runs = [searched_once.project.record(row["point"], seed) for seed in (1, 2)]
        assert float(row["train_seconds"]) == sum(run["train_seconds"] for run in runs)
        history = searched_once.layout.run(row["point"], 1).history.read_text().splitlines()
        assert ",validation," in history[-1]


def test_only_the_chosen_point_has_seen_the_test_set(searched_once):
    for row in searched_once.table():
        for seed in (1, 2):
            files = searched_once.layout.run(row["point"], seed)
            assert files.has_all("train")
            assert files.evaluation.exists() == (row["point"] == BEST)
    report = [(row["experiment"], row["seed"]) for row in searched_once.table("report")]
    assert report == [(BEST, "1"), (BEST, "2"), ("plain", "1"), ("plain", "2")]


def test_it_says_how_large_the_search_is_and_what_was_chosen(searched_once):
    assert "Search searched: 4 points, 8 runs" in searched_once.printed
    page = (searched_once.project.results / "report.html").read_text()
    assert f"of 4 points, {BEST} is the best on the validation images" in page
    log = (searched_once.project.results / "logs" / "choose.log").read_text()
    assert f"searched: {BEST} is the best of 4 points" in log
    status = searched_once.project.script("status", "--configfile", "search.yaml").stdout
    assert status.count(" done ") == 10


def test_nothing_is_left_to_do(searched):
    assert "Nothing to be done" in searched.run()


@pytest.mark.extended
def test_one_more_value_trains_its_points_alone(searched):
    searched.write(SEARCH.replace("epochs: 1", "epochs: 2"))
    assert "10 runs are to be trained: about" in searched.run("-n")  # all are out of date
    searched.write(SEARCH.replace("[8, 128]", "[8, 16, 128]"))
    new = {f"searched_hidden16_lr{rate} {seed}" for rate in ("0.001", "1") for seed in (1, 2)}
    assert searched.planned() == new
    # By what the runs that are there took.
    said = searched.run("-n")
    assert "4 runs are to be trained: about" in said
    searched.run()
    assert len(searched.table()) == 6


def test_the_chosen_point_is_trained_again_on_all_images(searched):
    searched.write(SEARCH.replace("[0.001, 1.0]", "[0.001, 1.0], refit: true"))
    searched.layout.table("sweep.csv").unlink()  # nothing is chosen when it starts
    snakemake = (BIN / "snakemake", "--profile", "profiles/local", "--configfile", "search.yaml")
    shown = searched.project.script("watch", "--configfile", "search.yaml", "--", *snakemake).stdout
    assert "searched, seed 2: epoch 1 of 1, test accuracy " in shown
    assert "12 of 12 runs are done" in shown
    record = searched.project.record("searched", 2)
    assert (record["train_size"], record["validation_size"]) == (2000, 0)
    assert record["settings"]["model"] == {"name": "MLP", "hidden": 128}
    report = [row["experiment"] for row in searched.table("report")]
    assert report == ["searched", "searched", "plain", "plain"]
    assert "Nothing to be done" in searched.run()
    options = ("--configfile", "search.yaml", "--run", "searched/seed2")
    said = searched.project.script("reproduce", *options).stdout
    assert "searched/seed2: reproduced bit for bit" in said
    # Another choice is trained again in its turn, and nothing else.
    searched.write(SEARCH.replace("[8, 128]", "[8]").replace("1.0]", "1.0], refit: true"))
    searched.run()
    assert searched.project.record("searched", 2)["settings"]["model"]["hidden"] == 8


@pytest.mark.extended
def test_deleted_files_come_back(searched):
    searched.layout.run("searched_hidden8_lr1", 1).weights.unlink()
    searched.layout.table("sweep.csv").unlink()
    assert searched.planned() == {"searched_hidden8_lr1 1"}
    searched.run()
    assert searched.table()[0]["point"] == BEST


@pytest.mark.extended
def test_what_diverges_is_the_worst(searched):
    searched.write(SEARCH.replace("[0.001, 1.0]", "[0.001, 1.0, 1e30]"))
    searched.run()
    rows = searched.table()
    assert rows[0]["point"] == BEST
    for row in rows[-2:]:
        assert (row["optimizer.lr"], row["diverged"]) == ("1e+30", "2")
        assert (row["validation_accuracy"], row["validation_loss"]) == ("0.0", "inf")


def test_a_search_without_validation_images_is_an_error(searched):
    searched.write(SEARCH.replace("validation_size: 500", "validation_size: 0"))
    said = searched.run("-n", check=False)
    assert "experiments.searched.sweep: the points are compared on images that are held" in said
    assert "set validation_size" in said


WRONG = {
    "many": ("[0.001, 1.0]", f"{[-n for n in range(1, 13)]}", "sweep: and 2 more like these"),
    "value": ("model.hidden: [8, 128]", "batch_size: [0]", "sweep: searched_batch_size0_lr0.001"),
    "negative": (
        *("[0.001, 1.0]", "[-1]"),
        "searched.sweep: searched_hidden128_lr-1.optimizer.lr: -1 is less",
    ),
    "argument": ("model.hidden", "model.hiden", "model: MLP has no argument 'hiden'"),
    "setting": ("optimizer.lr", "optimiser.lr", "sweep.optimiser.lr: no such setting"),
    "name": (
        *("plain:", "searched_hidden8_lr1:"),
        "there is an experiment searched_hidden8_lr1 already",
    ),
    "key": ("runs_per_job: 20", "cpus_per_job: 1\ntraining2: 1", "unknown key 'training2'"),
}


@pytest.mark.parametrize(("old", "new", "message"), cases(WRONG, "argument", "setting"))
def test_a_wrong_search_is_an_error_that_names_the_key(searched, old, new, message):
    searched.write(SEARCH.replace(old, new))
    assert searched.run("-n", check=False).count(message) == 1


@pytest.mark.extended
def test_if_all_points_diverge_nothing_is_chosen(searched):
    searched.write(SEARCH.replace("[0.001, 1.0]", "[1e30]").replace("[8, 128]", "[8]"))
    said = searched.run(check=False)
    log = (searched.project.results / "logs" / "choose.log").read_text()
    assert "search searched: all trainings of all its points have diverged" in log
    assert "search smaller learning rates" in said


def test_no_checkpoint_stays_of_points_that_are_not_evaluated(searched_once):
    assert not list(searched_once.project.results.rglob("checkpoint.*"))
    assert not list(searched_once.project.results.rglob("progress.json"))


@pytest.mark.extended
def test_a_refit_that_fails_is_named(searched):
    """The experiment that is trained again is none of the study that was read at the start."""
    searched.write(SEARCH.replace("[0.001, 1.0]", "[0.001, 1.0], refit: true"))
    train = searched.project.folder / "scripts" / "train.py"
    train.write_text(
        train.read_text().replace(
            "    results = RunResults(files, identity)\n",
            "    results = RunResults(files, identity)\n"
            '    if "searched/" in str(files.folder):\n'
            '        raise UserError("this one fails")\n',
        )
    )
    said = searched.run(check=False)
    assert "searched, seed 1: train is not done; see " in said
    assert "Not finished:" in said


def choose(project, folder, metric):
    """Choose by a metric; return the rows of sweep.csv, and what was printed."""
    study = read_study([project.folder / "search.yaml"], {})
    words = ("--searches", json.dumps(study.search_options), "--data", project.data)
    results = ("--results", project.results, "--output", folder, f"--metric={metric}")
    done = in_process(choose_command, *results, *words)
    assert done.returncode == 0, done.stderr
    with (folder / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file)), done.stdout


@pytest.mark.parametrize("metric", ["log_loss", "auroc", "macro_f1"])
def test_a_metric_chooses(finished_search, tmp_path, metric, monkeypatch):
    monkeypatch.chdir(finished_search.folder)
    rows, said = choose(finished_search, tmp_path, metric)
    values = [float(row["metric_value"]) for row in rows]
    assert values == sorted(values, reverse=metric != "log_loss")
    assert {row["metric"] for row in rows} == {metric}
    for row in rows:
        assert float(row["metric_low"]) < float(row["metric_value"]) < float(row["metric_high"])
    assert Metric(metric).words in said


@pytest.mark.parametrize("metric", ["accuracy", "log_loss"])
def test_runs_of_an_earlier_version_are_chosen_from(finished_search, tmp_path, metric, monkeypatch):
    """They have kept the winner and its probability. Nothing is trained again."""
    monkeypatch.chdir(finished_search.folder)
    expected, _ = choose(finished_search, tmp_path, metric)
    project = finished_search.copy(tmp_path / "old")
    for row in expected:
        for seed in row["seeds"].split():
            files = Layout(project.results).run(row["point"], seed)
            kept = load_file(files.validation)
            table = prediction_table(kept["probabilities"], kept["labels"])
            write_predictions(files.earlier_validation, table)
            files.validation.unlink()
            record = records.read(files.record)
            written = [files.weights, files.history, files.earlier_validation]
            records.write(files.record, record, written)
    monkeypatch.chdir(project.folder)
    rows, said = choose(project, tmp_path / "again", metric)
    assert ("of an earlier version" in said) == (metric == "log_loss")
    same = ("point", "rank", "metric_value", "metric_low", "bias")
    assert [[row[name] for name in same] for row in rows] == [
        [row[name] for name in same] for row in expected
    ]
