"""Made-up configs: a valid one reaches the training unchanged, a damaged one is explained."""

import copy
import io
import math
import sys
import tempfile
import time
from pathlib import Path

import pytest
from budget import seconds
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

import train
from lib.core.errors import UserError
from lib.study.config import read_study
from lib.study.study import Study

DATASET = {"dataset": "MNIST-small", "datasets_file": "tests/data/datasets.yaml"}
RATES = st.sampled_from([0, 0.5, 1, 1e-3, 1e-300, 12345.678])
FITTING = {
    "nll_loss": ["log_softmax"],
    "cross_entropy": ["logits", "log_softmax"],
    "binary_cross_entropy": ["softmax"],
    "binary_cross_entropy_with_logits": ["logits"],
}
NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,8}", fullmatch=True)
OPTIMIZERS = st.one_of(
    st.builds(lambda lr: {"name": "Adadelta", "lr": lr}, RATES),
    st.builds(lambda lr, x: {"name": "SGD", "lr": lr, "nesterov": x}, RATES, st.booleans()),
    st.builds(lambda x: {"name": "Adam", "betas": x, "foreach": None}, st.just([0.9, 0.99])),
)
SCHEDULERS = st.one_of(
    st.none(),
    st.builds(
        lambda n, g: {"name": "StepLR", "step_size": n, "gamma": g}, st.integers(1, 9), RATES
    ),
    st.builds(
        lambda m: {"name": "MultiStepLR", "milestones": m}, st.lists(st.integers(0, 99), max_size=3)
    ),
)
TRAINING = st.fixed_dictionaries(
    {},
    optional={
        "epochs": st.integers(1, 10**6),
        "batch_size": st.integers(1, 10**6),
        "evaluation_batch_size": st.integers(1, 10**6),
        "shuffle": st.booleans(),
        "optimizer": OPTIMIZERS,
        "scheduler": SCHEDULERS,
        "validation_size": st.integers(0, 1999),
        "precision": st.sampled_from(["fp32", "bf16"]),
    },
)
SEEDS = st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=3, unique=True)


@st.composite
def experiments(draw):
    loss = draw(st.sampled_from(list(FITTING)))
    model = {"name": draw(st.sampled_from(["MLP", "CNN"]))}
    model["output"] = draw(st.sampled_from(FITTING[loss]))
    if draw(st.booleans()):
        model["activation"] = draw(st.sampled_from(["relu", "tanh", "gelu", "sigmoid"]))
    if model["name"] == "MLP" and draw(st.booleans()):
        model["hidden"] = draw(st.integers(1, 10**6))
    experiment = {"model": model, "loss": loss} | draw(TRAINING)
    if draw(st.booleans()):
        experiment["seeds"] = draw(SEEDS)
    if draw(st.booleans()):
        experiment["device"] = draw(st.sampled_from(["cpu", "cuda", "auto"]))
    return experiment


CONFIGS = st.builds(
    lambda *parts: DATASET | dict(zip(("seeds", "training", "experiments"), parts, strict=True)),
    SEEDS,
    TRAINING,
    st.dictionaries(NAMES, experiments(), min_size=1, max_size=3),
)

ODD = [
    None, True, -1, 0, 1.5, 2**31, 2**63, 2**64, 10**400, math.nan, math.inf, "", "x", "none",
    "~x/y", "a{b}", "a\nb", "a\u2028b", "\ud800", "../x", "MLP", "SGD", [], [1], [[]], {},
    {"name": "x"},
    {"name": None}, {"name": ["SGD"]}, {"name": "SGD", "lr": "x"}, {"name": "MLP", "": 1}, {1: 2},
    {"name": "CNN", "a=b": 1}, {"model": {"name": "MLP", "hidden": {"a": [1]}}}, {"name": "layers"},
    {"name": "Layers"}, {"name": "StepLR", "step_size": 0}, {"name": "StepLR", "last_epoch": 1},
    {"name": "SGD", "params": 1}, {"name": "MLP", "input_shape": [1, 2, 3]}, {None: None},
]  # fmt: skip
TEXTS = [
    "2020-01-01", "2020-13-45", "!!binary aGVsbG8=", "!!binary ===", "!!set {a}", "!!omap [a: 1]",
    "!!python/object:os.system x", "!foo 1", "&a [*a]", "&a {b: *a}", "*nowhere", "!!int x", ".nan",
    "-.inf", "9" * 5000, "0x" + "f" * 5000, "[" * 2000, "{" * 300, "'", '"\\ud800"', "\0", "\t- a",
    "{a: 1, a: 2}", "{<<: 3}", "{<<: [1]}", "{? [1] : 2}", "{? {a: 1} : 2}", "{2020-01-01: 1}",
    "{1: 2}", "{null: 1}", "!!bool x", "!!null x", "|99 x", "- a", "12:30:45", "%TAG ! x", "--- 1",
    "!!timestamp 1", "1e999", "\ufeff", "\x85", "!!float x", "{[}", "@x", "`x", "!!map x",
    "!!seq x",
]  # fmt: skip
BYTES = [
    lambda content: content.replace(b"\n", b"\r\n"),
    lambda content: b"\xef\xbb\xbf" + content,
    lambda content: content.decode().encode("utf-16"),
    lambda content: content + b"# caf\xe9",
    lambda content: content[: len(content) // 2],
    lambda content: content + content,
    lambda content: b"",
    lambda content: b"- " + content,
    lambda content: content.replace(b":", b""),
    lambda content: content.replace(b" ", b"\t", 1),
    lambda content: b"%YAML 1.1\n---\n" + content,
    lambda content: b"\0" + content,
]


def as_yaml(config) -> str:
    text = io.StringIO()
    YAML(typ="safe", pure=True).dump(config, text)
    return text.getvalue()


def places(config):
    """Yield each mapping or list in a config with each of its keys."""
    for key, each in config.items() if isinstance(config, dict) else enumerate(config):
        yield config, key
        if isinstance(each, dict | list):
            yield from places(each)


@st.composite
def damaged(draw):
    """A valid config, with one to three things wrong in it, as bytes."""
    config = copy.deepcopy(draw(CONFIGS))  # what is drawn is shared
    marks = {}
    for number in range(draw(st.integers(1, 3))):
        inside, key = draw(st.sampled_from(list(places(config))))
        kind = draw(st.sampled_from(["odd", "text", "remove", "rename"]))
        if kind == "odd":
            inside[key] = copy.deepcopy(draw(st.sampled_from(ODD)))
        elif kind == "text":
            inside[key] = f"MARK{number}"
            marks[f"MARK{number}"] = draw(st.sampled_from(TEXTS))
        else:
            value = inside.pop(key)
            if kind == "rename" and isinstance(inside, dict):
                inside[draw(st.sampled_from([f"{key}x", "", "a b", 7, None, "lr", "../x"]))] = value
        if not list(places(config)):
            break
    text = as_yaml(config)
    for mark, replacement in marks.items():
        text = text.replace(mark, replacement)
    content = text.encode("utf-8", "surrogatepass")
    return draw(st.sampled_from(BYTES))(content) if draw(st.booleans()) else content


def read(content: bytes, command_line=None) -> Study:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fuzz.yaml"
        path.write_bytes(content)
        return read_study([path], command_line or {})


def settings_of(experiment, seed):
    """Return what train.py makes of an experiment's options."""
    sys.argv = ["train.py", "--data", "d", "--output", "o", *experiment.train_options(seed)]
    return train.read_arguments()[0]


def search(test, **strategies):
    """Call a test with made-up arguments until the time is over."""

    @settings(
        max_examples=50, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(**strategies)
    def once(**arguments):
        test(**arguments)

    end = time.monotonic() + seconds()
    while time.monotonic() < end:
        once()


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [])


def test_a_valid_config_comes_through():
    def test(config):
        study = read(as_yaml(config).encode())
        assert set(study.experiments) == set(config["experiments"])  # dumped by name
        for name, seed in study.runs:
            experiment = study.experiments[name]
            assert settings_of(experiment, seed) == experiment.settings(seed)
            assert experiment.settings(seed).seed == seed
            assert experiment.recipe.model == config["experiments"][name]["model"]

    search(test, config=CONFIGS)


def test_a_damaged_config_is_explained():
    def test(content):
        try:
            study = read(content)
        except UserError as error:
            assert "fuzz.yaml" in str(error), error
            str(error).encode()  # it can be printed
            return
        assert isinstance(study, Study)
        for experiment in study.experiments.values():
            settings_of(experiment, experiment.seeds[0])

    search(test, content=damaged())


def test_odd_values_on_the_command_line_are_explained():
    values = st.sampled_from([*ODD, *TEXTS])
    keys = st.sampled_from(["seeds", "training", "dataset", "mirrors", "x", "experiments"])

    def test(command_line):
        try:
            read(b"", command_line)
        except UserError as error:
            assert str(error)
            str(error).encode()

    search(test, command_line=st.dictionaries(keys, values, max_size=2))
