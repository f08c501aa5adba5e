"""Tests of the report's statistics, against other implementations and by simulation."""

import itertools
import math
from dataclasses import replace

import error_rates
import numpy as np
import pytest
from conftest import cases
from scipy import special, stats

from lib.reporting import uncertainty
from lib.reporting.uncertainty import Mean, Measured, Pair

IMAGES = 2000
STUDIES = 1000
# Three standard errors of a rate of 5% in this many studies.
SLACK = 3 * math.sqrt(0.05 * 0.95 / STUDIES)


def two_recipes(random, runs, seed_weight):
    """Draw which images the runs of two recipes classify correctly.

    Both recipes have an accuracy of one half. Some images are harder than others, and some are hard
    for one recipe only. `seed_weight` is the standard deviation of the mean due to seeds, relative
    to the standard deviation due to images.
    """
    hard, own = random.uniform(-0.2, 0.2, IMAGES), random.uniform(-0.1, 0.1, IMAGES)
    image_variance = (hard.var() + own.var() + 0.23 / runs) / IMAGES
    sd = seed_weight * math.sqrt(runs * image_variance)
    for share in (0.5 + hard + own, 0.5 + hard - own):
        seeds = random.normal(0, sd, (runs, 1))
        yield random.random((runs, IMAGES), dtype=np.float32) < share + seeds


def difference(a, b, same_seeds):
    return uncertainty.difference(Measured.of(a), Measured.of(b), same_seeds)


@pytest.mark.parametrize("same_seeds", [True, False])
@pytest.mark.parametrize("seed_weight", cases({"small": 0.2, "equal": 1, "large": 4}, "equal"))
@pytest.mark.parametrize("runs", cases({"3": 3, "5": 5, "10": 10}, "3"))
def test_recipes_of_equal_accuracy_rarely_differ(runs, seed_weight, same_seeds):
    random = np.random.default_rng(runs)
    counts = dict.fromkeys(("wrong verdict", "difference missed", "accuracy missed"), 0)
    for _ in range(STUDIES):
        a, b = two_recipes(random, runs, seed_weight)
        found = difference(a, b, same_seeds)
        low, high = found.interval()
        counts["wrong verdict"] += found.p_value() < 0.05
        counts["difference missed"] += not low <= 0 <= high
        low, high = Measured.of(a).mean().interval()
        counts["accuracy missed"] += not low <= 0.5 <= high
    rates = {name: count / STUDIES for name, count in counts.items()}
    print(f"{runs} runs, seed weight {seed_weight}, same seeds {same_seeds}: {rates}")
    assert max(rates.values()) <= 0.05 + SLACK
    assert min(rates.values()) > 0  # a simulation without any errors proves nothing


@pytest.mark.parametrize("seeds", cases({"1": 1, "3": 3}, "1", "3"))
@pytest.mark.parametrize("folds", [0, error_rates.FOLDS])
@pytest.mark.parametrize("case", [case for case in error_rates.CASES if case.images <= 1000])
def test_experiments_of_equal_truth_are_rarely_called_better(case, folds, seeds):
    """By any metric. `make error-rates` is the long version, whose table is in the docs."""
    studies = 60
    spread = error_rates.SPREADS[-1] if seeds > 1 else 0.0
    rates = error_rates.rates(replace(case, folds=folds), seeds, spread, studies)
    print(rates)
    # Four standard errors: there are many rates.
    assert max(rates.values()) <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / studies)


@pytest.mark.parametrize("one_right", [0.0005, 0.002, 0.02])
def test_two_networks_of_equal_error_rates_rarely_differ(one_right):
    random = np.random.default_rng(1)
    wrong = missed = 0
    shares = (one_right, one_right, 1 - 2 * one_right)
    for only_a, only_b, _ in random.multinomial(10000, shares, STUDIES):
        pair = Pair(int(only_a), int(only_b), 10000)
        low, high = pair.interval()
        wrong += pair.p_value() < 0.05
        missed += not low <= 0 <= high
    print(f"one seed, discordant {2 * one_right}: {wrong / STUDIES}, {missed / STUDIES}")
    assert wrong / STUDIES <= 0.05
    assert missed / STUDIES <= 0.05 + SLACK


def test_a_paired_interval_covers_a_true_difference():
    random = np.random.default_rng(2)
    covered = 0
    for only_a, only_b, _ in random.multinomial(10000, (0.015, 0.004, 0.981), STUDIES):
        low, high = Pair(int(only_a), int(only_b), 10000).interval()
        covered += low <= 0.011 <= high
    assert 0.95 - SLACK <= covered / STUDIES <= 0.95 + SLACK


def test_the_detectable_difference_of_networks_has_the_stated_power():
    """Networks that differ by this much are distinguished in about 80% of the studies."""
    random = np.random.default_rng(3)
    pair = Pair(60, 60, 10000)
    difference = pair.detectable(0.05)
    shares = ((0.012 + difference) / 2, (0.012 - difference) / 2, 1 - 0.012)
    shown = [
        Pair(int(a), int(b), 10000).p_value() < 0.05
        for a, b, _ in random.multinomial(10000, shares, STUDIES)
    ]
    assert 0.72 < np.mean(shown) < 0.83  # the exact test has slightly less power


def test_the_detectable_difference_of_recipes_has_the_stated_power():
    random = np.random.default_rng(5)
    shown = []
    for _ in range(STUDIES):
        a, b = two_recipes(random, 5, 1)
        found = difference(a, b, True)
        moved = Mean(found.value + found.detectable(0.05), found.seeds, found.images)
        shown.append(moved.p_value() < 0.05)
    assert 0.75 < np.mean(shown) < 0.88  # above 80% because the test is conservative


def test_p_value_and_interval_agree():
    random = np.random.default_rng(6)
    for runs in (3, 5, 10):
        a, b = two_recipes(random, runs, 1)
        found = difference(a, b, False)
        for value in (0.0, 1e-4, 0.01, 0.5, 1e9):
            mean = Mean(value, found.seeds, found.images)
            low, _ = mean.interval()
            assert (mean.p_value() < 0.05) == (low > 0)


def test_with_one_source_of_variance_it_is_students_t_and_wider():
    values = np.array([0.1, 0.4, 0.35, 0.2, 0.3])
    mean = Mean(values.mean(), uncertainty.seed_term(values), uncertainty.Term(0.0, 9999))
    half = stats.t.isf(0.025, 4) * stats.sem(values)
    low, high = mean.interval()
    assert high - mean.value == mean.value - low == pytest.approx(1.05 * half)
    statistic = values.mean() / stats.sem(values)
    assert mean.p_value() == pytest.approx(2 * stats.t.sf(statistic / 1.05, 4))


def test_without_shared_seeds_and_images_it_is_welchs_t_and_wider():
    a, b = np.array([0.1, 0.4, 0.35]), np.array([0.2, 0.3, 0.1, 0.0])
    seeds = uncertainty._sum(uncertainty.seed_term(a), uncertainty.seed_term(b))
    mean = Mean(a.mean() - b.mean(), seeds, uncertainty.Term(0.0, 9999))
    welch = stats.ttest_ind(a, b, equal_var=False)
    assert mean.p_value() == pytest.approx(2 * stats.t.sf(welch.statistic / 1.05, welch.df))


def test_too_few_images_or_seeds_detect_nothing():
    assert Pair(0, 0, 3).detectable(0.05) is None
    failed = np.array([0.97, 0.97, 0.1])  # one of three trainings failed
    images = uncertainty.Term(1e-6, 9999)
    assert Mean(0.3, uncertainty.seed_term(failed), images).detectable(0.05) is None
    assert Pair(0, 0, 1000).detectable(0.05) == pytest.approx(0.0078, abs=0.0003)


def test_wilson_against_the_formula():
    z = special.ndtri(0.975)
    for correct, n in ((9761, 10000), (0, 10), (10, 10), (3, 7)):
        p = correct / n
        center = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        assert uncertainty.wilson(correct, n) == pytest.approx((center - half, center + half))


def test_mcnemar_against_the_binomial_distribution():
    for only_a, only_b in ((163, 54), (3, 3), (0, 1), (0, 0), (12, 30)):
        n, k = only_a + only_b, min(only_a, only_b)
        tail = sum(math.comb(n, i) for i in range(k + 1)) / 2**n
        assert Pair(only_a, only_b, 10000).p_value() == pytest.approx(min(1, 2 * tail))


def test_holm_against_the_definition():
    p_values = [0.01, 0.04, 0.03, 0.005]
    # sorted: .005, .01, .03, .04 times 4, 3, 2, 1, never decreasing
    assert uncertainty.holm(p_values) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert uncertainty.holm([]) == []


def test_nothing_varies():
    right = np.ones((3, 50), dtype=bool)
    same = difference(right, right, True)
    assert (same.value, same.p_value(), same.interval()) == (0, 1, (0, 0))
    assert same.detectable(0.05) is None
    assert difference(right, ~right, True).p_value() == 0


def test_calibration_against_a_loop():
    random = np.random.default_rng(4)
    confidence = random.uniform(0.1, 1, 500).astype(np.float32)
    confidence[0] = 1.0
    right = random.random(500) < confidence
    points, error = uncertainty.calibration(uncertainty.binned(confidence, right))
    expected, total = [], 0.0
    for number in range(15):
        low, high = number / 15, (number + 1) / 15
        inside = [i for i, c in enumerate(confidence) if low <= c < high or (c == high == 1)]
        if inside:
            sure = sum(float(confidence[i]) for i in inside) / len(inside)
            share = sum(bool(right[i]) for i in inside) / len(inside)
            expected.append((sure, share, len(inside)))
            total += abs(sure - share) * len(inside)
    assert list(itertools.chain(*points)) == pytest.approx(list(itertools.chain(*expected)))
    assert error == pytest.approx(total / 500)
