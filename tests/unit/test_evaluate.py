"""The evaluation: predictions and the accuracy table, and runs that cannot be evaluated."""

import gzip
import json
import math
import os
import subprocess

import pandas as pd
import pytest
import torch
from conftest import ROOT, forked
from own_models import net
from safetensors.torch import load_file

from lib.data import prepared
from lib.training.accuracy import accuracy_table
from lib.training.metrics import probabilities
from lib.training.predictions import prediction_table


def run(folder, data, check=True):
    command = forked("evaluate", "--run", folder, "--data", data)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_predictions_are_the_models(finished_once):
    """Worked out here from the weights alone, without the project's own model."""
    table = pd.read_csv(finished_once.run_folder("mlp") / "predictions.csv.gz")
    assert list(table) == ["index", "label", "prediction", "confidence"]
    assert table["index"].tolist() == list(range(1000))
    dataset = prepared.load(finished_once.data)
    assert table["label"].tolist() == dataset.test_labels.tolist()
    weights = load_file(finished_once.run_folder("mlp") / "model.safetensors")
    pixels = (dataset.test_images.double() / 255 - 0.1307) / 0.3081
    hidden = torch.relu(pixels.flatten(1) @ weights["fc1.weight"].double().T + weights["fc1.bias"])
    logits = hidden @ weights["fc2.weight"].double().T + weights["fc2.bias"]
    confidence, prediction = logits.softmax(dim=1).max(dim=1)
    assert table["prediction"].tolist() == prediction.tolist()
    assert table["confidence"].tolist() == pytest.approx(confidence.tolist(), abs=1e-5)


def test_the_table_agrees_with_the_history(finished_once):
    for experiment in ("mlp", "cnn"):
        folder = finished_once.run_folder(experiment)
        # as text: pandas 2 reads some numbers not to the last bit
        table = pd.read_csv(folder / "accuracy.csv", dtype=str)
        last = pd.read_csv(folder / "history.csv", dtype=str).iloc[-1]
        evaluation = json.loads((folder / "evaluation.json").read_text())
        assert float(table.iloc[-1]["accuracy"]) == float(last["accuracy"])
        assert evaluation["test_loss"] == float(last["loss"])


def test_the_accuracy_table():
    # class a: 2 of 3 right; b: 1 of 1; c: never predicted, 0 of 1; d: no image
    predictions = pd.DataFrame({"label": [0, 0, 0, 1, 2], "prediction": [0, 0, 1, 1, 0]})
    table = accuracy_table(predictions, ["a", "b", "c", "d"])
    assert list(table) == ["class", "correct", "total", "accuracy", "precision", "recall", "f1"]
    rows = table.set_index("class").to_dict("index")
    third = pytest.approx(2 / 3)
    assert (rows["a"]["correct"], rows["a"]["total"]) == (2, 3)
    for column in ("accuracy", "precision", "recall", "f1"):
        assert rows["a"][column] == third
    assert rows["b"]["precision"] == 0.5
    assert rows["b"]["f1"] == pytest.approx(2 / 3)
    assert [rows["c"][name] for name in ("correct", "total", "accuracy", "f1")] == [0, 1, 0, 0]
    # What cannot be computed is empty, and no part of the means.
    assert math.isnan(rows["c"]["precision"])
    assert all(math.isnan(rows["d"][name]) for name in ("accuracy", "precision", "recall", "f1"))
    assert (rows["all"]["correct"], rows["all"]["total"]) == (3, 5)
    assert rows["all"]["accuracy"] == 0.6
    assert rows["all"]["recall"] == pytest.approx((2 / 3 + 1 + 0) / 3)


@pytest.mark.parametrize("kind", ["log_softmax", "softmax", "logits"])
def test_confidence_is_a_probability(kind):
    logits = torch.tensor([[1.0, 3.0], [0.0, 0.0]])
    output = {"log_softmax": logits.log_softmax(1), "softmax": logits.softmax(1)}.get(kind, logits)
    table = prediction_table(probabilities(output, kind), torch.tensor([1, 0]))
    assert table["confidence"].tolist() == pytest.approx([0.8807971, 0.5])
    assert table["prediction"].tolist() == [1, 0]


def test_all_probabilities_are_kept(finished_once):
    folder = finished_once.run_folder("cnn")
    sure = load_file(folder / "probabilities.safetensors")["probabilities"]
    table = pd.read_csv(folder / "predictions.csv.gz")
    assert (sure.dtype, sure.shape) == (torch.float32, (1000, 10))
    assert sure.argmax(dim=1).tolist() == table["prediction"].tolist()
    assert sure.max(dim=1).values.tolist() == pytest.approx(table["confidence"].tolist())
    assert sure.double().sum(dim=1).tolist() == pytest.approx([1.0] * 1000, abs=1e-5)


def test_equal_predictions_are_equal_bytes(finished):
    folder = finished.run_folder("mlp")
    names = ("predictions.csv.gz", "probabilities.safetensors")
    files = {name: (folder / name).read_bytes() for name in names}
    run(folder, finished.data)
    assert files == {name: (folder / name).read_bytes() for name in names}
    before = files["predictions.csv.gz"]
    assert gzip.decompress(before).startswith(b"index,label,prediction,confidence\n0,7,7,0.9")


def test_weights_of_another_model(finished):
    weights = finished.run_folder("cnn") / "model.safetensors"
    (finished.run_folder("mlp") / "model.safetensors").write_bytes(weights.read_bytes())
    done = run(finished.run_folder("mlp"), finished.data, check=False)
    assert done.returncode == 1
    assert "is truncated, corrupt, or not the file that" in done.stderr
    assert str(finished.run_folder("mlp") / "model.safetensors") in done.stderr


@pytest.mark.parametrize("file", ["model.safetensors", "run.json"])
@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_run_that_is_not_whole(finished, file, damage):
    path = finished.run_folder("mlp") / file
    path.write_bytes(path.read_bytes()[:-20])
    if damage == "missing":
        path.unlink()
    done = run(finished.run_folder("mlp"), finished.data, check=False)
    assert done.returncode == (os.EX_TEMPFAIL if damage == "missing" else 1)
    assert str(path) in done.stderr


def test_other_data_than_it_was_trained_on(finished):
    content = finished.data.read_bytes()
    finished.data.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    done = run(finished.run_folder("mlp"), finished.data, check=False)
    assert done.returncode == 1
    assert "is truncated or corrupt: its digest is not the one in" in done.stderr
    finished.data.with_name("MNIST-small.prepared.json").unlink()
    done = run(finished.run_folder("mlp"), finished.data, check=False)
    assert done.returncode == 1
    assert "digests" in done.stderr


ROLLING = net("self.shift = random.randrange(4)", "x = x.roll(196 * self.shift, 1)")


@pytest.mark.extended
def test_what_a_constructor_draws_is_the_same_as_in_the_training(finished, tmp_path):
    """The dry step refuses such a model, but for the seeds with which it draws the same twice."""
    (finished.folder / "scripts/models/net.py").write_text(ROLLING)
    settings = ("model.name=Net", "loss=cross_entropy", "epochs=1")
    for seed in range(50):
        options = ("--data", finished.data, "--output", tmp_path, "--set", f"seed={seed}")
        done = finished.script("train", *options, *settings, check=False)
        if done.returncode == 0:
            break
        assert "is random in a model" in done.stdout
    finished.script("evaluate", "--run", tmp_path, "--data", finished.data)
    evaluation = json.loads((tmp_path / "evaluation.json").read_text())
    assert evaluation["test_loss"] == pd.read_csv(tmp_path / "history.csv").iloc[-1]["loss"]
