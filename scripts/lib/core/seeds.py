"""What tells the runs of an experiment apart: the seed, and the fold where the data has folds.

Without folds it is a number, as in `cnn/seed1`; with them, it is both, as in `cnn/seed1-fold2`.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

PATTERN = "[0-9]+(?:-fold[1-9][0-9]*)?"


class SeedAndFold(NamedTuple):
    """The seed of a run, and its fold, from 1: the test set is that part of the images."""

    seed: int
    fold: int

    def __str__(self) -> str:
        return f"{self.seed}-fold{self.fold}"


Seed = int | SeedAndFold
Run = tuple[str, Seed]  # its experiment, and what tells it apart there


def of(seed: int, fold: int | None) -> Seed:
    """Return what a seed and a fold, if there is one, are together."""
    return seed if fold is None else SeedAndFold(seed, fold)


def parse(text: str) -> Seed | None:
    """Read `1` or `1-fold2`; None for what is neither."""
    if not re.fullmatch(PATTERN, text):
        return None
    seed, _, fold = text.partition("-fold")
    return of(int(seed), int(fold) if fold else None)


def parts(seed: Seed) -> tuple[int, int | None]:
    """Return the seed alone, and the fold; None where there is none."""
    return seed if isinstance(seed, SeedAndFold) else (seed, None)


def order(seed: Seed) -> tuple[int, int]:
    """Return what seeds are sorted by, where some have folds and others have none."""
    number, fold = parts(seed)
    return number, fold or 0


def in_folds(seeds: Iterable[int], folds: int | None) -> list[Seed]:
    """Return each seed with each of so many folds; without folds, the seeds."""
    if not folds:
        return list(seeds)
    return [SeedAndFold(seed, fold) for seed in seeds for fold in range(1, folds + 1)]
