"""The first steps of a stored run again, with the current code: does it compute the same?"""

import gzip
import warnings
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file

from lib.core.layout import RunFiles
from lib.core.settings import Settings
from lib.data.batches import Split
from lib.data.prepared import Dataset
from lib.training import device as devices
from lib.training import network
from lib.training.accuracy import accuracy_table
from lib.training.predictions import prediction_table, with_names
from lib.training.recipe import make_optimizer, make_scheduler


class Enough(Exception):
    """The first steps are done."""

    def __init__(self, fingerprint: dict):
        self.fingerprint = fingerprint


class FirstSteps:
    """Takes the place of checkpoints and of progress: it ends a training after its first steps."""

    save_due = False

    def load(self) -> None:
        """Start from scratch."""

    def save(self, state: object) -> None:
        """Save nothing."""

    def started(self, parameters: int, device: object) -> None:
        """Say what is trained."""
        print(f"{parameters:,} parameters, on {device}", flush=True)

    def epoch_started(self, training: object) -> None:
        """Say nothing."""

    def epoch_done(self, training: object) -> None:
        """Say nothing; the last epoch completes the fingerprint of a short training."""
        self.step_done(training)

    def step_done(self, training) -> None:
        """End where the fingerprint is complete.

        Raises:
            Enough: it is.
        """
        if training.fingerprint:
            raise Enough(training.fingerprint)


def first_steps(
    settings: Settings,
    training_set: Split,
    held_out: Split,
    classes: list[str],
    device: torch.device,
) -> dict:
    """Return the fingerprint of a training with the current code.

    Args:
        settings: of the run.
        training_set: what it learned from, on the device.
        held_out: what it was measured on after each epoch, on the device.
        classes: their names.
        device: where it was trained.

    Raises:
        UserError: it fails.
    """
    ends = FirstSteps()
    try:
        with devices.errors_of_the_gpu():
            done = network.train(settings, training_set, held_out, classes, device, ends, ends)
    except Enough as enough:
        return enough.fingerprint
    return done.training.fingerprint


def difference(stored: dict, now: dict) -> str:
    """Say in what a fingerprint differs first from the one of now; nothing where it does not."""
    for key, text in (("order", "the order of the images"), ("batch_sizes", "the batches")):
        if stored[key] != now[key]:
            return f"{text} of the first epoch"
    for step, (one, other) in enumerate(zip(stored["losses"], now["losses"], strict=False), 1):
        if one != other:
            was = float.fromhex(one)
            return f"step {step}: the loss {float.fromhex(other)!r} was {was!r} ({one})"
    if stored["steps"] != now["steps"]:
        return f"the number of steps: {now['steps']} instead of {stored['steps']}"
    for key, text in (("weights_sha256", "weights"), ("random_sha256", "random generators")):
        if stored[key] != now[key]:
            return f"the {text} after step {stored['steps']}"
    return ""


def learning_rates(settings: Settings, train_size: int) -> list[float]:
    """Return the learning rate at the begin of each epoch on so many images, without training."""
    optimizer = make_optimizer(settings.optimizer, [torch.nn.Parameter(torch.zeros(1))])
    steps = settings.steps(train_size)
    scheduler = make_scheduler(settings, optimizer, steps)
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the optimizer has done no step
        for _ in range(settings.epochs):
            rates.append(optimizer.param_groups[0]["lr"])
            for _ in range(steps if settings.every_step else 1):
                if scheduler:
                    scheduler.step()
    return rates


def rates_difference(settings: Settings, stored: Sequence[float], train_size: int) -> str:
    """Say from which epoch on the learning rate is another; nothing where it never is."""
    now = learning_rates(settings, train_size)
    for epoch, (one, other) in enumerate(zip(stored, now, strict=False), 1):
        if one != other:
            return f"the learning rate of epoch {epoch}: {other!r} was {one!r}"
    return ""


def evaluation_difference(
    settings: Settings, dataset: Dataset, names: list[str] | None, files: RunFiles, loss: float
) -> str:
    """Say in what the evaluation of the stored weights differs; nothing where it does not.

    Args:
        settings: of the run.
        dataset: that it was trained on.
        names: of the test images, if they have some.
        files: of the run.
        loss: its mean loss on the test set.
    """
    now, probabilities = network.evaluate(settings, dataset, files.weights)
    predictions = prediction_table(probabilities, dataset.test_labels)
    table = accuracy_table(predictions, dataset.classes).to_csv(index=False)
    stored = files.accuracy.read_text(encoding="utf-8")
    predictions = with_names(predictions, names)
    found = table_difference("predictions", files.predictions, predictions)
    found = found or text_difference("accuracy table", stored, table)
    found = found or probability_difference("test", files.probabilities, probabilities)
    return found or number_difference("test loss", loss, now)


def held_out_difference(
    settings: Settings,
    held_out: Split,
    num_classes: int,
    device: torch.device,
    files: RunFiles,
    kept: Mapping[str, float],
) -> str:
    """Say in what the stored weights differ on the held-out images; nothing where they do not.

    Args:
        settings: of the run.
        held_out: what it was measured on after each epoch, on the device.
        num_classes: the number of classes.
        device: where it was trained.
        files: of the run.
        kept: the row of its history that is of the weights.
    """
    with devices.errors_of_the_gpu():
        loss, accuracy, probabilities = network.evaluate_split(
            settings, held_out, num_classes, files.weights, device
        )
    found = number_difference(f"{held_out.name} loss", kept["loss"], loss)
    found = found or number_difference(f"{held_out.name} accuracy", kept["accuracy"], accuracy)
    if not found and files.validation.exists():
        found = probability_difference("validation", files.validation, probabilities)
    if not found and files.earlier_validation.exists():
        predictions = prediction_table(probabilities, held_out.labels.cpu())
        found = table_difference("validation predictions", files.earlier_validation, predictions)
    return found


def probability_difference(split: str, path: Path, now: torch.Tensor) -> str:
    """Say that probabilities [N, classes] are not those in a file; nothing where they are."""
    stored = load_file(path)["probabilities"]
    if torch.equal(stored, now.float()):
        return ""
    return f"the probabilities of the {split} images of the stored weights"


def number_difference(what: str, was: float, now: float) -> str:
    """Say that a number of the stored weights differs; nothing where it does not."""
    return "" if now == was else f"the {what} of the stored weights: {now!r} was {was!r}"


def table_difference(what: str, path: Path, predictions: pd.DataFrame) -> str:
    """Say in what predictions differ from those in a file; nothing where they do not."""
    stored = gzip.decompress(path.read_bytes()).decode()
    return text_difference(what, stored, predictions.to_csv(index=False))


def text_difference(what: str, stored: str, now: str) -> str:
    """Say in which row a table differs first; nothing where it does not."""
    lines = zip_longest(stored.splitlines(), now.splitlines(), fillvalue="nothing")
    for number, (was, is_now) in enumerate(lines):
        if was != is_now:
            return f"the {what} of the stored weights, row {number}: {is_now} was {was}"
    return ""
