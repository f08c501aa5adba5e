"""Recipes: class weights, balanced sampling, schedules, averaged weights, the best epoch."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, forked
from safetensors.torch import load_file
from sklearn.utils.class_weight import compute_class_weight

import models
import replay
from lib.core.errors import UserError
from lib.core.settings import Settings, difference
from lib.data.batches import Split
from lib.running.progress import Progress
from lib.training import loop, recipe
from lib.training.checkpoint import Checkpoints
from lib.training.recipe import TrainingLoss
from lib.training.selection import Selection
from lib.training.state import Best, Training, seed_everything

SHAPE, IMAGES = (1, 6, 6), 50
LABELS = torch.tensor([0] * 30 + [1] * 12 + [2] * 7 + [4])  # and none of class 3


def splits(count=IMAGES):
    """Return a training set of five classes, and a test set."""
    images = torch.randint(
        256, (2 * count, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    scale = (torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    return [
        Split(name, part, LABELS[:count], *scale)
        for name, part in (("training", images[:count]), ("test", images[count:]))
    ]


def train(folder, **changes) -> Training:
    """Train a multilayer perceptron on `splits()`."""
    base = Settings({"name": "MLP", "hidden": 8}, loss="cross_entropy", batch_size=10, epochs=1)
    settings = replace(
        base, **{"optimizer": {"name": "SGD", "lr": 0.1}, "scheduler": None} | changes
    )
    training_set, test_set = splits()
    seed_everything(1)
    model = models.build(settings.model, SHAPE, 5)
    progress = Progress(settings, len(training_set), len(test_set))
    checkpoints = Checkpoints(folder / "checkpoint", {}, 1e9)
    loss = TrainingLoss(settings.loss, 5, training_set.labels)
    return loop.train(model, training_set, test_set, loss, settings, checkpoints, progress)


def weights(training: Training) -> torch.Tensor:
    """Return all weights of what is evaluated, as one vector."""
    return torch.nn.utils.parameters_to_vector(training.network.parameters()).detach()


def some_output() -> torch.Tensor:
    return torch.randn(len(LABELS), 5, generator=torch.Generator().manual_seed(1))


# --- the loss


def test_balanced_weights_are_those_of_scikit_learn_and_are_not_reported():
    balanced = compute_class_weight("balanced", classes=np.array([0, 1, 2, 4]), y=LABELS.numpy())
    loss = TrainingLoss({"name": "cross_entropy", "weight": "balanced"}, 5, LABELS)
    assert loss.weight[[0, 1, 2, 4]].tolist() == pytest.approx(balanced.tolist())
    assert loss.weight[3] == 0  # no image has it
    minimized, reported = loss.of_batch(some_output(), LABELS)
    assert minimized == F.cross_entropy(some_output(), LABELS, loss.weight)
    assert reported == F.cross_entropy(some_output(), LABELS)


def test_smoothing_and_a_list_of_weights():
    loss = TrainingLoss(
        {"name": "cross_entropy", "weight": [1, 2, 3, 4, 5], "label_smoothing": 0.2}, 5, LABELS
    )
    wanted = F.cross_entropy(
        some_output(), LABELS, torch.tensor([1.0, 2, 3, 4, 5]), label_smoothing=0.2
    )
    minimized, reported = loss.of_batch(some_output(), LABELS)
    assert minimized == wanted
    assert reported == F.cross_entropy(some_output(), LABELS)


def test_a_weight_is_needed_for_each_class():
    with pytest.raises(UserError, match=r"loss\.weight: 2 numbers for 5 classes"):
        TrainingLoss({"name": "nll_loss", "weight": [1, 2]}, 5, LABELS)


@pytest.mark.parametrize(
    "loss",
    [
        "cross_entropy",
        "binary_cross_entropy_with_logits",
        {"name": "cross_entropy", "weight": "balanced", "label_smoothing": 0.1},
    ],
)
def test_accumulated_batches_are_one_large_batch(tmp_path, loss):
    """The last step has two images in its second batch: it is a mean over all of its images."""
    output = {"name": "MLP", "hidden": 8, "output": "logits"}
    whole = train(tmp_path / "whole", batch_size=16, loss=loss, model=output)
    parts = train(tmp_path / "parts", batch_size=4, accumulate=4, loss=loss, model=output)
    assert torch.allclose(weights(whole), weights(parts), atol=1e-6)
    for name in ("train_loss", "loss"):
        assert parts.history[0][name] == pytest.approx(whole.history[0][name], rel=1e-5)
    assert parts.fingerprint["batch_sizes"] == {"4": 12, "2": 1}
    assert parts.fingerprint["steps"] == 4


def test_the_reported_training_loss_has_no_weights(tmp_path):
    plain = train(tmp_path / "a", optimizer={"name": "SGD", "lr": 0})
    weighted = train(
        tmp_path / "b",
        optimizer={"name": "SGD", "lr": 0},
        loss={"name": "cross_entropy", "weight": "balanced", "label_smoothing": 0.3},
    )
    assert weighted.history[0]["train_loss"] == plain.history[0]["train_loss"]
    assert weighted.history[0]["loss"] == plain.history[0]["loss"]


# --- the order of the images


@pytest.mark.parametrize("size", [50, 23, 3, 1])
def test_balanced_sampling_draws_classes_and_their_images_equally_often(size):
    labels = torch.tensor([0] * 30 + [1] * 12 + [2] * 7 + [4])[torch.randperm(50)][:size]
    for seed in range(20):
        order = loop.order_of_epoch(labels, seed, "balanced")
        assert len(order) == size
        classes = torch.bincount(labels[order], minlength=5)[labels.unique()]
        assert classes.max() - classes.min() <= 1
        for label in labels.unique():
            times = torch.bincount(order, minlength=size)[labels == label]
            assert times.max() - times.min() <= 1
        assert torch.equal(order, loop.order_of_epoch(labels, seed, "balanced"))
    if size > 3:
        orders = {tuple(loop.order_of_epoch(labels, seed, "balanced").tolist()) for seed in (1, 2)}
        assert len(orders) == 2
        assert order.tolist() != sorted(order.tolist(), key=lambda image: labels[image])


def test_balanced_sampling_draws_the_seeds_that_shuffling_does(tmp_path):
    drawn = train(tmp_path / "a", sampling="balanced")
    shuffled = train(tmp_path / "b", shuffle=True)
    assert drawn.order_seeds == shuffled.order_seeds != []
    assert drawn.fingerprint["order"] != shuffled.fingerprint["order"]


# --- the learning rate


def rates(count, steps=4, **changes) -> list[float]:
    """Return the learning rates before the scheduler is stepped, and after each of its steps."""
    settings = Settings(optimizer={"name": "SGD", "lr": 2.0, "momentum": 0.9}, **changes)
    weight = torch.ones(1, requires_grad=True)
    optimizer = recipe.make_optimizer(settings.optimizer, [weight])
    scheduler = recipe.make_scheduler(settings, optimizer, steps)
    found = [optimizer.param_groups[0]["lr"]]
    for _ in range(count):
        optimizer.step()
        scheduler.step()
        found.append(optimizer.param_groups[0]["lr"])
    return found


HALF = {"name": "StepLR", "step_size": 1, "gamma": 0.5}


def test_the_warmup_comes_before_the_scheduler():
    assert rates(4, scheduler=HALF, warmup_epochs=2) == pytest.approx([0.02, 1.01, 2, 1, 0.5])
    every = HALF | {"every": "step"}
    assert rates(9, scheduler=every, warmup_epochs=2) == pytest.approx(
        [0.02 + 1.98 * step / 8 for step in range(8)] + [2, 1]
    )
    assert rates(3, scheduler=None, warmup_epochs=2) == pytest.approx([0.02, 1.01, 2, 2])


def test_one_cycle_gets_the_length_of_the_training():
    cycle = {"name": "OneCycleLR", "max_lr": 5.0, "every": "step"}
    found = rates(12, scheduler=cycle, epochs=3)
    weight = torch.ones(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=2.0, momentum=0.9)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5.0, total_steps=12)
    wanted = [optimizer.param_groups[0]["lr"]]
    for _ in range(12):
        optimizer.step()
        theirs.step()
        wanted.append(optimizer.param_groups[0]["lr"])
    assert found == wanted
    assert 4.9 < max(found) <= 5 and min(found) == found[-2] < 0.01
    per_epoch = rates(3, scheduler=cycle | {"every": "epoch"}, epochs=3)
    assert len(set(per_epoch)) == 4


def test_each_step_has_its_learning_rate(tmp_path):
    linear = {"name": "LinearLR", "start_factor": 1, "end_factor": 0.2, "total_iters": 8}
    training = train(tmp_path, scheduler=linear | {"every": "step"}, epochs=2)
    found = [row["learning_rate"] for row in training.history]
    assert found == pytest.approx([0.1, 0.1 * (1 - 5 * 0.8 / 8)])  # after five steps


# --- the step


def test_the_gradient_is_clipped(tmp_path):
    """With a learning rate of 1, a step changes the weights by the gradient."""
    seed_everything(1)
    begin = models.build({"name": "MLP", "hidden": 8}, SHAPE, 5)
    before = torch.nn.utils.parameters_to_vector(begin.parameters()).detach()
    changes = {"optimizer": {"name": "SGD", "lr": 1.0}, "batch_size": IMAGES}
    free = train(tmp_path / "free", **changes)
    clipped = train(tmp_path / "clipped", clip_norm=0.01, **changes)
    assert (weights(free) - before).norm() > 0.1
    assert (weights(clipped) - before).norm() == pytest.approx(0.01, rel=1e-3)
    loose = train(tmp_path / "loose", clip_norm=1e6, **changes)
    assert torch.allclose(weights(loose), weights(free))


def test_the_averaged_weights_are_evaluated(tmp_path):
    training = train(tmp_path, ema=0.5, epochs=2)
    plain = train(tmp_path / "plain", epochs=2)
    model = torch.nn.utils.parameters_to_vector(training.model.parameters()).detach()
    assert torch.equal(model, weights(plain))  # the average takes no part in the training
    assert not torch.equal(model, weights(training))
    assert training.history[-1]["loss"] != plain.history[-1]["loss"]


def test_the_average_is_that_of_the_formula(tmp_path):
    after = [weights(train(tmp_path / str(n), epochs=n, batch_size=IMAGES)) for n in (1, 2, 3)]
    wanted = 0.25 * after[0] + 0.25 * after[1] + 0.5 * after[2]  # it begins after the first step
    found = train(tmp_path / "all", ema=0.5, epochs=3, batch_size=IMAGES)
    assert torch.allclose(weights(found), wanted, atol=1e-6)


def test_what_does_not_change_has_no_average(tmp_path):
    """A mask may be infinite, and a buffer of indices has no decimals."""
    model = torch.nn.Linear(2, 2)
    model.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    model.register_buffer("index", torch.arange(200))
    average = recipe.averaged(model, 0.9)
    for _ in range(50):
        average.update_parameters(model)
    assert torch.equal(average.module.mask, model.mask)
    assert torch.equal(average.module.index, model.index)


def test_a_model_with_more_state_has_no_average():
    class Counting(torch.nn.Linear):
        def get_extra_state(self):
            return 1

    with pytest.raises(UserError, match="no average of what get_extra_state returns"):
        recipe.averaged(Counting(2, 2), 0.9)


def test_one_cycle_that_rises_for_one_step():
    settings = Settings(scheduler={"name": "OneCycleLR", "max_lr": 1, "pct_start": 0.1}, epochs=10)
    optimizer = torch.optim.SGD([torch.ones(1)], lr=1.0, momentum=0.9)
    with pytest.raises(UserError, match=r"pct_start 0\.1 of 10 steps would rise for one step"):
        recipe.make_scheduler(settings, optimizer, 5)


# --- settings that mean the same


def test_a_name_alone_is_a_loss_without_arguments():
    def changed(loss, other):
        return difference({"model": MLP, "loss": loss}, {"model": MLP, "loss": other})

    assert changed("nll_loss", {"name": "nll_loss", "weight": None}) == []
    assert changed("cross_entropy", {"name": "cross_entropy", "label_smoothing": 0}) == []
    assert changed("cross_entropy", {"name": "cross_entropy", "label_smoothing": 0.1}) == ["loss"]
    best = {"model": MLP, "keep": "best"}
    assert difference(best, best | {"metric": "accuracy", "positive": "yes"}) == []
    assert difference(best, best | {"metric": "auroc"}) == ["metric"]
    assert difference({"model": MLP}, {"model": MLP, "metric": "auroc"}) == []
    every = HALF | {"every": "epoch"}
    assert difference({"model": MLP, "scheduler": HALF}, {"model": MLP, "scheduler": every}) == []


MLP = {"name": "MLP"}


# --- the best epoch


def is_over(done, best, patience):
    training = Training(None, None, None, best=Best(best, 0.5, {}))
    training.history = [{}] * done
    return training.is_over(Settings(epochs=9, patience=patience))


def test_patience():
    assert not is_over(3, 1, None)
    assert not is_over(3, 1, 3)
    assert is_over(4, 1, 3)
    assert is_over(9, 8, 3)


def run(script, *options):
    """Run a script in a forked process."""
    words = [script, *options]
    done = subprocess.run(forked(*words), cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done


BEST = [
    "model.name=MLP", "model.hidden=16", "epochs=12", "validation_size=500", "shuffle=true",
    "optimizer.name=SGD", "optimizer.lr=2", "scheduler=null", "keep=best", "patience=3",
    "metric=balanced_accuracy",
]  # fmt: skip


@pytest.fixture(scope="module")
def best(small_data, tmp_path_factory):
    """A training of so large a learning rate that its last epoch is not its best."""
    folder = tmp_path_factory.mktemp("best")
    run("train", "--data", small_data, "--output", folder, "--set", *BEST)
    return folder


def test_the_weights_of_the_best_epoch_are_kept(best, small_data):
    history, record = pd.read_csv(best / "history.csv"), json.loads((best / "run.json").read_text())
    assert list(history)[-1] == "metric"
    kept, values = record["best"], history["metric"]
    assert kept["value"] == values.max()
    assert kept["epoch"] == values.idxmax() + 1 == len(history) - 3  # it has ended by itself
    assert kept["metric"] == "balanced_accuracy"
    assert record["versions"]["scikit-learn"]
    assert "lib/training/measures.py" in record["code"]
    validation = load_file(best / "validation.safetensors")
    right = validation["probabilities"].argmax(dim=1) == validation["labels"]
    recall = [right[validation["labels"] == label].float().mean() for label in range(10)]
    assert float(np.mean(recall)) == pytest.approx(kept["value"])
    row = history.iloc[kept["epoch"] - 1]
    assert right.float().mean().item() == pytest.approx(row["accuracy"])
    assert len(record["fingerprint"]["losses"]) == record["fingerprint"]["steps"] == 50


def test_a_training_that_keeps_its_best_epoch_is_replayed(best, small_data):
    run("evaluate", "--run", best, "--data", small_data)
    words = [sys.executable, "scripts/replay.py", "--run", best, "--data", small_data]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "equal (replay of 50 steps)" in done.stdout


def test_a_metric_that_cannot_be_computed_is_found_before_the_training():
    settings = Settings(MLP, keep="best", metric="recall:3")
    classes = list("01234")
    with pytest.raises(UserError, match="there is no recall:3 of the validation images"):
        Selection.of(settings, LABELS, classes, "log_softmax")
    value = Selection.of(replace(settings, metric="recall:2"), LABELS, classes, "log_softmax")
    assert value.metric.name == "recall:2"


def test_the_package_that_chooses_is_known_of_this_machine(best):
    record = json.loads((best / "run.json").read_text())
    versions = replay.here(record)["versions"]
    assert versions["scikit-learn"] == record["versions"]["scikit-learn"]


def test_a_metric_that_the_validation_images_do_not_have(small_data, tmp_path):
    words = [*BEST, "metric=recall:11"]
    options = ["--data", small_data, "--output", tmp_path, "--set", *words]
    done = subprocess.run(forked("train", *options), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "metric: 'recall:11': the data set has no class '11'" in done.stderr
