"""The points of a search: which there are, and that each keeps its name and its values."""

import re

import pytest

from lib.core.errors import UserError
from lib.core.settings import SHARED, Settings
from lib.core.sweep import points

DEFAULTS = Settings(model={"name": "MLP"}).as_dict()
SETTINGS = {key: DEFAULTS[key] for key in ("model", *SHARED)}
RANDOM = {"optimizer.lr": {"log_uniform": [1e-8, 3]}, "batch_size": {"choice": [32, 64, 128]}}


def names(sweep, settings=SETTINGS):
    return [point.name for point in points("mlp", settings, sweep)]


def test_every_combination_is_a_point():
    assert names({"model.hidden": [32, 128], "optimizer.lr": [0.3, 1.0]}) == [
        "mlp_hidden32_lr0.3",
        "mlp_hidden32_lr1",
        "mlp_hidden128_lr0.3",
        "mlp_hidden128_lr1",
    ]


def test_a_point_has_its_values_and_all_other_settings():
    sweep = {"model.hidden": [32], "optimizer.lr": [0.3], "epochs": [2], "scheduler": [None]}
    (point,) = points("mlp", SETTINGS, sweep)
    assert point.values == {
        "model.hidden": 32, "optimizer.lr": 0.3, "epochs": 2, "scheduler": None,
    }  # fmt: skip
    assert point.settings == SETTINGS | {
        "model": {"name": "MLP", "hidden": 32},
        "optimizer": {"name": "Adadelta", "lr": 0.3},
        "epochs": 2,
        "scheduler": None,
    }
    assert SETTINGS["model"] == {"name": "MLP"}


def test_points_that_mean_the_same_are_one():
    assert names({"optimizer.lr": [1, 1.0, 0.1, 1e-1]}) == ["mlp_lr1", "mlp_lr0.1"]
    # 128 units are what the model has without the argument.
    whole = [{"name": "MLP"}, {"name": "MLP", "hidden": 128}]
    assert len(names({"model": whole})) == 1


@pytest.mark.parametrize("argument_first", [False, True])
def test_a_whole_component_and_one_of_its_arguments_can_be_searched_together(argument_first):
    keys = {"optimizer": [{"name": "SGD"}, {"name": "Adam"}], "optimizer.lr": [0.1, 0.01]}
    if argument_first:
        keys = dict(reversed(keys.items()))
    found = points("mlp", SETTINGS, keys)
    assert len({point.name for point in found}) == 4
    for point in found:
        expected = point.values["optimizer"] | {"lr": point.values["optimizer.lr"]}
        assert point.settings["optimizer"] == expected
    assert keys["optimizer"] == [{"name": "SGD"}, {"name": "Adam"}]


@pytest.mark.parametrize("sampled", [False, True])
def test_an_argument_of_what_some_points_do_not_have_is_an_error(sampled):
    values = [None, {"name": "StepLR", "step_size": 1}]
    keys = {"scheduler": values, "scheduler.gamma": [0.5, 0.7]}
    if sampled:
        keys = {key: {"choice": each} for key, each in keys.items()} | {"samples": 3}
    with pytest.raises(UserError, match="gamma: the experiment has no scheduler at some of the"):
        points("mlp", SETTINGS, keys)


def test_there_is_a_limit_for_samples_too():
    with pytest.raises(UserError, match="it has 100,000,000 points; 100,000 is the limit"):
        points("mlp", SETTINGS, {"samples": 10**8, "optimizer.lr": {"uniform": [0.1, 1]}})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"), (1e-5, "1e-05"), (1e20, "1e20"), (-3, "-3"), (True, "true"), (None, "none"),
        ("tanh", "tanh"),
    ],
)  # fmt: skip
def test_a_name_says_the_value(value, text):
    assert names({"model.activation": [value]}) == [f"mlp_activation{text}"]


def test_no_two_values_have_the_same_name():
    values = [1, "1", True, "true", None, "none", 0.5, "0.5", [1, 2], [1, 2.5], {"name": "SGD"}]
    values += ["a b", "a_b", "", "tanh", "Tanh", 2**60, float(2**60) * 2, -1, "-1"]
    assert len(set(names({"model.activation": values}))) == len(values)


def test_keys_with_the_same_last_word_are_told_apart():
    assert names({"optimizer.gamma": [1], "scheduler.gamma": [2]}) == [
        "mlp_optimizer-gamma1_scheduler-gamma2"
    ]


def test_a_long_name_is_cut_off_and_still_unique():
    sweep = {f"model.argument_number_{number}": [1, 2] for number in range(6)}
    found = names(sweep)
    assert len(set(found)) == 64
    assert max(map(len, found)) == 80


def test_one_more_sample_changes_no_other():
    few, more = (names({"samples": number} | RANDOM) for number in (10, 30))
    assert more[:10] == few
    assert len(set(more)) == 30


def test_one_more_value_changes_only_the_samples_that_choose_it():
    before = points("mlp", SETTINGS, {"samples": 200} | RANDOM)
    choice = RANDOM | {"batch_size": {"choice": [32, 64, 128, 256]}}
    after = points("mlp", SETTINGS, {"samples": 200} | choice)
    changed = [
        (one, other) for one, other in zip(before, after, strict=True) if one.name != other.name
    ]
    assert 20 < len(changed) < 80
    assert {other.values["batch_size"] for _, other in changed} == {256}


def test_another_seed_draws_others():
    assert not {*names({"samples": 5} | RANDOM)} & {*names({"samples": 5, "seed": 1} | RANDOM)}


def test_samples_are_within_their_bounds_and_spread_over_them():
    sweep = {"samples": 1000, "optimizer.lr": RANDOM["optimizer.lr"]}
    sweep |= {"optimizer.rho": {"uniform": [0.5, 0.9]}}
    drawn = [point.values for point in points("mlp", SETTINGS, sweep)]
    rates, rhos = ([each[f"optimizer.{key}"] for each in drawn] for key in ("lr", "rho"))
    assert 1e-8 <= min(rates) < 1.1e-8
    assert 2.7 < max(rates) <= 3
    assert 450 < sum(rate < 1.732e-4 for rate in rates) < 550  # the middle of the logarithms
    assert 450 < sum(rho < 0.7 for rho in rhos) < 550


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({}, "there is nothing to search"),
        ({"samples": 3}, "there is nothing to search"),
        ({"hidden": [1]}, "hidden: no such setting"),
        ({"optimzer.lr": [1]}, "did you mean 'optimizer'"),
        ({"epochs.x": [1]}, "epochs.x: no such setting"),
        ({"validation_size": [1, 2]}, "compared on different images"),
        ({"optimizer.lr": {"choice": [1]}}, "a distribution needs samples"),
        ({"samples": 2, "optimizer.lr": [1]}, "with samples, name a distribution"),
        ({"samples": 2, "optimizer.lr": {"uniform": [2, 1]}}, "2 is not less than 1"),
        ({"samples": 2, "optimizer.lr": {"log_uniform": [0, 1]}}, "0 is not more than 0"),
        ({"epochs": list(range(1, 400)), "batch_size": list(range(1, 400))}, "159,201 points"),
    ],
)
def test_what_is_wrong_is_named(sweep, message):
    with pytest.raises(UserError, match=re.escape(message)):
        points("mlp", SETTINGS, sweep)


def test_a_part_of_what_the_experiment_has_not():
    with pytest.raises(UserError, match=r"scheduler\.gamma: the experiment has no scheduler"):
        points("mlp", SETTINGS | {"scheduler": None}, {"scheduler.gamma": [0.5]})
