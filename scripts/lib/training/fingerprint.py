"""What the first steps of a training have computed, to the last bit.

With it, `make adopt` can tell after some seconds whether other code computes the same. It sees what
happens in these steps, and not what begins later, such as a layer that acts from the third epoch.
"""

import hashlib
from collections import Counter
from typing import Any

import torch
from safetensors.torch import save

from lib.training.state import Training, random_state
from lib.training.weights import pack

STEPS = 50  # or all, where a training has fewer


def after_step(training: Training, images: int, order: torch.Tensor | None, batches: list) -> None:
    """Note what the step that was just done has to do with the fingerprint.

    Args:
        training: whose fingerprint it is, which is complete after `STEPS` steps.
        images: how many an epoch trains on.
        order: of the images in this epoch, int64 [images]; None where they are not shuffled.
        batches: what selects each batch of this epoch.
    """
    if training.fingerprint is not None:
        return
    if training.epoch == training.step == 1:
        training.begin = {"order": order_digest(order), "batch_sizes": batch_sizes(batches, images)}
    if len(training.first_losses) + training.step == STEPS:
        complete(training)


def after_epoch(training: Training, is_last: bool) -> None:
    """Keep the losses of an epoch in which the fingerprint was not completed."""
    if training.fingerprint is None:
        if is_last:
            complete(training)
        else:
            training.first_losses += hexadecimal(training.losses)


def complete(training: Training) -> None:
    """Complete the fingerprint, if it is not."""
    if training.fingerprint is not None:
        return
    losses = training.first_losses + hexadecimal(training.losses[: training.step])
    training.fingerprint = {
        **training.begin,
        "steps": len(losses),
        "losses": losses,
        "weights_sha256": weights_digest(training.averaged or training.model),
        "random_sha256": random_digest(),
    }
    training.first_losses = []


def hexadecimal(losses: torch.Tensor) -> list[str]:
    """Return losses, float32 [steps], exactly."""
    return [each.hex() for each in losses.tolist()]


def order_digest(order: torch.Tensor | None) -> str | None:
    """Return the digest of an order of images; None where they are not shuffled."""
    return None if order is None else hashlib.sha256(order.cpu().numpy().tobytes()).hexdigest()


def batch_sizes(batches: list, images: int) -> dict[str, int]:
    """Return how many batches of an epoch have each size, such as `{"64": 937, "32": 1}`."""
    sizes = [
        min(each.stop, images) - each.start if isinstance(each, slice) else len(each)
        for each in batches
    ]
    return {str(size): count for size, count in Counter(sizes).items()}


def weights_digest(model: torch.nn.Module) -> str:
    """Return the digest of a model's weights."""
    return hashlib.sha256(save(*pack(model))).hexdigest()


def random_digest() -> str:
    """Return the digest of the state of all random generators."""
    parts: dict[str, Any] = random_state()
    tensors = [parts.pop(name) for name in ("torch", "cuda")]
    content = [b"none" if each is None else each.numpy().tobytes() for each in tensors]
    return hashlib.sha256(b"".join([*content, repr(parts).encode()])).hexdigest()
