"""One training step of a model on two random images, to find now what would fail later.

It does all that a training does with a model, an optimizer and a scheduler, on models of its own,
and leaves no trace: the random numbers that follow are the same with and without it.
"""

import io
import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from safetensors import torch as safetensors

import models
from lib.core.errors import UserError, errors_named
from lib.core.settings import Settings
from lib.training.checkpoint import deserialize, serialize
from lib.training.metrics import check_output, check_shape
from lib.training.recipe import (
    TrainingLoss,
    averaged,
    errors_of,
    make_optimizer,
    make_scheduler,
)
from lib.training.state import Training, random_state, restore_random_state, seed_everything
from lib.training.weights import load_state, pack, unpack

MOST_STEPS = 1000  # that the scheduler is tried for


def dry_step(
    settings: Settings,
    input_shape: tuple[int, int, int],
    num_classes: int,
    train_size: int,
    test_sizes: Iterable[int],
    device: torch.device,
) -> None:
    """Check that a training can do what its settings say.

    Args:
        settings: of the training.
        input_shape: channels, height and width of the images.
        num_classes: the number of classes.
        train_size: training images.
        test_sizes: images of each split on which the model is evaluated.
        device: where the training will be.

    Raises:
        UserError: it cannot; the message names the model, the optimizer or the scheduler.
    """
    name = settings.model["name"]
    with no_trace(), errors_named(name):
        seed_everything(settings.seed)
        batch = last_batch(train_size, settings.batch_size)
        images, labels = some_images(batch, input_shape, num_classes, device)
        batch = min(last_batch(size, settings.evaluation_batch_size) for size in test_sizes)
        test_images, _ = some_images(batch, input_shape, num_classes, device)

        model = models.build(settings.model, input_shape, num_classes).to(device)
        check_parameters(name, model)
        loss = TrainingLoss(settings.loss, num_classes, labels)
        optimizer = make_optimizer(settings.optimizer, model.parameters())
        scheduler = make_scheduler(settings, optimizer, settings.steps(train_size))
        average = averaged(model, settings.ema)
        model.train()
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
            output = model(images.clone())
        check_shape(name, output, len(images), num_classes)
        first_loss, _ = loss.of_batch(output.float(), labels)
        check_loss(name, first_loss)
        first_loss.backward()
        check_output(name, evaluated(model, test_images), len(test_images), num_classes)
        try_recipe(settings, model, optimizer, scheduler, settings.steps(train_size))
        if average:
            for _ in range(2):  # the first is a copy
                average.update_parameters(model)
            check_output(
                name, evaluated(average.module, test_images), len(test_images), num_classes
            )

        fresh = models.build(settings.model, input_shape, num_classes)
        check_saved(name, model, fresh.to(device), test_images)
        state = Training(model, optimizer, scheduler, average).state()
        deserialize(io.BytesIO(serialize(state)))  # as for a checkpoint


@contextmanager
def no_trace() -> Iterator[None]:
    """Let the block warn of nothing, and leave the random generators as they were."""
    state = random_state()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        restore_random_state(state)


def last_batch(size: int, batch_size: int) -> int:
    """Return the images in the last batch of a split."""
    return size % batch_size or batch_size


def some_images(
    batch: int, input_shape: tuple[int, int, int], num_classes: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random images [N, channels, height, width] and labels [N].

    There are two, or one if a batch has one: layers such as BatchNorm1d cannot train on one.
    """
    count = min(2, batch)
    images = torch.rand(count, *input_shape, generator=torch.Generator().manual_seed(0))
    return images.to(device), torch.tensor([0, num_classes - 1][:count]).to(device)


def check_parameters(name: str, model: torch.nn.Module) -> None:
    """Raise `UserError` where an optimizer could not work on a model's parameters."""
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(f"model {name}: none of its parameters requires a gradient: nothing to do")
    for key, parameter in model.named_parameters():
        if 0 in parameter.stride() and parameter.numel() > 1:
            raise UserError(
                f"model {name}: the parameter {key} is a tensor made by expand, which cannot be "
                "written to; add .clone()"
            )


def check_loss(name: str, loss: torch.Tensor) -> None:
    """Raise `UserError` where a model's first loss is of no use to an optimizer."""
    if not torch.isfinite(loss):
        raise UserError(f"model {name}: the loss of its first step is {loss.item()}")
    if not loss.requires_grad:
        raise UserError(
            f"model {name}: its output depends on none of its parameters; does forward use "
            "no_grad, detach or .data?"
        )


@torch.no_grad()
def evaluated(model: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return a model's output in evaluation mode."""
    return model.eval()(images.clone())


def try_recipe(
    settings: Settings,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None,
    steps: int,
) -> None:
    """Take one step of the optimizer, and the scheduler's steps, of many the first ones.

    Raises:
        UserError: one of them fails, or makes numbers that are not finite.
    """
    with errors_of("optimizer", settings.optimizer):
        optimizer.step()
        if not all(bool(torch.isfinite(each).all()) for each in model.parameters()):
            raise ValueError("the weights are not finite after one step; is lr too large?")
    if scheduler is None:
        return
    unit, count = "epoch", settings.epochs
    if settings.every_step:
        unit, count = "step", count * steps
    with errors_of("scheduler", settings.scheduler or {"name": "LinearLR"}):
        for number in range(1, min(count, MOST_STEPS) + 1):
            scheduler.step()
            rate = optimizer.param_groups[0]["lr"]
            if not math.isfinite(rate):
                raise ValueError(f"the learning rate is {rate} after {unit} {number}")


def check_saved(
    name: str, model: torch.nn.Module, fresh: torch.nn.Module, images: torch.Tensor
) -> None:
    """Save a model's weights and load them into a fresh model, in memory; compare the outputs.

    Raises:
        UserError: they cannot be saved or loaded, or the outputs differ.
    """
    tensors, metadata = pack(model)
    saved = safetensors.load(safetensors.save(tensors, metadata))
    load_state(fresh, unpack(saved, metadata))
    state = random_state()  # a model may be random in evaluation mode
    before = evaluated(model, images)
    restore_random_state(state)
    after = evaluated(fresh, images)
    # Not equal: memory of another layout may mean another order of sums.
    if not torch.allclose(before, after, rtol=1e-4, atol=1e-5, equal_nan=True):
        raise UserError(
            f"model {name}: loaded from its saved weights, it returns something else. What "
            "changes or is random in a model must be a parameter, a buffer (persistent), or "
            "returned by get_extra_state"
        )
