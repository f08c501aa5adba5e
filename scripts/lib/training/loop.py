"""The training loop, top to bottom.

It is the loop of every PyTorch tutorial: for each epoch, for each batch, forward, loss, backward,
step; then test. Four things differ, and none of them changes a bit of the result:

- The data set is one tensor of bytes, in memory or in its file. A batch is normalized when it is
  taken, and the model may change it. There is no `DataLoader`, but the random numbers that one
  would draw are drawn (`draw_seed`), so that the order of the images and the dropout masks are
  those of the plain loop.
- After a step, the loop may save a checkpoint, and a training that starts from a checkpoint
  resumes after that step.
- Losses stay on the device until they are needed. Reading one waits for the GPU.
- On a GPU, a step that is the same each time is launched as one CUDA graph (`graph.py`).
"""

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from lib.core.errors import errors_named
from lib.core.plain import is_plain
from lib.core.settings import Settings
from lib.data.batches import Split
from lib.training import fingerprint
from lib.training import graph as graphs
from lib.training.checkpoint import Checkpoints
from lib.training.metrics import NotFinite, count_correct, evaluate
from lib.training.recipe import make_optimizer, make_scheduler
from lib.training.state import Diverged, Training


def train(
    model: torch.nn.Module,
    training_set: Split,
    held_out: Split,
    loss: Callable[..., torch.Tensor],
    settings: Settings,
    checkpoints: Checkpoints,
    progress: Any,
) -> Training:
    """Train `model` in place, from its checkpoint if there is one.

    Args:
        model: on the device of the splits.
        training_set: what it learns from.
        held_out: what it is measured on after each epoch.
        loss: as `recipe.loss_function` makes it.
        settings: of this training.
        checkpoints: where the state is saved.
        progress: is told of each step and epoch (`lib.running.progress.Progress`).

    Raises:
        Diverged: a loss is not finite; the message says at which epoch and step.
        Stopped: a signal asked for it; the checkpoint is saved.
    """
    optimizer = make_optimizer(settings.optimizer, model.parameters())
    training = Training(model, optimizer, make_scheduler(settings.scheduler, optimizer))
    step = partial(train_step, training, loss, settings.precision == "bf16")
    graph = None
    on_gpu = training_set.images.device.type == "cuda"
    if graphs.allowed(model, optimizer) and on_gpu and not is_plain():
        graph = graphs.StepGraph(step, training_set, settings.batch_size)
    saved = checkpoints.load()
    if saved:
        training.restore(saved)
        progress.resumed(training)

    while training.epoch <= settings.epochs:
        learning_rate = optimizer.param_groups[0]["lr"]
        train_loss = train_epoch(
            training, training_set, step, graph, settings, checkpoints, progress
        )
        training.cuda_graph = bool(graph and graph.captured)
        fingerprint.after_epoch(training, is_last=training.epoch == settings.epochs)
        results = test(training, held_out, loss, settings)
        training.history.append(
            {
                "epoch": training.epoch,
                "learning_rate": learning_rate,
                "train_loss": train_loss,
                "split": held_out.name,
                **results,
            }
        )
        if training.scheduler:
            training.scheduler.step()
        training.epoch, training.step = training.epoch + 1, 0
        progress.epoch_done(training)
        checkpoints.save(training.state())
    return training


def train_epoch(
    training: Training,
    training_set: Split,
    step: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    graph: graphs.StepGraph | None,
    settings: Settings,
    checkpoints: Checkpoints,
    progress: Any,
) -> float:
    """Train one epoch, or what is left of it; return the mean training loss over its images."""
    labels, size = training_set.labels, len(training_set)
    if training.step == 0:
        begin_epoch(training, math.ceil(size / settings.batch_size), settings.shuffle)
    training.losses = training.losses.to(labels.device)
    order = None
    if training.order_seed is not None:
        order = shuffled(size, training.order_seed).to(training_set.images.device)
    batches = epoch_batches(size, settings.batch_size, order)

    start = time.perf_counter() - training.seconds
    progress.epoch_started(training)
    training.model.train()
    if graph:
        graph.start_epoch(order, training.losses)
    for batch in batches[training.step :]:
        if not (graph and graph.replay(training.step)):
            training.losses[training.step] = step(training_set.batch(batch), labels[batch])
        training.step += 1
        fingerprint.after_step(training, size, order, batches)
        progress.step_done(training)
        if checkpoints.save_due:
            training.seconds = time.perf_counter() - start
            checkpoints.save(training.state())
    training.seconds = time.perf_counter() - start

    sizes = torch.full((training.step,), settings.batch_size, dtype=torch.float64)
    sizes[-1] = size - settings.batch_size * (training.step - 1)
    return float((training.losses.cpu().to(torch.float64) * sizes).sum() / size)


def train_step(
    training: Training,
    loss: Callable[..., torch.Tensor],
    bf16: bool,
    images: torch.Tensor,
    labels: torch.Tensor,
) -> torch.Tensor:
    """Do one step on a batch, which the model may change; return the loss, on the device."""
    training.optimizer.zero_grad()
    with errors_named(type(training.model).__name__):
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            output = training.model(images)
        batch_loss = loss(output.float(), labels)
        batch_loss.backward()
    training.optimizer.step()
    return batch_loss.detach()


def test(
    training: Training, held_out: Split, loss: Callable[..., torch.Tensor], settings: Settings
) -> dict[str, float]:
    """Measure the model after an epoch; return loss, accuracy, and the seconds of both halves."""
    draw_seed()
    start = time.perf_counter()
    try:
        mean_loss, output = evaluate(training.model, held_out, loss, settings.evaluation_batch_size)
    except NotFinite as error:
        raise diverged(training, held_out, settings, error) from error
    seconds = time.perf_counter() - start
    if not math.isfinite(mean_loss):
        what = f"the {held_out.name} loss is {mean_loss} after epoch {training.epoch}"
        if torch.isfinite(output).all():
            raise Diverged(what)
        raise Diverged(what, "the model gives the true class of an image the probability 0")
    return {
        "loss": mean_loss,
        "accuracy": count_correct(output, held_out.labels) / len(held_out),
        "train_seconds": training.seconds,
        "eval_seconds": seconds,
    }


def diverged(training: Training, held_out: Split, settings: Settings, error: NotFinite) -> Diverged:
    """Return what to say where the output in evaluation mode is not finite: who is to blame.

    If the output is not finite in training mode either, the weights are. The model's state does
    not matter any more.
    """
    model = training.model.train()
    with torch.no_grad(), errors_named(type(model).__name__):
        output = model(held_out.batch(slice(settings.batch_size)))
    what = f"{error} after epoch {training.epoch}"
    if not torch.isfinite(output.amax(dim=1)).all():
        return Diverged(what)
    return Diverged(what, "in training mode it is finite; look at what forward does differently")


def begin_epoch(training: Training, steps: int, shuffle: bool) -> None:
    """Draw from torch's global generator what a `torch.utils.data.DataLoader` draws.

    In torch 2.14, `_BaseDataLoaderIter` draws a seed for its workers and `RandomSampler` one for
    its order. So the batches and the dropout masks are those of a DataLoader of the same `shuffle`.
    """
    draw_seed()
    training.order_seed = draw_seed() if shuffle else None
    training.order_seeds += [training.order_seed] if shuffle else []
    training.losses, training.seconds = torch.zeros(steps), 0.0


def shuffled(size: int, seed: int) -> torch.Tensor:
    """Return the order of an epoch, [size]: drawn on the CPU, where every device has the same."""
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))


def epoch_batches(size: int, batch_size: int, order: torch.Tensor | None) -> list:
    """Return what selects each batch of an epoch: slices, or the indices of a shuffled order."""
    batches = [slice(start, start + batch_size) for start in range(0, size, batch_size)]
    return batches if order is None else [order[batch] for batch in batches]


def draw_seed() -> int:
    """Draw a seed from torch's global generator, as creating a DataLoader's iterator does."""
    return int(torch.empty((), dtype=torch.int64).random_().item())
