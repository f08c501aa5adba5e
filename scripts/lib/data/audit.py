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
        classes: images per class and split: `{"train": {"cat": 10}, "test": {"cat": 3}}`.
        largest_class: of the test set, and its share of it.
        leaked: training images that are in the test set, too.
        dropped: how many of them were left out of the training set.
        repeated: images that are another one's copy, in the same split, by split.
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
        sizes = {split: sum(counts.values()) for split, counts in self.classes.items()}
        name, share = self.largest_class
        found = [
            f"{sizes['train']:,} training and {sizes['test']:,} test images of "
            f"{len(self.classes['train'])} classes; {100 * share:.1f}% of the test images are of "
            f"the largest class, {name}"
        ]
        if len(self.classes["train"]) <= MOST_CLASSES:
            for split, counts in self.classes.items():
                found.append(f"{split}: {', '.join(f'{c} {n:,}' for c, n in counts.items())}")
        found += self.notes
        found += [f"{count:,} images: {what}" for what, count in self.converted.items()]
        if self.leaked:
            done = f"{self.dropped:,} of them were left out" if self.dropped else "they were kept"
            found.append(f"{self.leaked:,} training images are in the test set, too: {done}")
        found += [
            f"{count:,} {split} images are copies of others of them"
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
    items, size = kept.items, kept.train_size
    train, test = (balance(kept.classes, labels) for labels in kept.labels_by_split)
    largest = max(test, key=test.get)
    return Audit(
        classes={"train": train, "test": test},
        largest_class=(largest, test[largest] / sum(test.values())),
        repeated={"training": copies(digests[:size]), "test": copies(digests[size:])},
        contradicting=named(items, contradictions(digests, kept.labels.tolist())),
        constant=named(items, constant),
        groups_in_both=kept.groups_in_both,
        ordered_by_class=is_ordered(kept.labels_by_split[0]),
        notes=kept.notes,
        **counted,
    )


def named(items: Sequence[Item], indices: Sequence[int]) -> list[str]:
    """Return the names of some images, or their numbers where they have none."""
    return [items[index].name or str(index) for index in indices]


def leaks(digests: Sequence[str], valid: Sequence[int], train_size: int) -> list[int]:
    """Return the training images that are in the test set, too.

    Args:
        digests: of the pixels of each image, those of the training set first.
        valid: the images that count.
        train_size: how many are of the training set.
    """
    test = {digests[index] for index in valid if index >= train_size}
    return [index for index in valid if index < train_size and digests[index] in test]


def check_leaks(leaked: Sequence[int], items: Sequence[Item], duplicates: str | None) -> None:
    """Check that no image is in both sets, or that it is said what to do then.

    Raises:
        UserError: there are some, and nothing is said.
    """
    if leaked and duplicates is None:
        names = named(items, leaked)
        raise UserError(
            f"duplicates: {len(leaked):,} training images are in the test set, too, equal in all "
            f"pixels: {shown(names)}. A network that has seen them is not tested by them. Set "
            "duplicates: drop to leave them out of the training set, or duplicates: keep"
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
