"""How good a model is on held-out images: the same loop after each epoch and in the evaluation."""

from collections.abc import Callable

import torch

from lib.core.errors import UserError, errors_named
from lib.data.batches import Split


class NotFinite(UserError):
    """A model's output has no largest value."""


@torch.no_grad()
def evaluate(
    model: torch.nn.Module, split: Split, loss: Callable, batch_size: int
) -> tuple[float, torch.Tensor]:
    """Return the mean loss of a model over a split, and its output [N, classes] on the CPU.

    The model is put into evaluation mode. As in the lesson, the losses of a batch are summed as
    float32 and the batches' sums as float64, so `batch_size` decides the last bits of the mean.

    Raises:
        NotFinite: the output of an image is not finite.
        UserError: the model fails, or its output is no tensor [N, classes].
    """
    name = type(model).__name__
    model.eval()
    total, together = 0.0, None
    for start in range(0, len(split), batch_size):
        batch = slice(start, start + batch_size)
        with errors_named(name):
            output = model(split.batch(batch))
            labels = split.labels[batch]
            check_shape(name, output, len(labels), loss.num_classes)
            total += loss(output, labels, reduction="sum").item()
        if together is None:  # one tensor: many small ones would be in the way of large batches
            together = output.new_empty((len(split), loss.num_classes), device="cpu")
        together[batch] = output.cpu()
    check_finite(name, together)
    return total / (len(split) * loss.elements_per_image), together


def check_output(name: str, output: object, images: int, num_classes: int) -> None:
    """Check that a model's output is what its class promises, for so many images and classes.

    Raises:
        NotFinite: the output of an image is not finite.
        UserError: it is no floating-point tensor [images, num_classes]; the message has the
            model's name.
    """
    check_shape(name, output, images, num_classes)
    check_finite(name, output)


def check_shape(name: str, output: object, images: int, num_classes: int) -> None:
    """Do the part of `check_output` that reads no value, and so does not wait for a GPU."""
    expected = f"a floating-point tensor [{images}, {num_classes}]"
    expected += f" for {images} images and {num_classes} classes"
    if not isinstance(output, torch.Tensor):
        raise UserError(f"model {name}: forward returns a {type(output).__name__}, not {expected}")
    if output.shape != (images, num_classes) or not output.is_floating_point():
        found = f"{str(output.dtype).removeprefix('torch.')} {list(output.shape)}"
        raise UserError(f"model {name}: forward returns {found}, not {expected}")


def check_finite(name: str, output: torch.Tensor) -> None:
    """Do the part of `check_output` that reads the values, output [N, classes].

    Minus infinity is the logarithm of the probability 0: it is allowed, but not for all classes.
    """
    wrong = int((~output.amax(dim=1).isfinite()).sum())
    if wrong:
        raise NotFinite(
            f"model {name}: its output in evaluation mode is not finite for {wrong:,} of "
            f"{len(output):,} images"
        )


def count_correct(output: torch.Tensor, labels: torch.Tensor) -> int:
    """Return how many rows of the output [N, classes] are largest at their label."""
    return int((output.argmax(dim=1) == labels.cpu()).sum())


def probabilities(output: torch.Tensor, kind: str | None) -> torch.Tensor:
    """Return the probabilities [N, classes] that a model's output means.

    Args:
        output: of the model, [N, classes].
        kind: what it is: `log_softmax`, `softmax` or `logits` (None is taken for logits).
    """
    # softmax(log_softmax(x)) is softmax(x), so it serves logits and log-softmax alike.
    return output if kind == "softmax" else output.softmax(dim=1)
