"""How many images are held out, and which whole groups of them.

Which training images are for validation decides what a network learns. So this module is part of
the code that computes numbers; it imports no torch, as the config is checked with it too.
"""

from collections.abc import Hashable, Iterable, Sequence

import numpy as np


def held_out_size(size: float, total: int) -> int:
    """Return how many of so many images are held out: a number, or a share below 1 of them."""
    return max(1, round(size * total)) if 0 < size < 1 else int(size)


def whole_groups(
    groups: Sequence[Hashable],
    labels: Sequence[int],
    wanted: np.ndarray,
    order: Iterable[Hashable],
) -> set[Hashable]:
    """Choose whole groups of images, so that each class comes near to a number of images.

    A group is taken where it brings the classes nearer, by the sum of squares. Where none is small
    enough for a class, one of them is taken as long as that brings the number of all images nearer,
    and leaves some of the class.

    Args:
        groups: of each image.
        labels: of each image.
        wanted: the images of each class, [classes].
        order: of all groups, in which they are tried.
    """
    counts = {group: np.zeros(len(wanted)) for group in order}
    for group, label in zip(groups, labels, strict=True):
        counts[group][label] += 1
    chosen, missing = set(), np.asarray(wanted, dtype=float)
    for group, count in counts.items():
        if ((missing - count) ** 2).sum() < (missing**2).sum():
            chosen.add(group)
            missing = missing - count
    total = sum(counts.values())
    for group, count in counts.items():
        free = ((missing == wanted) & (count < total))[count > 0].all()
        if group not in chosen and free and count.sum() < 2 * missing.sum():
            chosen.add(group)
            missing = missing - count
    return chosen
