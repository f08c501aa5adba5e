"""The parts of a training by their torch names: loss, optimizer, scheduler, averaged weights.

Which names are valid is in `lib/core/settings.py`.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch.optim.swa_utils import AveragedModel

from lib.core.errors import UserError, errors_named
from lib.core.settings import Settings, loss_of

WARMUP_FROM = 0.01  # of the learning rate
# Losses whose targets are one-hot rows rather than class numbers.
ONE_HOT = ("binary_cross_entropy_with_logits", "binary_cross_entropy", "poisson_nll_loss")


def loss_function(name: str, num_classes: int) -> Callable[..., torch.Tensor]:
    """Return a function of (output [N, classes], labels [N], reduction) that gives the loss.

    `reduction` is `mean` or `sum`, as in `torch.nn.functional`; the mean of a loss on one-hot
    targets is over images and classes. The function's `elements_per_image` brings a sum over N
    images to the scale of the mean; its `num_classes` is that number.
    """
    function = getattr(F, name)
    one_hot = name in ONE_HOT

    def loss(output, labels, reduction="mean"):
        target = F.one_hot(labels, num_classes).to(output.dtype) if one_hot else labels
        return function(output, target, reduction=reduction)

    loss.num_classes = num_classes
    loss.elements_per_image = num_classes if one_hot else 1
    return loss


class TrainingLoss:
    """The loss that a training minimizes, and the one that is reported.

    They are the same, unless the classes have weights, or the labels are smoothed: what is reported
    has neither.
    """

    def __init__(self, loss: str | dict, num_classes: int, labels: torch.Tensor):
        """Make the loss of a training.

        Args:
            loss: a name, or a mapping of a name and arguments.
            num_classes: the number of classes.
            labels: of the training set, int64 [N], on the device of the training. With weights
                that are `balanced`, each class of them has the same sum of weights, and the mean
                weight of an image is 1.

        Raises:
            UserError: there is not a weight for each class.
        """
        name, arguments = loss_of(loss)["name"], arguments_of(loss_of(loss))
        self.reported = loss_function(name, num_classes)
        self.weight: torch.Tensor | None = None
        self.minimized = self.reported
        if any(arguments.values()):
            if arguments["weight"]:
                self.weight = class_weights(arguments["weight"], num_classes, labels)
                arguments["weight"] = self.weight
            self.minimized = partial(getattr(F, name), **arguments)

    def of_batch(
        self, output: torch.Tensor, labels: torch.Tensor, share: tuple | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean loss of a batch, output [N, classes]: to minimize, and to report.

        With a share of a step, as `shares` returns it, they are its parts in those of the step.
        """
        loss = self.minimized(output, labels)
        same = self.minimized is self.reported
        reported = loss.detach() if same else self.reported(output.detach(), labels)
        return (loss, reported) if share is None else (loss * share[0], reported * share[1])

    def shares(self, labels: list[torch.Tensor]) -> list[tuple | None]:
        """Return by what the mean losses of each batch of a step count in those of the step.

        The step minimizes the mean over all its images, by their weights, whatever the sizes of its
        batches.

        Args:
            labels: of each batch, int64 [n].

        Returns:
            for each, the share in the loss that is minimized, and in the one that is reported; None
            for a batch that is alone.
        """
        if len(labels) == 1:
            return [None]
        counts = [len(each) for each in labels]
        weights = counts
        if self.weight is not None:
            weights = [self.weight[each].sum() for each in labels]
        both = zip(weights, counts, strict=True)
        return [(weight / sum(weights), count / sum(counts)) for weight, count in both]


def class_weights(
    weight: str | list[float], num_classes: int, labels: torch.Tensor
) -> torch.Tensor:
    """Return the weight of each class, float32 [classes], on the device of the labels [N].

    Raises:
        UserError: there is not a weight for each class.
    """
    if weight == "balanced":
        counts = torch.bincount(labels.cpu(), minlength=num_classes).double()
        share = len(labels) / (int((counts > 0).sum()) * counts)
        weight = torch.where(counts > 0, share, 0.0).tolist()
    if len(weight) != num_classes:
        raise UserError(f"loss.weight: {len(weight)} numbers for {num_classes} classes")
    return torch.tensor(weight, dtype=torch.float32, device=labels.device)


def make_optimizer(
    optimizer: dict, parameters: Iterable[torch.nn.Parameter]
) -> torch.optim.Optimizer:
    """Return the optimizer of `torch.optim` that the mapping names, with its arguments.

    Raises:
        UserError: an argument does not fit it.
    """
    return _construct("optimizer", torch.optim, optimizer, parameters)


def make_scheduler(
    settings: Settings, optimizer: torch.optim.Optimizer, steps: int
) -> torch.optim.lr_scheduler.LRScheduler | None:
    """Return what changes the learning rate: the scheduler of the settings, after the warmup.

    It is stepped after each epoch, or after each step, as `steps_each_epoch` says. The warmup is
    that of torchvision's reference scripts: from a hundredth of the learning rate, in a line.

    Args:
        settings: of the training.
        optimizer: whose learning rates change.
        steps: of the optimizer in an epoch.

    Returns:
        the scheduler; None where the rate is constant.

    Raises:
        UserError: an argument does not fit it.
    """
    schedulers, given, per_epoch = torch.optim.lr_scheduler, settings.scheduler, 1
    if settings.every_step:
        per_epoch = steps
    parts, warmup = [], settings.warmup_epochs * per_epoch
    if warmup:
        parts.append(schedulers.LinearLR(optimizer, WARMUP_FROM, total_iters=warmup))
    if given:
        own = one_cycle(given, settings.epochs * per_epoch)
        parts.append(_construct("scheduler", schedulers, given, optimizer, **own))
    if len(parts) == 2:
        return schedulers.SequentialLR(optimizer, parts, milestones=[warmup])
    return parts[0] if parts else None


def one_cycle(scheduler: dict, steps: int) -> dict:
    """Return what a OneCycleLR gets beside its arguments; nothing for another scheduler.

    Raises:
        UserError: the rise of the rate would end with the first of so many steps.
    """
    if scheduler["name"] != "OneCycleLR":
        return {}
    if scheduler.get("pct_start", 0.3) * steps == 1:  # torch divides by 0
        raise UserError(
            f"scheduler: OneCycleLR with pct_start {scheduler.get('pct_start', 0.3)} of {steps} "
            "steps would rise for one step: make it larger, or step it after each step (every)"
        )
    return {"total_steps": steps}


def averaged(model: torch.nn.Module, decay: float | None) -> AveragedModel | None:
    """Return what keeps an exponential moving average of a model's weights and buffers.

    Buffers that are no floating-point numbers are those of the model, and so is a number that does
    not change: in a mask, it may be infinite.

    Raises:
        UserError: the model cannot be copied, or has a state of which there is no average.
    """
    if decay is None:
        return None

    def average(old: torch.Tensor, new: torch.Tensor, _updates: torch.Tensor) -> torch.Tensor:
        if not (new.is_floating_point() or new.is_complex()):
            return new
        return torch.where(old == new, old, torch.lerp(old, new, 1 - decay))

    with errors_named(f"{type(model).__name__}: ema"):
        if any(name.endswith("_extra_state") for name in model.state_dict()):
            raise ValueError("there is no average of what get_extra_state returns")
        return AveragedModel(model, avg_fn=average, use_buffers=True)


def _construct(kind: str, module, component: dict, first, **others):
    with errors_of(kind, component):
        return getattr(module, component["name"])(first, **arguments_of(component), **others)


def arguments_of(component: dict) -> dict:
    """Return the arguments of a component's class or function."""
    return {key: value for key, value in component.items() if key not in ("name", "every")}


@contextmanager
def errors_of(kind: str, component: dict) -> Iterator[None]:
    """Turn an exception inside the block into a `UserError` that names an optimizer or scheduler.

    Raises:
        UserError: instead of any exception, since torch raises a dozen types of them for arguments.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        said = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise UserError(
            f"{kind}: {component['name']} with {arguments_of(component)}: {said}"
        ) from error
