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
from functools import partial, reduce
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
from lib.training.recipe import TrainingLoss, averaged, make_optimizer, make_scheduler
from lib.training.selection import Selection
from lib.training.state import Diverged, Training
from lib.training.weights import load_state


def train(
    model: torch.nn.Module,
    training_set: Split,
    held_out: Split,
    loss: TrainingLoss,
    settings: Settings,
    checkpoints: Checkpoints,
    progress: Any,
    selection: Selection | None = None,
) -> Training:
    """Train `model` in place, from its checkpoint if there is one.

    Args:
        model: on the device of the splits.
        training_set: what it learns from.
        held_out: what it is measured on after each epoch.
        loss: what is minimized, and what is reported.
        settings: of this training.
        checkpoints: where the state is saved.
        progress: is told of each step and epoch (`lib.running.progress.Progress`).
        selection: by what the best epoch is found, whose weights `network` has in the end; None
            keeps the last.

    Raises:
        Diverged: a loss is not finite; the message says at which epoch and step.
        Stopped: a signal asked for it; the checkpoint is saved.
        UserError: the metric of the selection cannot be computed.
    """
    optimizer = make_optimizer(settings.optimizer, model.parameters())
    scheduler = make_scheduler(settings, optimizer, settings.steps(len(training_set)))
    training = Training(model, optimizer, scheduler, averaged(model, settings.ema))
    step = partial(train_step, training, training_set, loss, settings)
    graph = None
    on_gpu = training_set.images.device.type == "cuda"
    if graphs.allowed(model, optimizer, settings) and on_gpu and not is_plain():
        graph = graphs.StepGraph(step, training_set, settings.batch_size)
    saved = checkpoints.load()
    if saved:
        training.restore(saved)
        progress.resumed(training)

    while not training.is_over(settings):
        train_loss = train_epoch(
            training, training_set, step, graph, settings, checkpoints, progress
        )
        training.cuda_graph = bool(graph and graph.captured)
        fingerprint.after_epoch(training, is_last=training.epoch == settings.epochs)
        results, output = test(training, held_out, loss.reported, settings)
        row = {
            "epoch": training.epoch,
            "learning_rate": training.learning_rate,
            "train_loss": train_loss,
            "split": held_out.name,
            **results,
        }
        if selection:
            row["metric"] = selection.value(output)
            training.keep_if_better(selection, row["metric"])
        training.history.append(row)
        if training.scheduler and not settings.every_step:
            training.scheduler.step()
        training.epoch, training.step = training.epoch + 1, 0
        progress.epoch_done(training)
        checkpoints.save(training.state())
    fingerprint.complete(training)
    if training.best:
        load_state(training.network, training.best.weights)
    return training


def train_epoch(
    training: Training,
    training_set: Split,
    step: Callable[[list], torch.Tensor],
    graph: graphs.StepGraph | None,
    settings: Settings,
    checkpoints: Checkpoints,
    progress: Any,
) -> float:
    """Train one epoch, or what is left of it; return the mean training loss over its images."""
    labels, size = training_set.labels, len(training_set)
    if training.step == 0:
        drawn = settings.shuffle or settings.sampling is not None
        begin_epoch(training, settings.steps(size), drawn)
    training.losses = training.losses.to(labels.device)
    order = None
    if training.order_seed is not None:
        order = order_of_epoch(labels, training.order_seed, settings.sampling)
        order = order.to(training_set.images.device)
    batches = epoch_batches(size, settings.batch_size, order)
    steps = [
        batches[first : first + settings.accumulate]
        for first in range(0, len(batches), settings.accumulate)
    ]

    start = time.perf_counter() - training.seconds
    progress.epoch_started(training)
    training.model.train()
    if graph:
        graph.start_epoch(order, training.losses)
    for together in steps[training.step :]:
        if not (graph and graph.replay(training.step)):
            training.losses[training.step] = step(together)
        training.step += 1
        fingerprint.after_step(training, size, order, batches)
        progress.step_done(training)
        if checkpoints.save_due:
            training.seconds = time.perf_counter() - start
            checkpoints.save(training.state())
    training.seconds = time.perf_counter() - start

    sizes = torch.full((training.step,), settings.images_per_step, dtype=torch.float64)
    sizes[-1] = size - settings.images_per_step * (training.step - 1)
    return float((training.losses.cpu().to(torch.float64) * sizes).sum() / size)


def train_step(
    training: Training, training_set: Split, loss: TrainingLoss, settings: Settings, batches: list
) -> torch.Tensor:
    """Do one step; return the mean loss of its images that is reported, on the device.

    Args:
        training: whose step it is.
        training_set: what it learns from.
        loss: what is minimized, and what is reported.
        settings: of this training.
        batches: what selects each of the batches whose gradients are added up.
    """
    training.optimizer.zero_grad()
    shares = loss.shares([training_set.labels[batch] for batch in batches])
    losses = [
        backward(training, training_set, loss, settings, *each)
        for each in zip(batches, shares, strict=True)
    ]
    if settings.clip_norm:
        torch.nn.utils.clip_grad_norm_(training.model.parameters(), settings.clip_norm)
    training.optimizer.step()
    if training.averaged:
        training.averaged.update_parameters(training.model)
    if training.scheduler and settings.every_step:
        training.scheduler.step()
    return reduce(torch.add, losses)


def backward(
    training: Training,
    training_set: Split,
    loss: TrainingLoss,
    settings: Settings,
    batch: slice | torch.Tensor,
    share: tuple | None,
) -> torch.Tensor:
    """Compute the gradient of one batch of a step; return its part in the loss that is reported.

    The model may change the images. `share` is one of `loss.shares`.
    """
    images, labels = training_set.batch(batch), training_set.labels[batch]
    with errors_named(type(training.model).__name__):
        with torch.autocast(
            images.device.type, torch.bfloat16, enabled=settings.precision == "bf16"
        ):
            output = training.model(images)
        batch_loss, reported = loss.of_batch(output.float(), labels, share)
        batch_loss.backward()
    return reported


def test(
    training: Training, held_out: Split, loss: Callable[..., torch.Tensor], settings: Settings
) -> tuple[dict[str, float], torch.Tensor]:
    """Measure the network after an epoch.

    Returns:
        loss, accuracy, and the seconds of both halves of the epoch; and its output [N, classes].
    """
    draw_seed()
    start = time.perf_counter()
    try:
        mean_loss, output = evaluate(
            training.network, held_out, loss, settings.evaluation_batch_size
        )
    except NotFinite as error:
        raise diverged(training, held_out, settings, error) from error
    seconds = time.perf_counter() - start
    if not math.isfinite(mean_loss):
        what = f"the {held_out.name} loss is {mean_loss} after epoch {training.epoch}"
        if torch.isfinite(output).all():
            raise Diverged(what)
        raise Diverged(what, "the model gives the true class of an image the probability 0")
    results = {
        "loss": mean_loss,
        "accuracy": count_correct(output, held_out.labels) / len(held_out),
        "train_seconds": training.seconds,
        "eval_seconds": seconds,
    }
    return results, output


def diverged(training: Training, held_out: Split, settings: Settings, error: NotFinite) -> Diverged:
    """Return what to say where the output in evaluation mode is not finite: who is to blame.

    If the output is not finite in training mode either, the weights are. The model's state does
    not matter any more.
    """
    model = training.network.train()
    with torch.no_grad(), errors_named(type(model).__name__):
        output = model(held_out.batch(slice(settings.batch_size)))
    what = f"{error} after epoch {training.epoch}"
    if not torch.isfinite(output.amax(dim=1)).all():
        return Diverged(what)
    return Diverged(what, "in training mode it is finite; look at what forward does differently")


def begin_epoch(training: Training, steps: int, shuffle: bool) -> None:
    """Begin an epoch: draw from torch's global generator what torch's `DataLoader` draws.

    In torch 2.14, `_BaseDataLoaderIter` draws a seed for its workers and `RandomSampler` one for
    its order. So the batches and the dropout masks are those of a DataLoader of the same `shuffle`.
    """
    draw_seed()
    training.order_seed = draw_seed() if shuffle else None
    training.order_seeds += [training.order_seed] if shuffle else []
    training.losses, training.seconds = torch.zeros(steps), 0.0
    training.learning_rate = training.optimizer.param_groups[0]["lr"]


def order_of_epoch(labels: torch.Tensor, seed: int, sampling: str | None) -> torch.Tensor:
    """Return the order of an epoch, int64 [N]: drawn on the CPU, where every device has the same.

    Args:
        labels: of the training set, int64 [N].
        seed: of the order.
        sampling: `balanced` draws each class as often as any other, and within a class each image,
            to within one; None takes each image once.
    """
    generator = torch.Generator().manual_seed(seed)
    if sampling is None:
        return torch.randperm(len(labels), generator=generator)
    labels = labels.cpu()
    present = labels.unique()
    counts = torch.full((len(present),), len(labels) // len(present))
    one_more = torch.randperm(len(present), generator=generator)[: len(labels) % len(present)]
    counts[one_more] += 1
    drawn = []
    for label, count in zip(present, counts.tolist(), strict=True):
        images = (labels == label).nonzero().flatten()
        rounds = [
            images[torch.randperm(len(images), generator=generator)]
            for _ in range(-(-count // len(images)))
        ]
        drawn.append(torch.cat([*rounds, images[:0]])[:count])
    together = torch.cat(drawn)
    return together[torch.randperm(len(together), generator=generator)]


def epoch_batches(size: int, batch_size: int, order: torch.Tensor | None) -> list:
    """Return what selects each batch of an epoch: slices, or the indices of a shuffled order."""
    batches = [slice(start, start + batch_size) for start in range(0, size, batch_size)]
    return batches if order is None else [order[batch] for batch in batches]


def draw_seed() -> int:
    """Draw a seed from torch's global generator, as creating a DataLoader's iterator does."""
    return int(torch.empty((), dtype=torch.int64).random_().item())
