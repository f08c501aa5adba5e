"""The metrics, against scikit-learn's own, and what their intervals rest on."""

import csv
import re
import warnings
from pathlib import Path

import error_rates
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, cases, in_process
from safetensors.numpy import load_file
from sklearn import metrics

import report
from lib.core.errors import UserError
from lib.core.metric import ACCURACY, WORDS, Metric, names, parse, positive_class
from lib.reporting import finished_runs, tables, uncertainty
from lib.reporting.finished_runs import FinishedExperiment, FinishedRun
from lib.reporting.pseudo_values import pseudo_values
from lib.reporting.uncertainty import Measured
from lib.training.measures import Answers, majority, scores

IMAGES = 300


def made_up(classes=3, images=IMAGES, seed=1, ties=False, present=None):
    random = np.random.default_rng(seed)
    labels = random.choice(present or classes, images)
    scores = random.normal(size=(images, classes))
    scores[np.arange(images), labels] += 1
    sure = np.exp(scores.round() if ties else scores)
    sure = (sure / sure.sum(axis=1, keepdims=True)).astype(np.float32)
    return answers(labels, sure)


def answers(labels, sure):
    sure = np.asarray(sure, np.float32)
    classes = [f"c{number}" for number in range(sure.shape[1])]
    return Answers(np.asarray(labels), sure.argmax(1), sure, classes, positive_class(None, classes))


def by_sklearn(metric, answers, weights=None):
    """Return a metric as its definition in docs/statistics.md has it."""
    labels, chosen, sure = answers.labels, answers.prediction, answers.probabilities
    weigh = {"sample_weight": weights}
    if metric.of_class:
        number = answers.classes.index(metric.of_class)
        score = {"recall": metrics.recall_score, "f1": metrics.f1_score}[metric.kind]
        return score(labels == number, chosen == number, **weigh)
    numbers = [1] if answers.positive == 1 else np.unique(labels)
    one_by_one = {
        "auroc": metrics.roc_auc_score, "average_precision": metrics.average_precision_score
    }  # fmt: skip
    if metric.name in one_by_one:
        each = [one_by_one[metric.name](labels == c, sure[:, c], **weigh) for c in numbers]
        return np.mean(each)
    every = range(len(answers.classes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "accuracy": lambda: metrics.accuracy_score(labels, chosen, **weigh),
            "balanced_accuracy": lambda: metrics.balanced_accuracy_score(labels, chosen, **weigh),
            "macro_f1": lambda: metrics.f1_score(
                labels, chosen, labels=np.unique(labels), average="macro", **weigh
            ),
            "log_loss": lambda: metrics.log_loss(labels, sure, labels=every, **weigh),
            "top5": lambda: metrics.top_k_accuracy_score(labels, sure, k=5, labels=every, **weigh),
        }[metric.name]()


DATA = cases(
    {
        "two classes": {"classes": 2},
        "seven classes": {"classes": 7},
        "equal probabilities": {"classes": 7, "ties": True},
        "two of them": {"classes": 2, "ties": True},
        "a class without images": {"classes": 7, "present": [0, 1, 2, 4, 5, 6]},
        "two hundred classes": {"classes": 200},
        "twenty images": {"classes": 3, "images": 20},
    },
    "two classes", "seven classes", "equal probabilities", "a class without images",
)  # fmt: skip


@pytest.mark.parametrize("about", DATA)
def test_each_metric_is_scikit_learns(about):
    made = made_up(**about)
    found = scores(made)
    assert list(found) == names(made.classes)
    for name, value in found.items():
        metric = Metric(name)
        if metric.of_class and made.classes.index(metric.of_class) not in made.labels:
            assert value is None  # never 0
        elif name == "top5" and len(made.classes) <= 5:
            assert value is None
        else:
            assert value == by_sklearn(metric, made), name


@pytest.mark.parametrize("about", DATA)
def test_pseudo_values_are_the_metrics_derivatives(about):
    """By small changes of the weights that scikit-learn's own functions take."""
    made = made_up(**about)
    count, step = len(made.labels), 1e-4
    for name, value in scores(made).items():
        found = pseudo_values(Metric(name), made)
        if value is None:
            assert found is None
            continue
        assert found.mean() == pytest.approx(value, abs=1e-6), name
        if len(made.classes) > 100 and Metric(name).of_class:
            continue
        for image in range(0, count, count // (2 if len(made.classes) > 100 else 4)):
            weights = np.ones(count)
            weights[image] += step
            more = by_sklearn(Metric(name), made, weights)
            weights[image] -= 2 * step
            change = (more - by_sklearn(Metric(name), made, weights)) / (2 * step)
            assert found[image] - value == pytest.approx(count * change, abs=1e-3), name


def test_equal_probabilities_everywhere():
    made = answers([0, 1, 1, 0, 1, 1, 1, 0], np.full((8, 2), 0.5))
    found = scores(made)
    assert (found["accuracy"], found["auroc"], found["average_precision"]) == (3 / 8, 0.5, 5 / 8)
    assert (found["balanced_accuracy"], found["recall:c1"]) == (0.5, 0)
    assert found["log_loss"] == pytest.approx(np.log(2))
    for name in found:
        values = pseudo_values(Metric(name), made)
        assert values is None or np.isfinite(values).all()


def test_one_class_only():
    """Nothing can be ranked, and the other class has no recall."""
    found = scores(answers([1, 1, 1], [[0.4, 0.6], [0.2, 0.8], [0.7, 0.3]]))
    empty = {"auroc", "average_precision", "top5", "recall:c0", "f1:c0"}
    assert {name for name, value in found.items() if value is None} == empty
    assert found["recall:c1"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("name", cases([*WORDS, "recall:c1", "f1:c1"], "log_loss", "recall:c1"))
def test_an_independent_paired_bootstrap_agrees(name):
    """It draws images, and computes the metric of both networks anew for each sample."""
    random, draws, images = np.random.default_rng(0), 400, 400
    classes = 6 if name == "top5" else 3
    a, b = (made_up(classes, images, seed=2) for _ in "ab")
    noise = np.random.default_rng(5).gamma(2, size=b.probabilities.shape)
    b = answers(b.labels, b.probabilities * noise / (b.probabilities * noise).sum(1)[:, None])
    metric = Metric(name)
    both = [Measured.of(pseudo_values(metric, each)[None]) for each in (a, b)]
    mean = uncertainty.difference(*both, same_seeds=True)
    found = []
    for _ in range(draws):
        weights = random.multinomial(images, np.full(images, 1 / images)).astype(float)
        found.append(by_sklearn(metric, a, weights) - by_sklearn(metric, b, weights))
    # The error of a standard deviation of so many draws is 3.5%; the rest is of second order.
    assert mean.standard_error == pytest.approx(np.std(found), rel=0.12)
    error = np.std(found) / np.sqrt(draws)
    assert mean.value == pytest.approx(np.mean(found), abs=5 * error + 0.003)
    ends = np.quantile(found, [0.025, 0.975])
    assert mean.interval() == pytest.approx(ends, abs=0.3 * np.std(found))


def test_delongs_variance():
    """Of the difference of two areas, by their formula, with the covariance of the placements."""
    a, b = made_up(2, seed=3), made_up(2, seed=4)
    b = Answers(a.labels, b.prediction, b.probabilities, a.classes, 1)
    inside = a.labels == 1
    placements = []
    for each in (a, b):
        sure = each.probabilities[:, 1].astype(float)
        above = (sure[inside][:, None] > sure[~inside]) + 0.5 * (
            sure[inside][:, None] == sure[~inside]
        )
        placements.append((above.mean(axis=1), above.mean(axis=0)))
    variance = sum(np.var(x - y, ddof=1) / len(x) for x, y in zip(*placements, strict=True))
    both = [Measured.of(pseudo_values(Metric("auroc"), each)[None]) for each in (a, b)]
    found = uncertainty.difference(*both, same_seeds=True)
    assert found.images.variance == pytest.approx(variance, rel=0.02)


def test_images_of_a_group_count_together():
    """Ten equal images are one: the variance is that of the groups."""
    values = np.random.default_rng(1).random(50)
    alone = uncertainty.image_term(values)
    groups = np.repeat(np.arange(50), 10)
    together = uncertainty.image_term(np.repeat(values, 10), groups)
    assert together.variance == pytest.approx(alone.variance)
    assert together.df == pytest.approx(alone.df)
    assert uncertainty.image_term(np.repeat(values, 10)).variance < alone.variance / 9


def test_a_few_images_that_decide_leave_few_degrees_of_freedom():
    random = np.random.default_rng(1)
    assert uncertainty.image_term(random.normal(size=5000)).df > 4000
    sparse = np.zeros(5000)
    sparse[:4] = 1, 1, -1, -1
    assert uncertainty.image_term(sparse).df < 10


def test_the_share_of_the_largest_class():
    assert majority(np.array([0, 1, 1, 2])) == 0.5


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("acuracy", "did you mean 'accuracy'"),
        ("recall", "recall:CLASS"),
        ("recall:defectiv", "did you mean 'defective'"),
        ("log_loss:defective", "is not known"),
        ("top5", "only 2 classes"),
    ],
)
def test_a_metric_that_there_is_not(name, said):
    with pytest.raises(UserError, match=said) as error:
        parse(name, ["functional", "defective"])
    assert str(error.value).startswith("metric: ")


def test_the_positive_class():
    two = ["functional", "defective"]
    assert (positive_class(None, two), positive_class("functional", two)) == (1, 0)
    assert positive_class(None, ["a", "b", "c"]) is None
    with pytest.raises(UserError, match="did you mean 'defective'"):
        positive_class("defect", two)
    with pytest.raises(UserError, match="there are 3"):
        positive_class("a", ["a", "b", "c"])


def test_the_worst_is_what_a_probability_of_zero_has():
    found = scores(answers([0, 0], [[0.0, 1.0], [0.0, 1.0]]))
    assert Metric("log_loss").worst == pytest.approx(found["log_loss"])
    assert ACCURACY.worst == found["accuracy"] == 0


def test_the_docs_name_the_limits():
    text = " ".join((ROOT / "docs/statistics.md").read_text().split())
    assert f"fewer than {tables.FEWEST_IMAGES} test images" in text
    assert f"The quantile is then taken {100 * (uncertainty.CAUTION - 1):.0f}% larger" in text
    assert f"one image adds {Metric('log_loss').worst:.1f} at most" in text
    bound = 100 * error_rates.bound(error_rates.STUDIES)
    assert f"up to {bound:.2f}%" in text
    rates = [float(rate) for rate in re.findall(r"([\d.]+)% (?=\|)", text)]
    assert len(rates) == len(list(error_rates.settings())) * len(error_rates.METRICS)
    assert max(rates) <= bound


def test_less_log_loss_is_better():
    assert Metric("log_loss").better(0.1, 0.2)
    assert ACCURACY.better(0.2, 0.1)
    assert sorted([0.3, 0.1], key=Metric("log_loss").best_first) == [0.1, 0.3]


def test_the_report_has_scikit_learns_numbers(finished_once):
    """Of the runs of a study, worked out from labels and probabilities alone."""
    with (finished_once.results / "report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    summary = pd.read_csv(finished_once.results / "summary.csv").set_index("experiment")
    assert len(rows) == 2
    for row in rows:
        folder = finished_once.results / row["run"]
        labels = pd.read_csv(folder / "predictions.csv.gz")["label"]
        sure = load_file(folder / "probabilities.safetensors")["probabilities"]
        found = answers(labels, sure)
        for name in names(found.classes):
            column = name.replace(":c", ":")  # the classes are digits
            value = float(row["test_accuracy" if name == "accuracy" else column])
            assert value == pytest.approx(by_sklearn(Metric(name), found), rel=1e-12)
            assert value == pytest.approx(summary.loc[row["experiment"], f"{column}_mean"])
        assert float(row["majority_accuracy"]) == labels.value_counts().max() / 1000


def network(labels, sure, seed=1, groups=None):
    found = answers(labels, sure)
    test_set = finished_runs.TestSet(
        Path(), (), None, found.labels, found.classes, found.positive, None, groups
    )
    drawn = (found.labels, found.prediction, found.probabilities.max(axis=1), test_set, None)
    return FinishedRun("", seed, "", {}, {}, None, *drawn), found


def compared(metric, *networks):
    """Return what the report makes of two experiments of one network each."""
    each = [FinishedExperiment(name, [run]) for name, (run, _) in zip("ab", networks, strict=True)]
    known = {}
    for name, (run, found) in zip("ab", networks, strict=True):
        values = pseudo_values(Metric(metric), found)
        groups = run.test_set.groups
        known[name] = None if values is None else Measured.of(values[None], groups)
    return tables.difference(Metric(metric), *each, known)


def two_networks(labels, groups=None):
    random = np.random.default_rng(1)
    labels = np.asarray(labels)
    found = []
    for _ in "ab":
        right = random.uniform(0.2, 1, len(labels))
        found.append(np.stack([np.where(labels == c, right, 1 - right) for c in (0, 1)], axis=1))
    return [network(labels, sure, groups=groups) for sure in found]


def test_of_few_images_of_a_class_nothing_is_said():
    few, enough = two_networks([0] * 30 + [1] * 9), two_networks([0] * 30 + [1] * 10)
    for metric in ("auroc", "balanced_accuracy", "macro_f1", "average_precision", "f1:c1"):
        assert compared(metric, *few) == "too few images"
        assert compared(metric, *enough).p_value() > 0
    for metric in ("accuracy", "log_loss", "recall:c1"):  # they need no more
        assert compared(metric, *few).p_value() > 0


@pytest.mark.parametrize("metric", ["accuracy", "log_loss", "balanced_accuracy"])
def test_of_few_groups_nothing_is_said(metric):
    """However many images they have: those of a group are alike."""
    labels = [0, 1] * 100
    few, enough = (two_networks(labels, np.arange(200) // size) for size in (25, 20))
    assert compared(metric, *few) == "too few images"
    assert compared(metric, *enough).p_value() > 0


def test_without_images_of_a_class_nothing_is_compared():
    networks = two_networks([0] * 40)
    for metric in ("auroc", "average_precision", "recall:c1", "f1:c1"):
        assert compared(metric, *networks) == "undefined"
    assert compared("balanced_accuracy", *networks).p_value() > 0


def test_two_networks_of_equal_probabilities_do_not_differ():
    half = np.full((40, 2), 0.5)
    same = [network([0, 1] * 20, half), network([0, 1] * 20, half)]
    for metric in (*WORDS, "recall:c1", "f1:c0"):
        found = compared(metric, *same)
        assert found == "undefined" or (found.value, found.p_value()) == (0, 1)


def test_recall_is_an_accuracy_on_the_images_of_the_class():
    found = compared("recall:c1", *two_networks([0] * 30 + [1] * 50))
    assert isinstance(found, uncertainty.Pair)
    assert found.images == 50


def test_groups_take_the_place_of_images():
    labels, groups = np.repeat([0, 1] * 20, 5), np.repeat(np.arange(40), 5)
    alone = compared("accuracy", *two_networks(labels))
    together = compared("accuracy", *two_networks(labels, groups))
    assert isinstance(alone, uncertainty.Pair)  # McNemar's test would count each image
    assert isinstance(together, uncertainty.Mean)
    assert together.value == pytest.approx(alone.value)
    assert together.images.df < 40


@pytest.mark.parametrize(
    ("metric", "sentence"),
    [
        ("accuracy", r"The cnn classifies [\d.]+% of the test images correctly \(95% interval"),
        ("recall:7", r"The cnn finds [\d.]+% of the test images of class 7 \(95% interval .*mlp"),
        (
            "auroc",
            r"The area under the ROC curve of the cnn is 0.\d+ \(.*\), that of the mlp is 0.",
        ),
        ("log_loss", r"The log loss of the cnn is 0.\d+"),
        ("top5", r"The top-5 accuracy of the cnn is 99.\d+%"),
    ],
)
def test_the_verdict_is_about_the_metric(finished_once, tmp_path, metric, sentence):
    options = ("--results", finished_once.results, "--data", finished_once.data)
    done = in_process(report, *options, "--output", tmp_path, "--metric", metric)
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert re.match(sentence, text), text
    page = (tmp_path / "report.html").read_text()
    assert re.search(sentence, page)
    (row,) = csv.DictReader((tmp_path / "comparisons.csv").open(newline=""))
    assert row["metric"] == metric
    assert float(row["p_value"]) <= 1
    low, value, high = (float(row[f"difference{end}"]) for end in ("_low", "", "_high"))
    assert low < value < high


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--metric", "auc"], "metric: 'auc' is not known"),
        (["--metric", "recall:ten"], "has no class 'ten'"),
        (["--positive", "7"], "positive: only one of two classes can be; there are 10"),
    ],
)
def test_report_says_what_is_wrong_with_a_metric(finished_once, tmp_path, options, said):
    data = ("--results", finished_once.results, "--data", finished_once.data)
    done = in_process(report, *data, "--output", tmp_path, *options)
    assert (done.returncode, said in done.stderr) == (1, True), done.stderr
