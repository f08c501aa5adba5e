"""A study of recipes: what it keeps, what its report says, and what a change makes again."""

import pandas as pd
import pytest
from conftest import SMALL_STUDY, fresh_project

CONFIG = f"""{SMALL_STUDY}training: {{epochs: 8, validation_size: 500, shuffle: true}}
runs_per_job: 9
experiments:
  plain: {{model: {{name: MLP, hidden: 16}}, epochs: 1}}
  best:
    model: {{name: MLP, hidden: 16}}
    optimizer: {{name: SGD, lr: 2.0}}
    scheduler: null
    loss: {{name: cross_entropy, weight: balanced, label_smoothing: 0.1}}
    keep: best
    patience: 2
  averaged:
    model: {{name: MLP, hidden: 16}}
    optimizer: {{name: SGD, lr: 0.1, momentum: 0.9}}
    scheduler: {{name: OneCycleLR, max_lr: 0.5, every: step}}
    sampling: balanced
    accumulate: 2
    clip_norm: 1.0
    ema: 0.9
    epochs: 2
  searched:
    model: {{name: MLP, hidden: 8}}
    optimizer: {{name: SGD, lr: 2.0}}
    scheduler: null
    loss: cross_entropy
    keep: best
    patience: 2
    sweep: {{loss.label_smoothing: [0, 0.2]}}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    project = fresh_project(tmp_path_factory.mktemp("recipes") / "project", data=True)
    (project.folder / "study.yaml").write_text(CONFIG)
    project.snakemake(config="study.yaml")
    return project


def history(study, experiment):
    return pd.read_csv(study.run_folder(experiment) / "history.csv")


def test_the_report_says_which_epoch_was_kept(study):
    report = pd.read_csv(study.results / "report.csv").set_index("experiment")
    assert list(report)[-1] == "best_epoch"
    kept = report["best_epoch"].dropna()
    assert {"best", "plain", "averaged"} < set(report.index)
    assert set(kept.index) == set(report.index) - {"plain", "averaged"}
    epochs = history(study, "best")
    assert kept["best"] == epochs["metric"].idxmax() + 1
    assert report["epochs"]["best"] == len(epochs)
    page = (study.results / "report.html").read_text()
    assert f"best: epoch {kept['best']:.0f} of {len(epochs)} (by accuracy)" in page
    assert "so too good as a forecast" in page
    assert "loss.label_smoothing" in page


def test_a_search_compares_the_epochs_that_are_kept(study):
    table = pd.read_csv(study.results / "sweep.csv").set_index("point")
    for point, row in table.iterrows():
        best = study.record(point)["best"]
        epochs = history(study, point)
        assert row["validation_loss"] == epochs["loss"][best["epoch"] - 1]
        assert row["validation_accuracy"] == pytest.approx(best["value"])


def test_nothing_is_made_again_that_means_the_same(study):
    assert study.planned(config="study.yaml") == set()
    default = CONFIG.replace("{name: OneCycleLR,", "{name: OneCycleLR, pct_start: 0.3,")
    default = default.replace(
        "name: MLP, hidden: 16}, epochs", "name: MLP, hidden: 16}, ema: null, epochs"
    )
    (study.folder / "same.yaml").write_text(default)
    assert study.planned(config="same.yaml") == set()


def test_what_is_trained_on_all_images_can_keep_no_best_epoch(study):
    (study.folder / "refit.yaml").write_text(CONFIG.replace("[0, 0.2]", "[0, 0.2], refit: true"))
    done = study.snakemake("-n", config="refit.yaml", check=False)
    assert done.returncode != 0
    assert "experiments.searched.sweep.refit: what is chosen is trained again" in done.stdout


def test_another_metric_finds_other_epochs(study):
    """Of what keeps its last epoch, only the report is another."""
    (study.folder / "other.yaml").write_text(CONFIG + "metric: balanced_accuracy\n")
    planned = study.planned(config="other.yaml")
    assert {"train best 1", "evaluate best 1", "report"} < planned
    assert not [job for job in planned if "plain" in job or "averaged" in job]
