"""The choice of a search: which point, and how far its accuracy can be trusted."""

import numpy as np
import pytest
from conftest import cases

from lib.core.metric import ACCURACY, Metric
from lib.reporting import search
from lib.reporting.search import PointResult


def point(name, right, loss=1.0):
    right = np.atleast_2d(right).astype(bool)
    seeds = list(range(1, len(right) + 1))
    shares = right.astype(np.float32)
    means = right.mean(axis=1).tolist()
    return PointResult(name, {}, seeds, right, ACCURACY, means, shares, loss, 1.0)


def test_the_best_mean_is_chosen_then_the_smaller_loss():
    a = point("a", [[1, 1, 0, 0], [1, 1, 1, 1]])
    b = point("b", [[1, 1, 1, 0], [1, 1, 1, 0]], loss=0.9)
    c = point("c", [[1, 0, 0, 0], [1, 1, 1, 1]])
    ranking = search.rank([a, b, c])
    assert [each.name for each in ranking.points] == ["b", "a", "c"]
    assert ranking.best.name == "b"


def test_equal_points_are_not_told_apart_by_rounding():
    images = np.zeros((1, 3), dtype=bool)
    points = [
        PointResult(
            name, {}, [1], images, Metric("auroc"), [value], images.astype(float), loss, 1.0
        )
        for name, value, loss in (("a", 0.8 + 1e-15, 2.0), ("b", 0.8, 1.0))
    ]
    assert search.rank(points).best.name == "b"


def test_one_point_has_no_bias():
    random = np.random.default_rng(1)
    assert abs(search.rank([point("a", random.random((3, 1000)) < 0.9)]).bias) < 0.002


def test_a_point_that_is_clearly_better_has_no_bias():
    """It is chosen in each sample, so that no luck is in the choice."""
    random = np.random.default_rng(1)
    points = [
        point("a", random.random((3, 1000)) < 0.9),
        point("b", random.random((3, 1000)) < 0.6),
    ]
    assert abs(search.rank(points).bias) < 0.002


def test_the_rows_have_the_rank_and_an_interval():
    random = np.random.default_rng(2)
    points = [
        point(name, random.random((3, 500)) < share)
        for name, share in zip("ab", (0.7, 0.9), strict=True)
    ]
    rows = search.rows("mlp", search.rank(points))
    assert [(row["point"], row["rank"], row["chosen"]) for row in rows] == [
        ("b", 1, True),
        ("a", 2, False),
    ]
    for row in rows:
        assert list(row) == search.COLUMNS + search.LAST_COLUMNS
        assert row["accuracy_low"] < row["validation_accuracy"] < row["accuracy_high"]
    assert rows[0]["bias"] is not None
    assert rows[1]["bias"] is None


def test_of_points_that_are_equally_good_the_chosen_one_is_no_better_on_the_test_set():
    """The test accuracy of what is chosen is unbiased, and its validation accuracy is too high.

    By about as much as the bootstrap says. Each of the studies has 20 points of the same true
    accuracy, whose runs differ by chance, as those of seeds do.
    """
    random = np.random.default_rng(3)
    truth, studies = 0.9, 60
    validation, test, corrected = [], [], []
    for _ in range(studies):
        points, tests = [], {}
        for number in range(20):
            shares = np.clip(random.normal(truth, 0.005, size=(3, 1)), 0, 1)
            name = f"point{number}"
            points.append(point(name, random.random((3, 500)) < shares))
            tests[name] = (random.random((3, 1000)) < shares).mean()
        ranking = search.rank(points)
        validation.append(ranking.best.accuracy)
        corrected.append(ranking.best.accuracy - ranking.bias)
        test.append(tests[ranking.best.name])

    def error(values):
        return np.std(values, ddof=1) / np.sqrt(studies)

    # A run that is chosen for its luck on the validation images is partly a truly better run.
    assert np.mean(validation) - truth > 10 * error(validation)
    assert abs(np.mean(test) - truth) < 0.004
    assert abs(np.mean(corrected) - np.mean(test)) < 0.004
    assert np.mean(validation) - np.mean(test) > 2 * abs(np.mean(corrected) - np.mean(test))


@pytest.mark.parametrize("runs", cases({"one seed": 1, "three": 3}, "one seed"))
def test_a_search_of_a_thousand_points(runs):
    random = np.random.default_rng(4)
    points = [point(f"p{n}", random.random((runs, 5000)) < 0.9) for n in range(1000)]
    assert 0 < search.rank(points).bias < 0.02
