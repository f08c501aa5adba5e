"""What a training can be told: its settings with their defaults, and the names that are valid.

This module imports no torch: the Snakefile reads it at every start, and importing torch takes
seconds. What the names stand for is in `lib/training/recipe.py`.
"""

from dataclasses import dataclass, field, fields
from typing import Any, Self

from lib.core.signatures import with_defaults

# The settings that name a class and its arguments.
COMPONENTS = ("model", "optimizer", "scheduler")


@dataclass(frozen=True)
class Settings:
    """All that decides the result of one training. The defaults are the lesson's.

    A component, such as the optimizer, is a mapping: its `name`, and the arguments of its class.
    """

    model: dict[str, Any]
    seed: int = 1  # of all random numbers
    epochs: int = 3  # passes over the training set
    batch_size: int = 64  # images per step
    evaluation_batch_size: int = 1000  # images per step of an evaluation
    shuffle: bool = False  # a new order in each epoch
    optimizer: dict[str, Any] = field(default_factory=lambda: {"name": "Adadelta", "lr": 1.0})
    scheduler: dict[str, Any] | None = field(
        default_factory=lambda: {"name": "StepLR", "step_size": 1, "gamma": 0.7}
    )
    loss: str = "nll_loss"
    validation_size: int = 0  # training images held out
    precision: str = "fp32"  # or bf16
    device: str = "cpu"  # or cuda, auto

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as run.json holds them."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @classmethod
    def defaults(cls) -> Self:
        """Return the settings of a model that is yet to be named."""
        return cls(model={})


def canonical(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings in a form that is equal where they mean the same.

    The arguments of a component that are left out have their defaults.
    """
    return settings | {
        kind: settings[kind] and with_defaults(kind, settings[kind]) for kind in COMPONENTS
    }


def difference(settings: dict[str, Any], others: dict[str, Any]) -> list[str]:
    """Return the names of the settings that do not mean the same."""
    one, other = canonical(settings), canonical(others)
    return sorted(key for key in one | other if one.get(key) != other.get(key))


# The settings that `training` in the config holds, for all experiments or for one.
SHARED = (
    "epochs batch_size evaluation_batch_size shuffle optimizer scheduler loss validation_size "
    "precision"
).split()


@dataclass(frozen=True)
class Loss:
    """What a function of `torch.nn.functional` expects."""

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

# Those of torch.optim.lr_scheduler that are stepped once per epoch, without a metric.
SCHEDULERS = (
    "StepLR MultiStepLR ConstantLR LinearLR ExponentialLR PolynomialLR CosineAnnealingLR "
    "CosineAnnealingWarmRestarts"
).split()

PRECISIONS = ("fp32", "bf16")
DEVICES = ("cpu", "cuda", "auto")


def loss_output_mismatch(loss: str, output: str) -> str | None:
    """Return why a loss does not fit a model's output, or None where it fits."""
    fitting = LOSSES[loss].outputs
    if output in fitting:
        return None
    others = [name for name, other in LOSSES.items() if output in other.outputs]
    return (
        f"loss {loss} does not fit the model's output {output}: it needs {' or '.join(fitting)}; "
        f"{output} goes with {' or '.join(others)}"
    )
