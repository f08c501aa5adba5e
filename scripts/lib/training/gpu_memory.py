"""What to say where a GPU's memory is too small: the batch sizes that fit, found by trying."""

import gc
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

import models
from lib.core.errors import TemporaryError, UserError
from lib.core.settings import Settings
from lib.data.prepared import Dataset
from lib.training.loop import take, train_step
from lib.training.metrics import evaluate
from lib.training.recipe import loss_function, make_optimizer
from lib.training.state import Training

GIB = 2**30
MOST_ALONE = 1.5 * GIB  # what is in use besides torch's own where one process has the GPU


def ran_out(error: BaseException) -> bool:
    """Return whether an exception says that a GPU has no memory left, or comes from one."""
    return (
        isinstance(error, torch.OutOfMemoryError)
        or "_STATUS_ALLOC_FAILED" in str(error)  # of cuBLAS and cuDNN
        or (error.__cause__ is not None and ran_out(error.__cause__))
    )


def release(error: BaseException) -> None:
    """Give back the GPU memory that an exception's traceback holds."""
    while error:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    gc.collect()
    torch.cuda.empty_cache()


def advice(settings: Settings, dataset: Dataset, device: torch.device) -> UserError:
    """Return what to tell the user after `release`: which batch sizes this GPU has room for."""
    free, total = torch.cuda.mem_get_info(device)
    has = f"{torch.cuda.get_device_name(device)} has {total / GIB:.1f} GiB of memory"
    has += f", {free / GIB:.1f} GiB of it free"
    others = total - free - torch.cuda.memory_reserved(device)
    if others > MOST_ALONE:
        return TemporaryError(
            "the GPU has no memory left for this training beside the other processes on it: "
            f"{has}. Let fewer share it (cpus_per_job in the config); the same command resumes "
            "from the last checkpoint"
        )
    try:
        trial = Trial(settings, dataset, device)
    except torch.OutOfMemoryError:
        return UserError(f"the data set does not fit on the GPU: {has}. Ask for another GPU")
    changes = []
    for key, attempt, images in (
        ("evaluation_batch_size", trial.evaluate, len(trial.held_out)),
        ("batch_size", trial.train, len(trial.training_set)),
    ):
        asked = getattr(settings, key)
        fitting = largest(min(asked, images), attempt)
        if fitting is None:
            return UserError(
                f"the model {settings.model['name']} does not fit on the GPU even with one image "
                f"per step: {has}. Ask for another GPU, or make the model smaller"
            )
        if fitting < min(asked, images):
            trial.settings = replace(trial.settings, **{key: fitting})
            changes.append(f"{key}: {fitting} (now {asked})")
    if not changes:
        return TemporaryError(
            f"the GPU had no memory left, and now it has enough: {has}. Other programs may use it "
            "too; the same command resumes from the last checkpoint"
        )
    return UserError(
        f"the GPU's memory is too small for this training: {has}. It has room for "
        f"{' and '.join(changes)}, as tried just now; or ask for another GPU"
    )


class Trial:
    """Does a few steps of a training, with the memory that the whole of it takes."""

    def __init__(self, settings: Settings, dataset: Dataset, device: torch.device):
        training_set, held_out = dataset.train_and_validation(settings.validation_size)
        self.training_set = training_set.to(device)
        self.held_out = (held_out or dataset.test_split()).to(device)
        self.settings, self.device = settings, device
        self.image_size, self.num_classes = dataset.image_size, len(dataset.classes)
        self.loss = loss_function(settings.loss, self.num_classes)

    def evaluate(self, batch_size: int) -> None:
        """Evaluate a new model in batches of that size."""
        evaluate(self._new_training().model, self.held_out, self.loss, batch_size)

    def train(self, batch_size: int) -> None:
        """Do two steps of that size and an evaluation; the first step makes the optimizer's state.

        No graph: a training does without one where memory is short.
        """
        training = self._new_training()
        batch, bf16 = slice(0, batch_size), self.settings.precision == "bf16"
        for _ in range(2):
            images = take(self.training_set.images, batch)
            train_step(training, self.loss, bf16, images, self.training_set.labels[batch])
        evaluate(training.model, self.held_out, self.loss, self.settings.evaluation_batch_size)

    def _new_training(self) -> Training:
        model = models.build(self.settings.model, self.image_size, self.num_classes)
        model.to(self.device)
        return Training(model, make_optimizer(self.settings.optimizer, model.parameters()), None)


def largest(size: int, attempt: Callable[[int], None]) -> int | None:
    """Return the size, or the first of its halves, with which an attempt has memory enough."""
    while size and not succeeds(partial(attempt, size)):
        size //= 2
    return size or None


def succeeds(attempt: Callable[[], None]) -> bool:
    """Return whether an attempt ends without running out of memory."""
    try:
        attempt()
    except (UserError, torch.OutOfMemoryError) as error:
        if not ran_out(error):
            raise
        release(error)
        return False
    torch.cuda.empty_cache()
    return True
