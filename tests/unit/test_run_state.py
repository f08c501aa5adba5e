"""Whether a run is done, and if not, what is left of it and why."""

import os
import time
from dataclasses import replace
from importlib.metadata import version

import pytest

from lib.core import records
from lib.core.errors import UserError
from lib.core.failure_file import Failure
from lib.core.layout import EVALUATED, TRAINED, RunFiles
from lib.core.progress_file import Epoch, RunProgress
from lib.core.run_state import Expected, read_trained, run_state
from lib.core.settings import Settings

SETTINGS = Settings({"name": "MLP"}).as_dict()
CODE = {"model.py": "c1", "lib/training/accuracy.py": "c2"}
EXPECTED = Expected(
    Settings({"name": "MLP"}), ["d1", "d2"], lambda name, digest: CODE.get(name) == digest
)
HISTORY = "epoch,split,loss,accuracy\n1,test,0.5,0.8\n2,test,0.4,0.9\n"
GONE = "files of its {} are missing"


@pytest.fixture
def files(tmp_path):
    made = RunFiles(tmp_path / "seed1")
    made.folder.mkdir()
    return made


def train(files, **changes):
    """Write what a training leaves."""
    files.weights.write_text("weights")
    files.history.write_text(HISTORY)
    content = {"settings": SETTINGS, "data_sha256": "d1", "code": {"model.py": "c1"}} | changes
    records.write(files.record, content, [files.weights, files.history])


def evaluate(files, **changes):
    """Write what an evaluation leaves."""
    written = [files.predictions, files.probabilities, files.accuracy]
    for file in written:
        file.touch()
    content = {
        "run_sha256": records.read(files.record)[records.SEAL],
        "code": {"lib/training/accuracy.py": "c2"},
    }
    records.write(files.evaluation, content | changes, written)


def fail(files, **changes):
    """Write down that the training fails whenever it is tried."""
    of = {"settings": SETTINGS, "data_sha256": "d1", "code": {"model.py": "c1"}} | changes
    Failure(**of, message="the loss is nan").write(files.failure)


def stage_left_why(files, expected=EXPECTED, **options):
    state = run_state(files, expected, **options)
    return state.status, state.left, state.why


def test_from_the_beginning_to_the_end(files):
    assert stage_left_why(files) == ("waiting", "train", "")
    RunProgress(2, 32, done=[Epoch(1, "test", 0.5, 0.8)]).write(files.progress)
    files.lease.touch()
    state = run_state(files, EXPECTED)
    assert (state.status, state.left, state.epochs[-1].accuracy) == ("training", "train", 0.8)
    files.lease.unlink()
    assert stage_left_why(files) == ("waiting", "train", "")
    train(files)
    assert stage_left_why(files) == ("trained", "evaluate", "")
    assert stage_left_why(files, stages=("train",)) == ("done", None, "")
    evaluate(files)
    state = run_state(files, EXPECTED)
    assert (state.status, state.left, state.done) == ("done", None, ("train", "evaluate"))
    assert [each.accuracy for each in state.epochs] == [0.8, 0.9]
    assert state.training is None
    assert state.results == records.read(files.record)[records.SEAL]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"settings": SETTINGS | {"epochs": 9, "loss": "x"}}, "other settings (epochs, loss)"),
        ({"data_sha256": "d0"}, "other data"),
        ({"code": {"model.py": "c0"}}, "other code (model.py)"),
        ({"code": dict.fromkeys("abcd", "c0")}, "other code (a, b, c, ...)"),
    ],
)
def test_what_is_of_something_else_is_out_of_date(files, changes, why):
    train(files, **changes)
    evaluate(files)
    assert stage_left_why(files) == ("out of date", "train", why)
    assert run_state(files, EXPECTED).epochs == []


def test_the_data_by_its_other_name(files):
    train(files, data_sha256="d2")
    assert stage_left_why(files) == ("trained", "evaluate", "")


def test_versions_count_where_they_are_to(files):
    others = {"python": "3.1", "snakemake": "1", "torch": "1.0", "numpy": version("numpy")}
    train(files, versions=others)
    evaluate(files, versions=others)
    assert run_state(files, EXPECTED).left is None
    strict = replace(EXPECTED, versions=True)
    why = f"other versions (torch 1.0, here {version('torch')})"
    assert stage_left_why(files, strict) == ("out of date", "train", why)
    train(files, versions={"torch": version("torch")})
    evaluate(files, versions={"some-package": "3"})
    why = "other versions (some-package 3, here not installed)"
    assert stage_left_why(files, strict) == ("trained", "evaluate", why)


def test_settings_and_data_of_which_nobody_expects_anything(files):
    train(files, settings=SETTINGS | {"epochs": 9}, data_sha256="d0")
    assert run_state(files, Expected(is_same=EXPECTED.is_same)).done == ("train",)


def test_an_evaluation_is_of_its_code_and_its_training(files):
    train(files)
    evaluate(files, code={"lib/training/accuracy.py": "c0"})
    assert stage_left_why(files) == ("trained", "evaluate", "other code (lib/training/accuracy.py)")
    evaluate(files, run_sha256="s0")
    assert stage_left_why(files) == ("trained", "evaluate", "it was trained since")
    files.evaluation.write_text("{}")
    stage, left, why = stage_left_why(files)
    assert (stage, left) == ("trained", "evaluate")
    assert str(files.evaluation) in why
    # A run that is not evaluated any more: nothing is left, and nothing is forgotten.
    assert stage_left_why(files, stages=("train",)) == ("done", None, why)


@pytest.mark.parametrize("name", [*TRAINED, *EVALUATED])
def test_a_file_that_is_gone(files, name):
    train(files)
    evaluate(files)
    (files.folder / name).unlink()
    expected = {
        "evaluation.json": ("trained", "evaluate", ""),
        **dict.fromkeys(TRAINED, ("out of date", "train", GONE.format("training"))),
    }
    other = ("trained", "evaluate", GONE.format("evaluation"))
    assert stage_left_why(files) == expected.get(name, other)


def test_weights_are_read_where_they_are_newer_or_on_demand(files):
    train(files)
    files.weights.write_text("other")
    os.utime(files.weights, (1, 1))
    assert run_state(files, EXPECTED).left == "evaluate"
    assert "model.safetensors is truncated" in run_state(files, EXPECTED, verify="all").why
    with pytest.raises(UserError, match=r"model\.safetensors is truncated"):
        read_trained(files, verify="all")
    for verify in ("newer", "all but weights"):
        assert read_trained(files, verify=verify)["data_sha256"] == "d1"
    os.utime(files.weights)
    os.utime(files.record, (1, 1))
    stage, left, why = stage_left_why(files)
    assert (stage, left) == ("out of date", "train")
    assert "model.safetensors is truncated" in why


@pytest.mark.parametrize(
    ("name", "stage"),
    [("history.csv", "train"), ("predictions.csv.gz", "evaluate"), ("accuracy.csv", "evaluate")],
)
def test_what_was_damaged_since_is_made_again(files, name, stage):
    train(files)
    evaluate(files)
    later = time.time() + 10
    os.utime(files.folder / name, (later, later))  # copied, but the same
    assert run_state(files, EXPECTED).left is None
    (files.folder / name).write_text("damaged")
    os.utime(files.folder / name, (later, later))
    state = run_state(files, EXPECTED)
    assert state.left == stage
    assert f"{name} is truncated, corrupt, or not the file" in state.why


def test_the_folder_of_another_seed(files):
    train(files, settings=SETTINGS | {"seed": 2})
    assert "is of seed 2, not of seed 1" in run_state(files, EXPECTED).why


def test_what_fails_whenever_it_is_tried(files):
    fail(files)
    state = run_state(files, EXPECTED)
    assert (state.status, state.failure) == ("failed", "the loss is nan")
    for before in (
        {"settings": SETTINGS | {"epochs": 9}},
        {"data_sha256": "d0"},
        {"code": {"model.py": "c0"}},
    ):
        fail(files, **before)
        state = run_state(files, EXPECTED)
        assert (state.status, state.failure) == ("waiting", "")
    train(files)  # of which it says nothing
    assert (run_state(files, EXPECTED).status, run_state(files, EXPECTED).failure) == (
        "trained",
        "",
    )


def test_while_it_is_trained_again(files):
    train(files, data_sha256="d0")
    RunProgress(2, 32, done=[Epoch(1, "test", 0.5, 0.7)]).write(files.progress)
    files.lease.touch()
    state = run_state(files, EXPECTED)
    assert (state.status, state.left, state.why) == ("training", "train", "other data")
    assert (state.epochs[-1].accuracy, state.results) == (0.7, None)
    long_ago = time.time() - 200
    os.utime(files.lease, (long_ago, long_ago))  # its process was killed
    state = run_state(files, EXPECTED)
    assert (state.status, state.training, state.epochs) == ("out of date", None, [])
