"""From settings and data to a trained network, and from its weights to predictions.

The order of all that draws random numbers is here: the lesson seeds, then makes the model. Every
random number comes from torch's global generator, in the lesson's order, so its bits are ours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import models
from lib.core.settings import Settings, loss_of
from lib.data.batches import Split
from lib.data.prepared import Dataset
from lib.training import loop, metrics
from lib.training.checkpoint import Checkpoints
from lib.training.recipe import TrainingLoss, loss_function
from lib.training.selection import Selection
from lib.training.state import Diverged, Training, seed_everything
from lib.training.weights import load_weights


@dataclass(frozen=True)
class Trained:
    """A network that was trained.

    Attributes:
        training: its last state.
        parameters: how many it has.
        probabilities: of each class for the validation images, [N, classes]; None where there are
            none, or it has diverged.
        diverged: why it has diverged, where that is no error; else None.
    """

    training: Training
    parameters: int
    probabilities: torch.Tensor | None
    diverged: str | None


def splits(dataset: Dataset, settings: Settings) -> tuple[Split, Split]:
    """Return what is trained on, and what is measured after each epoch: validation or test."""
    training_set, validation = dataset.train_and_validation(settings.validation_size)
    return training_set, validation or dataset.test_split()


def train(
    settings: Settings,
    training_set: Split,
    held_out: Split,
    classes: list[str],
    device: torch.device,
    checkpoints: Checkpoints,
    progress: Any,
    keep_diverged: bool = False,
) -> Trained:
    """Train a network.

    Args:
        settings: of the training.
        training_set: what it learns from, on the device.
        held_out: what it is measured on after each epoch, on the device.
        classes: their names.
        device: where it is trained.
        checkpoints: where the state is saved.
        progress: is told of each step and epoch (`lib.running.progress.Progress`).
        keep_diverged: whether to return a network that has diverged.

    Raises:
        Diverged: a loss is not finite.
        Stopped: a signal asked for it; the checkpoint is saved.
        UserError: the weights or the metric of the settings do not fit the classes.
    """
    output = models.output_of(settings.model)
    selection = Selection.of(settings, held_out.labels, classes, output)
    seed_everything(settings.seed)
    model = models.build(settings.model, tuple(training_set.images.shape[1:]), len(classes))
    parameters, diverged = sum(parameter.numel() for parameter in model.parameters()), None
    progress.started(parameters, device)
    model, loss = model.to(device), TrainingLoss(settings.loss, len(classes), training_set.labels)
    where = (settings, checkpoints, progress, selection)
    try:
        training = loop.train(model, training_set, held_out, loss, *where)
    except Diverged as error:
        if not keep_diverged:
            raise
        training, diverged = Training(model, None, None), str(error)
    probabilities = None
    if held_out.name == "validation" and not diverged:  # a search compares them
        probabilities = predict(training.network, held_out, loss.reported, settings)[2]
    return Trained(training, parameters, probabilities, diverged)


def predict(
    model: torch.nn.Module, images: Split, loss: Callable, settings: Settings
) -> tuple[float, float, torch.Tensor]:
    """Return mean loss and accuracy of a network on images on its device, and what it says of them.

    That is the probability of each class, [N, classes], on the CPU.
    """
    mean_loss, output = metrics.evaluate(model, images, loss, settings.evaluation_batch_size)
    accuracy = metrics.count_correct(output, images.labels) / len(images)
    return mean_loss, accuracy, metrics.probabilities(output, models.output_of(settings.model))


def evaluate_split(
    settings: Settings, held_out: Split, num_classes: int, weights: Path, device: torch.device
) -> tuple[float, float, torch.Tensor]:
    """Return what `predict` does, of a trained network on held-out images.

    Args:
        settings: of its training.
        held_out: the images, on the device.
        num_classes: the number of classes.
        weights: the file of its weights.
        device: on which it was trained.
    """
    # As in the training: what a constructor draws and keeps for itself is then the same.
    seed_everything(settings.seed)
    model = models.build(settings.model, tuple(held_out.images.shape[1:]), num_classes)
    load_weights(model, weights)
    loss = loss_function(loss_of(settings.loss)["name"], num_classes)
    return predict(model.to(device), held_out, loss, settings)


def evaluate(settings: Settings, dataset: Dataset, weights: Path) -> tuple[float, torch.Tensor]:
    """Return the mean loss of a trained network on the test set, and its probabilities.

    Args:
        settings: of its training.
        dataset: that it was trained on.
        weights: the file of its weights.
    """
    where = (len(dataset.classes), weights, torch.device("cpu"))
    mean_loss, _, probabilities = evaluate_split(settings, dataset.test_split(), *where)
    return mean_loss, probabilities
