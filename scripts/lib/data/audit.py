"""What is in a data set, and what is wrong with it: counted over all of its images.

Images that are in the training and in the test set make an accuracy worthless, so they are an error
unless an entry says otherwise.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lib.core.errors import UserError
from lib.data.readers import Item
from lib.data.survey import Survey

SHOWN = 5  # names
MOST_LISTED = 1000  # files of one kind in the JSON file


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        classes: images per class and part: `{"train": {"cat": 10}, "test": {"cat": 3}}`, or of each
            fold.
        largest_class: of the test set, and its share of it; with folds, of all images.
        leaked: training images that are in the test set, too; with folds, images of which an
            earlier one is in another fold.
        dropped: how many of them were left out.
        repeated: images that are another one's copy, in the same part, by split; with folds, `all`.
        contradicting: images of which a copy has another label.
        constant: images of one color.
        groups_in_both: groups of which there are training and test images.
        ordered_by_class: whether the training images come class by class.
        converted: how many images were changed in which way.
        unreadable: why files were left out, by their names.
        notes: what else was left out or decided.
    """

    classes: dict[str, dict[str, int]]
    largest_class: tuple[str, float]
    leaked: int
    dropped: int
    repeated: dict[str, int]
    contradicting: list[str]
    constant: list[str]
    groups_in_both: list[str]
    ordered_by_class: bool
    converted: dict[str, int]
    unreadable: dict[str, str]
    notes: list[str]

    def as_dict(self) -> dict:
        """Return it as JSON holds it, with what there is to say; of many files, the first ones."""
        lists = ("contradicting", "constant", "groups_in_both")
        shortened = {name: getattr(self, name)[:MOST_LISTED] for name in lists}
        return asdict(self) | shortened | {"lines": self.lines()}

    def lines(self) -> list[str]:
        """Say what is worth saying."""
        sizes = {part: sum(counts.values()) for part, counts in self.classes.items()}
        (name, share), folds = self.largest_class, "train" not in sizes
        classes = len(next(iter(self.classes.values())))
        there, of = f"{sum(sizes.values()):,} images", "them"
        if not folds:
            there = f"{sizes['train']:,} training and {sizes['test']:,} test images"
            of = "the test images"
        there += f" of {classes} classes" + (f" in {len(sizes)} folds" if folds else "")
        found = [f"{there}; {100 * share:.1f}% of {of} are of the largest class, {name}"]
        if classes <= MOST_CLASSES and folds:
            counts = {c: [n[c] for n in self.classes.values()] for c in [*self.classes["fold1"]]}
            each = ", ".join(f"{c} {min(n):,} to {max(n):,}" for c, n in counts.items())
            found.append(f"in each fold: {each}")
        elif classes <= MOST_CLASSES:
            for split, counts in self.classes.items():
                found.append(f"{split}: {', '.join(f'{c} {n:,}' for c, n in counts.items())}")
        found += self.notes
        found += [f"{count:,} images: {what}" for what, count in self.converted.items()]
        if self.leaked:
            done = f"{self.dropped:,} of them were left out" if self.dropped else "they were kept"
            what = "images are in another fold" if folds else "training images are in the test set"
            found.append(f"{self.leaked:,} {what}, too: {done}")
        found += [
            f"{count:,} {'images of a fold' if split == ALL else f'{split} images'} are copies of "
            "others of them"
            for split, count in self.repeated.items()
            if count
        ]
        several = {
            "of which a copy has another label": self.contradicting,
            "of one color": self.constant,
        }
        found += [
            f"{len(each):,} images {what}: {shown(each)}" for what, each in several.items() if each
        ]
        if self.groups_in_both:
            found.append(
                f"{len(self.groups_in_both):,} groups have training and test images: "
                f"{shown(self.groups_in_both)}"
            )
        if self.unreadable:
            found.append(f"{len(self.unreadable):,} files were left out: {shown(self.unreadable)}")
        if self.ordered_by_class:
            found.append("the training images come class by class: set shuffle: true in `training`")
        return found


ALL = "all"  # folds, of which none is a split of its own
MOST_CLASSES = 20  # of which each is printed


def shown(names: Sequence[str] | dict[str, str]) -> str:
    """Return the first ones of some names."""
    names = list(names)
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def of(kept: Survey, digests: Sequence[str], constant: Sequence[int], **counted: Any) -> Audit:
    """Return what is in a data set.

    Args:
        kept: its images.
        digests: of the pixels of each.
        constant: the images of one color.
        counted: attributes of the audit that were found on the way.
    """
    items, folds = kept.items, kept.folds is not None
    tested = range(len(items)) if folds else kept.parts["test"]
    test = balance(kept.classes, kept.labels[tested])
    largest = max(test, key=test.get)
    again = {part: copies([digests[index] for index in own]) for part, own in kept.parts.items()}
    first = kept.labels if folds else kept.labels[kept.parts["train"]]
    return Audit(
        classes={p: balance(kept.classes, kept.labels[own]) for p, own in kept.parts.items()},
        largest_class=(largest, test[largest] / sum(test.values())),
        repeated={ALL: sum(again.values())}
        if folds
        else {"training": again["train"], "test": again["test"]},
        contradicting=named(items, contradictions(digests, kept.labels.tolist())),
        constant=named(items, constant),
        groups_in_both=kept.groups_in_both,
        ordered_by_class=is_ordered(first),
        notes=kept.notes,
        **counted,
    )


def named(items: Sequence[Item], indices: Sequence[int]) -> list[str]:
    """Return the names of some images, or their numbers where they have none."""
    return [items[index].name or str(index) for index in indices]


def leaks(digests: Sequence[str], valid: Sequence[int], found: Survey) -> list[int]:
    """Return the training images that are in the test set, too.

    With folds, these are the images of which an earlier one is in another fold.

    Args:
        digests: of the pixels of each image.
        valid: the images that count.
        found: all images.
    """
    if found.folds is not None:
        first = {digests[index]: found.folds[index] for index in reversed(valid)}
        return [index for index in valid if found.folds[index] != first[digests[index]]]
    test = {digests[index] for index in valid if index >= found.train_size}
    return [index for index in valid if index < found.train_size and digests[index] in test]


def check_leaks(leaked: Sequence[int], found: Survey, duplicates: str | None) -> None:
    """Check that no image is in both sets, or in two folds, or that it is said what to do then.

    Raises:
        UserError: there are some, and nothing is said.
    """
    if leaked and duplicates is None:
        names, folds = named(found.items, leaked), found.folds is not None
        where = "images are in another fold" if folds else "training images are in the test set"
        out = "leave them out" if folds else "leave them out of the training set"
        raise UserError(
            f"duplicates: {len(leaked):,} {where}, too, equal in all pixels: {shown(names)}. A "
            "network that has seen them is not tested by them. Set "
            f"duplicates: drop to {out}, or duplicates: keep"
        )


def contradictions(digests: Sequence[str], labels: Sequence[int]) -> list[int]:
    """Return the images of which a copy has another label."""
    found = defaultdict(set)
    for digest, label in zip(digests, labels, strict=True):
        found[digest].add(label)
    return [index for index, digest in enumerate(digests) if len(found[digest]) > 1]


def is_ordered(labels: np.ndarray) -> bool:
    """Return whether images come class by class: labels change as rarely as they can."""
    return int((labels[1:] != labels[:-1]).sum()) == len(np.unique(labels)) - 1


def balance(classes: Sequence[str], labels: np.ndarray) -> dict[str, int]:
    """Return the number of images of each class."""
    counts = np.bincount(labels, minlength=len(classes)).tolist()
    return dict(zip(classes, counts, strict=True))


def copies(digests: Sequence[str]) -> int:
    """Return how many images are copies of one before them."""
    return len(digests) - len(set(digests))


def count(words: Sequence[Sequence[str]]) -> dict[str, int]:
    """Return how many images something was done to, by what it was."""
    return dict(Counter(each for done in words for each in done))
