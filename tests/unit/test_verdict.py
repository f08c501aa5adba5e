"""Tests of the sentences of the verdict."""

import pytest

from lib.reporting import verdict


def summary(name, mean, low=None, high=None, runs=1):
    return {
        "experiment": name, "runs": runs, "accuracy_mean": mean, "accuracy_low": low,
        "accuracy_high": high, "test_loss_mean": 0.1, "train_seconds_mean": 3.0,
        "peak_memory_mb_max": 800.0,
    }  # fmt: skip


def comparison(a, b, difference, verdict_, p=0.00001, runs=1, warning="", detectable=0.004):
    known = verdict_ != "too few seeds"
    return {
        "a": a, "b": b, "runs_a": runs, "runs_b": runs, "difference": difference,
        "difference_low": difference - 0.003 if known else None,
        "difference_high": difference + 0.003 if known else None,
        "method": "exact McNemar" if runs == 1 else "t, seeds and images",
        "p_value": p if known else None, "p_adjusted": p if known else None,
        "detectable_difference": detectable if known else None, "verdict": verdict_,
        "warning": warning,
    }  # fmt: skip


TUTORIAL = [summary("mlp", 0.9761, 0.9729, 0.9789), summary("cnn", 0.987, 0.9846, 0.989)]


def test_the_verdict_of_the_tutorial():
    row = comparison("mlp", "cnn", -0.0109, "b better")
    assert verdict.sentences(TUTORIAL, [row]) == [
        "The cnn classifies 98.7% of the test images correctly (95% interval 98.5–98.9), "
        "the mlp 97.6% (97.3–97.9).",
        "The cnn is better by 1.1 percentage points (0.8–1.4; McNemar p < 0.0001; two trained "
        "networks, one seed each).",
        "One seed each describes these trained networks, not the recipes. To compare the recipes, "
        "set seeds: [1, 2, 3, 4, 5].",
    ]


def test_not_shown_is_not_equal():
    row = comparison("a", "b", -0.001, "not shown", p=0.31, runs=5)
    (text,) = verdict.pairs([row])
    assert text == (
        "It is not shown that the b is better than the a: the difference is 0.1 percentage points "
        "(−0.2 to 0.4; p = 0.31; 5 seeds each). A true difference of 0.4 percentage points would "
        "have been detected with 80% probability."
    )
    assert "equal" not in text


def test_two_seeds_are_too_few():
    row = comparison("a", "b", 0.01, "too few seeds", runs=2)
    (text,) = verdict.pairs([row])
    assert text.startswith("Too few seeds to compare a (2 seeds) and b (2 seeds)")
    rows = [summary("a", 0.97, runs=2), summary("b", 0.96, runs=2)]
    assert "97.0% of the test images correctly (mean of 2 seeds: too few for an interval)" in (
        verdict.values(rows)
    )


def test_a_warning_is_included():
    warning = "trained on different devices (cpu, NVIDIA H100)"
    row = comparison("a", "b", 0.01, "a better", warning=warning)
    assert verdict.pairs([row])[0].endswith(f"Caution: {warning}.")
    many = [row] * 6
    assert "Caution: 6 of the pairs" in verdict.pairs(many)[1]


def test_p_values_are_adjusted_for_several_comparisons():
    rows = [comparison(a, b, 0.01, "a better", p=0.02) for a, b in ("xy", "xz", "yz")]
    assert verdict.pairs(rows)[1] == (
        "The x is better than the z by 1.0 percentage points (0.7–1.3; McNemar p = 0.02 adjusted "
        "for 3 comparisons; two trained networks, one seed each)."
    )


def test_many_experiments_are_counted():
    rows = [comparison("x", str(i), 0.01, "a better") for i in range(4)]
    rows += [comparison("y", "z", 0.0, "not shown"), comparison("y", "w", 0, "too few seeds")]
    assert verdict.pairs(rows) == [
        "In 4 of 6 pairs of experiments, one is better (Holm-adjusted p < 0.05); for 1, no "
        "difference is shown; for 1, there are too few seeds. All of them are in comparisons.csv."
    ]
    rows = [comparison("x", str(i), 0.01, verdict_) for i, verdict_ in enumerate(
        ["a better"] * 3 + ["b better", "not shown", "not shown"])]  # fmt: skip
    assert verdict.pairs(rows)[0].startswith(
        "Of 6 experiments compared with the first (x), 1 is better and 3 are worse (Holm-adjusted "
        "p < 0.05); for 2, no difference is shown."
    )
    five = [summary("a", 0.98, 0.979, 0.981, 5), summary("b", 0.97, 0.96, 0.98, 5)]
    assert verdict.values(five) == (
        "The a classifies 98.00% of the test images correctly (95% interval 97.90–98.10; mean of 5 "
        "seeds), the b 97.00% (96.00–98.00)."
    )
    mixed = [summary("a", 0.98, runs=2), *TUTORIAL[:1], summary("c", 0.97, 0.96, 0.98, 3)]
    assert verdict.values(mixed) == (
        "The a classifies 98.0% of the test images correctly (mean of 2 seeds: too few for an "
        "interval), the mlp 97.6% (95% interval 97.3–97.9; one seed), the c 97.0% (96.0–98.0; mean "
        "of 3 seeds)."
    )
    text = verdict.values([summary(f"e{i}", 0.9 + i / 1000, 0.89, 0.92) for i in range(9)])
    assert text.endswith("the other 4 from 90.0% to 90.3%.")


@pytest.mark.parametrize(
    ("width", "digits"), [(0, 1), (10, 1), (0.4, 1), (0.2, 2), (0.04, 2), (0.004, 3)]
)
def test_the_number_of_decimals_depends_on_the_interval(width, digits):
    assert verdict.decimals(width) == digits


def test_the_table_for_the_terminal():
    lines = verdict.terminal(TUTORIAL, []).splitlines()
    assert lines[-3].split() == [
        "experiment", "runs", "accuracy", "%", "95%", "interval", "test", "loss", "train",
        "s", "memory", "MB",
    ]  # fmt: skip
    assert lines[-1].split() == [
        "cnn",
        "1",
        "98.70",
        "98.46",
        "to",
        "98.90",
        "0.1000",
        "3.0",
        "800",
    ]
    assert len({len(line) for line in lines[-3:]}) == 1


def test_runs_that_are_missing():
    rows = [*TUTORIAL, {"experiment": "none", "runs": "0", "missing": "seed 1: a, b; seed 2: c"}]
    assert verdict.incomplete(rows) == "This report is incomplete: 2 of 4 runs are missing."
    assert verdict.missing_runs(rows) == ["none, seed 1: a, b", "none, seed 2: c"]
    assert verdict.missing_runs(rows, most=1) == ["none, seed 1: a, b", "and 1 more"]
    assert verdict.values(rows) == verdict.values(TUTORIAL)
    lines = verdict.terminal(rows, []).splitlines()
    assert lines[0] == verdict.incomplete(rows)
    assert lines[-1].split() == ["none", "0", "of", "2", *"-----"]
    assert verdict.incomplete(TUTORIAL) == ""
    assert verdict.missing_runs(TUTORIAL, most=1) == []


def test_a_pair_of_which_runs_are_missing():
    row = comparison("a", "b", 0.01, "incomplete") | {"p_value": None}
    assert verdict.pairs([row]) == ["No verdict on a and b: runs are missing."]
    assert verdict.advice([row]) == ""
    others = [comparison("x", str(i), 0.01, "a better") for i in range(5)]
    assert "; for 1, runs are missing." in verdict.pairs([*others, row])[0]


@pytest.mark.parametrize(
    ("loss", "text"),
    [
        (0.41234, "0.4123"),
        (-3.0, "-3.0000"),
        (99999.0, "99999.0000"),
        (1e308, "1e+308"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
    ],
)
def test_a_loss_is_short_however_large(loss, text):
    assert verdict.loss_text(loss) == text
