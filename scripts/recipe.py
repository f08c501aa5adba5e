"""The parts of a training recipe by their torch names: loss, optimizer, scheduler.

torch is imported where it is used: the Snakefile reads these tables too, at every start, and
importing torch takes seconds.
"""

from collections.abc import Callable
from dataclasses import dataclass

from cli import Failure


@dataclass(frozen=True)
class Loss:
    """What a function of `torch.nn.functional` wants."""

    outputs: tuple[str, ...]  # the model outputs that it fits
    one_hot: bool  # targets as one-hot rows rather than class numbers


LOSSES = {
    "nll_loss": Loss(("log_softmax",), one_hot=False),
    # log-softmax of a log-softmax is itself, so both outputs give the same loss
    "cross_entropy": Loss(("logits", "log_softmax"), one_hot=False),
    "binary_cross_entropy_with_logits": Loss(("logits",), one_hot=True),
    "binary_cross_entropy": Loss(("softmax",), one_hot=True),
    # its default reads the output as the logarithm of the rate
    "poisson_nll_loss": Loss(("log_softmax", "logits"), one_hot=True),
}

# Those of torch.optim that take dense weights of any shape and no closure.
OPTIMIZERS = "Adadelta Adagrad Adam AdamW Adamax ASGD NAdam RAdam RMSprop Rprop SGD".split()

# Those of torch.optim.lr_scheduler that are stepped once an epoch, without a metric.
SCHEDULERS = (
    "StepLR MultiStepLR ConstantLR LinearLR ExponentialLR PolynomialLR CosineAnnealingLR "
    "CosineAnnealingWarmRestarts"
).split()


def misfit(loss: str, output: str) -> str | None:
    """Say why a loss does not fit a model's output, or return None where it does."""
    fitting = LOSSES[loss].outputs
    if output in fitting:
        return None
    others = [name for name, other in LOSSES.items() if output in other.outputs]
    return (
        f"loss {loss} does not fit the model's output {output}: it wants {' or '.join(fitting)}; "
        f"{output} goes with {' or '.join(others)}"
    )


def loss_function(name: str, num_classes: int) -> Callable:
    """Return a function of (output [N, classes], labels [N], reduction) that gives the loss.

    `reduction` is `mean` or `sum`, as in `torch.nn.functional`; the mean of a loss on one-hot
    targets is over images and classes. The function's `elements_per_image` brings a sum over N
    images to the scale of the mean.
    """
    import torch.nn.functional as F

    function = getattr(F, name)
    one_hot = LOSSES[name].one_hot

    def loss(output, labels, reduction="mean"):
        target = F.one_hot(labels, num_classes).to(output.dtype) if one_hot else labels
        return function(output, target, reduction=reduction)

    loss.elements_per_image = num_classes if one_hot else 1
    return loss


def make_optimizer(optimizer: dict, parameters):
    """Return the optimizer of `torch.optim` that the mapping names, with its arguments.

    Raises:
        Failure: it is none of `OPTIMIZERS`, or an argument does not fit it.
    """
    import torch

    return _construct("optimizer", torch.optim, OPTIMIZERS, optimizer, parameters)


def make_scheduler(scheduler: dict | None, optimizer):
    """Return the scheduler of `torch.optim.lr_scheduler` that the mapping names; None for None.

    Raises:
        Failure: it is none of `SCHEDULERS`, or an argument does not fit it.
    """
    import torch

    if scheduler is None:
        return None
    return _construct("scheduler", torch.optim.lr_scheduler, SCHEDULERS, scheduler, optimizer)


def _construct(kind: str, module, valid: list[str], mapping: dict, first):
    arguments = {key: value for key, value in mapping.items() if key != "name"}
    if mapping["name"] not in valid:
        raise Failure(f"no {kind} {mapping['name']!r}; valid are: {', '.join(valid)}")
    try:
        return getattr(module, mapping["name"])(first, **arguments)
    except (TypeError, ValueError) as error:
        raise Failure(f"{kind} {mapping['name']} with {arguments}: {error}") from error
