"""The parts of a training by their torch names: loss, optimizer, scheduler.

Which names are valid is in `lib/core/settings.py`.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F

from lib.core.errors import UserError

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


def make_optimizer(
    optimizer: dict, parameters: Iterable[torch.nn.Parameter]
) -> torch.optim.Optimizer:
    """Return the optimizer of `torch.optim` that the mapping names, with its arguments.

    Raises:
        UserError: an argument does not fit it.
    """
    return _construct("optimizer", torch.optim, optimizer, parameters)


def make_scheduler(
    scheduler: dict | None, optimizer: torch.optim.Optimizer
) -> torch.optim.lr_scheduler.LRScheduler | None:
    """Return the scheduler of `torch.optim.lr_scheduler` that the mapping names; None for None.

    Raises:
        UserError: an argument does not fit it.
    """
    if scheduler is None:
        return None
    return _construct("scheduler", torch.optim.lr_scheduler, scheduler, optimizer)


def _construct(kind: str, module, component: dict, first):
    with errors_of(kind, component):
        return getattr(module, component["name"])(first, **arguments_of(component))


def arguments_of(component: dict) -> dict:
    """Return the arguments of a component's class."""
    return {key: value for key, value in component.items() if key != "name"}


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
