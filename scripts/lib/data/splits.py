"""How many images are held out, which whole groups of them, and which are a fold.

Which training images are for validation decides what a network learns. So this module is part of
the code that computes numbers; it imports no torch, as the config is checked with it too.
"""

from collections import Counter, defaultdict
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


def folds_of_images(labels: Sequence[int], folds: int, order: Iterable[int]) -> np.ndarray:
    """Divide images into folds: of each class as many in each, and of all, but for one.

    Args:
        labels: of each image.
        folds: how many.
        order: the indices of the images, in which those of a class are dealt out.

    Returns:
        The number of each image's fold, from 1, int64 [images].
    """
    found = np.empty(len(labels), dtype=np.int64)
    for place, index in enumerate(sorted(order, key=lambda index: labels[index])):
        found[index] = place % folds + 1
    return found


def folds_of_groups(
    groups: Sequence[Hashable], labels: Sequence[int], folds: int, order: Iterable[Hashable]
) -> np.ndarray:
    """Divide images into folds in whole groups, of each class about as many images in each.

    The largest group comes first. Each goes to the fold that has the fewest images of its classes,
    where a class counts the more the rarer it is, and of equal ones to that with the fewest images.
    All is computed in whole numbers: it is the same everywhere.

    Args:
        groups: of each image.
        labels: of each image.
        folds: how many.
        order: of all groups, in which those of one size are dealt out.

    Returns:
        The number of each image's fold, from 1, int64 [images].
    """
    images, counts = Counter(labels), defaultdict(Counter)
    for group, label in zip(groups, labels, strict=True):
        counts[group][label] += 1
    weight = {label: (len(labels) * 1000 // count) ** 2 for label, count in images.items()}
    there, place = [Counter() for _ in range(folds)], {}
    for group in sorted(order, key=lambda group: -counts[group].total()):
        own = counts[group]
        cost = [
            (sum(weight[label] * own[label] * fold[label] for label in own), fold.total())
            for fold in there
        ]
        place[group] = cost.index(min(cost))
        there[place[group]] += own
    return np.array([place[group] + 1 for group in groups], dtype=np.int64)
