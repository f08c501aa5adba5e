"""How good a model is on held-out images: the same loop after each epoch and in the evaluation."""

from collections.abc import Callable

import torch

from lib.data.prepared import Split


@torch.no_grad()
def evaluate(
    model: torch.nn.Module, split: Split, loss: Callable, batch_size: int
) -> tuple[float, torch.Tensor]:
    """Return the mean loss of a model over a split, and its output [N, classes] on the CPU.

    The model is put into evaluation mode. As in the lesson, the losses of a batch are summed as
    float32 and the batches' sums as float64, so `batch_size` decides the last bits of the mean.
    """
    model.eval()
    total = 0.0
    outputs = []
    for start in range(0, len(split), batch_size):
        batch = slice(start, start + batch_size)
        output = model(split.images[batch])
        total += loss(output, split.labels[batch], reduction="sum").item()
        outputs.append(output.cpu())
    return total / (len(split) * loss.elements_per_image), torch.cat(outputs)


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
