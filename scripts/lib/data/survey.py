"""What goes into a prepared data set, before any image is decoded: its classes and its splits."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

import numpy as np

from lib.core.errors import UserError
from lib.data.readers import MOST_SHOWN, Item, Reader, group_column, raise_problems
from lib.data.splits import folds_of_groups, folds_of_images, whole_groups

# What divides training from test images is the same for all runs, and for every version.
SPLIT_SEED = 0


@dataclass(frozen=True)
class Survey:
    """The images of a data set.

    Attributes:
        classes: their names, in the order of the labels 0, 1, ...
        items: the images that take part: first those of the training set, then the test set's;
            where there are folds, in the order of the data.
        labels: of each image, int64 [images].
        train_size: how many of them are of the training set; with folds, 0.
        notes: what was left out or decided, in words.
        folds: the number of each image's fold, from 1, int64 [images]; None where there are none.
        number_of_folds: how many there are.
    """

    classes: list[str]
    items: list[Item]
    labels: np.ndarray
    train_size: int
    notes: list[str] = field(default_factory=list)
    folds: np.ndarray | None = None
    number_of_folds: int = 0

    @property
    def parts(self) -> dict[str, np.ndarray]:
        """The indices of the images of each part: `train` and `test`, or `fold1`, `fold2`, ..."""
        if self.folds is not None:
            numbers = range(1, self.number_of_folds + 1)
            return {f"fold{number}": np.flatnonzero(self.folds == number) for number in numbers}
        train, test = np.split(np.arange(len(self.items)), [self.train_size])
        return {"train": train, "test": test}

    @property
    def trainings(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """The indices of training and test images, by fold; without folds, by an empty name."""
        if self.folds is None:
            return {"": tuple(self.parts.values())}
        everything = np.arange(len(self.items))
        return {name: (np.delete(everything, own), own) for name, own in self.parts.items()}

    @property
    def groups_in_both(self) -> list[str]:
        """The groups of which there are training and test images: with folds, there are none."""
        groups = [item.group for item in self.items]
        return sorted({*groups[: self.train_size]} & {*groups[self.train_size :]} - {None})

    def only(self, chosen: Sequence[int]) -> "Survey":
        """Return the same without the images that are not chosen, by their indices in order."""
        chosen = list(chosen)
        train_size = sum(index < self.train_size for index in chosen)
        items, labels = [self.items[index] for index in chosen], self.labels[chosen]
        folds = None if self.folds is None else self.folds[chosen]
        return replace(self, items=items, labels=labels, train_size=train_size, folds=folds)

    @property
    def sizes(self) -> tuple[int, int]:
        """The number of training and test images; with folds, where the most are tested."""
        train, test = min(self.trainings.values(), key=lambda part: len(part[0]))
        return len(train), len(test)

    @property
    def fold_sizes(self) -> list[int] | None:
        """The number of test images of each fold; None where there are no folds."""
        return None if self.folds is None else [len(own) for own in self.parts.values()]


def survey(reader: Reader, entry: dict) -> Survey:
    """Divide the images of a reader into classes and splits.

    Raises:
        UserError: it cannot be done as the entry says; one line for each problem, with its key.
    """
    notes = list(reader.notes)
    if not reader.items:
        raise UserError("the data has no images")
    named = entry.get("classes", getattr(reader, "classes", None))
    classes, items, labels = with_classes(reader.items, named, notes)
    items = with_groups(items, entry.get("group"))
    if "folds" in entry:
        folds = folds_of(items, labels, entry, notes)
        found = Survey(classes, items, labels, 0, notes, folds, entry["folds"])
        check_classes(found, notes)
        return found
    splits = splits_of(items, labels, entry, notes)
    train = [index for index, split in enumerate(splits) if split == "train"]
    test = [index for index, split in enumerate(splits) if split == "test"]
    order = train + test
    found = Survey(classes, [items[each] for each in order], labels[order], len(train), notes)
    check_classes(found, notes)
    if "group" in entry and (both := found.groups_in_both):
        names = ", ".join(both[:MOST_SHOWN])
        raise UserError(f"group: the data has {len(both):,} groups in both sets: {names}")
    return found


def with_classes(
    items: Sequence[Item], named: list[str] | dict[str, list] | None, notes: list[str]
) -> tuple[list[str], list[Item], np.ndarray]:
    """Return the classes, the images that have one, and their labels.

    Args:
        items: all images.
        named: the classes in their order; or which values of the data each is made of: images of
            other values are left out. By default, each value is a class, in the order of numbers
            or letters.
        notes: what was left out is added.

    Raises:
        UserError: a class has no image, or an image none of the classes in a list.
    """
    counts = Counter(item.label for item in items)
    values = named or sorted(counts, key=lambda text: (number(text) is None, number(text), text))
    if not isinstance(values, dict):
        values = {name: [name] for name in values}
    found, problems = {}, [] if named else same_labels(counts)
    for label, (name, each) in enumerate(values.items()):
        texts = [text for text in counts if any(is_value(text, value) for value in each)]
        if not texts:
            there = ", ".join(sorted(counts)[:MOST_SHOWN])
            problems.append(f"classes: no image is of {name!r}; there are: {there}")
        problems += [f"classes: {text!r} is in two classes" for text in texts if text in found]
        found |= dict.fromkeys(texts, label)
    others = [f"{text} ({count:,})" for text, count in counts.items() if text not in found]
    left = ", ".join(others[:MOST_SHOWN]) + (", ..." if len(others) > MOST_SHOWN else "")
    if others and not isinstance(named, dict):
        problems.append(f"classes: there are images of others: {left}")
    if "all" in values:
        problems.append(
            "classes: 'all' is the last row of the accuracy tables: name it otherwise, such as "
            "classes: {every: [all], ...}"
        )
    if len(values) == 1:
        problems.append(f"classes: there is only one, {next(iter(values))!r}")
    raise_problems(problems)
    if others:
        count = sum(count for text, count in counts.items() if text not in found)
        notes.append(f"{count:,} images are of none of the classes: {left}")
    chosen = [item for item in items if item.label in found]
    labels = np.array([found[item.label] for item in chosen], dtype=np.int64)
    return list(values), chosen, labels


def same_labels(texts: Iterable[str]) -> list[str]:
    """Return which labels seem to mean the same, and so should not be classes of their own."""
    meanings = defaultdict(list)
    for text in texts:
        meanings[number(text) if number(text) is not None else text.lower()].append(text)
    return [
        f"classes: {' and '.join(map(repr, each))} seem to be the same. Say which classes there "
        f"are, such as classes: {{{each[0]}: {each}, ...}}"
        for each in meanings.values()
        if len(each) > 1
    ]


def is_value(text: str, value: str | float | bool) -> bool:
    """Return whether a label of the data, a text, is a value of an entry."""
    if isinstance(value, bool):
        return text.lower() == str(value).lower()
    if isinstance(value, int | float):
        return number(text) == Decimal(repr(value))
    return text == value


def number(text: str) -> Decimal | None:
    """Return a label as a number, exactly; None where it is none."""
    return Decimal(text) if re.fullmatch(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)", text) else None


def with_groups(items: list[Item], group: str | int | None) -> list[Item]:
    """Return the images with their groups, where a pattern over their names finds them.

    Raises:
        UserError: a pattern is none, has no group, or does not fit a name; or the data has none.
    """
    if group is None:
        return items
    if group_column({"group": group}) is not None:
        if any(item.group is None for item in items):
            raise UserError(
                f"group: the data has no column {group!r}. A pattern over the names of the files "
                "has parentheses: (patient[0-9]+)_"
            )
        return items
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise UserError(f"group: {group!r} is not a regular expression: {error}") from error
    if pattern.groups != 1:
        raise UserError(f"group: {group!r} needs one pair of parentheses, around what is the group")
    found = [pattern.search(item.name) for item in items]
    raise_problems(
        f"group: {group!r} does not fit {item.name!r}"
        for item, match in zip(items, found, strict=True)
        if not (match and match[1])
    )
    pairs = zip(items, found, strict=True)
    return [Item(i.name, i.label, i.split, match[1], i.source) for i, match in pairs]


def splits_of(items: list[Item], labels: np.ndarray, entry: dict, notes: list[str]) -> list[str]:
    """Return the split of each image, `train` or `test`: the data's, or by `test_share`.

    Raises:
        UserError: it is said twice, or not at all.
    """
    share, given = entry.get("test_share"), {item.split for item in items}
    if None in given or (given == {"train"} and share is not None):
        if len(given) > 1:
            raise UserError("only some of the images have a split")
        if share is None:
            raise UserError(
                "test_share: the data does not say which images are for testing. Set a share, such "
                "as test_share: 0.2"
            )
        return divided(items, labels, share, notes)
    if share is not None:
        raise UserError("test_share: the data says itself which images are for testing: remove it")
    # Without images for testing, those for validation are.
    test = "test" if "test" in given else "validation"
    for split, text in (("train", "training"), (test, "testing")):
        if split not in given:
            hint = ": set test_share" if given == {"train"} else ""
            only = ", ".join(sorted(given))
            raise UserError(f"the data has no images for {text}, only for {only}{hint}")
    if "validation" in given:
        use = "testing" if test == "validation" else "training: validation_size holds out of them"
        notes.append(f"the images for validation are used for {use}")
    return ["test" if item.split == test else "train" for item in items]


def folds_of(items: list[Item], labels: np.ndarray, entry: dict, notes: list[str]) -> np.ndarray:
    """Return the number of each image's fold, from 1, by a seed that does not change.

    The order in which images, or groups, are dealt out is that of `divided`.

    Raises:
        UserError: the data says which images are for testing, or there are too few of them.
    """
    folds, groups = entry["folds"], [item.group for item in items]
    if "test_share" in entry:
        raise UserError("folds: each image is for testing in one of them: remove test_share")
    if {item.split for item in items} - {None, "train"}:
        raise UserError(FIXED_SPLIT)
    grouped = groups[0] is not None
    count, what = (len(set(groups)), "groups") if grouped else (len(items), "images")
    if folds > count:
        raise UserError(f"folds: {folds} is more than the {count} {what}")
    if grouped:
        found = folds_of_groups(groups, labels.tolist(), folds, sorted(set(groups), key=drawn))
        sizes = np.bincount(found)[1:]
        notes.append(
            f"folds: {folds} of {sizes.min():,} to {sizes.max():,} images, in whole groups, of "
            f"which there are {count:,}"
        )
        return found
    notes.append(f"folds: {folds}, with about as many images of each class in each")
    order = sorted(range(len(items)), key=lambda index: drawn(items[index].name))
    return folds_of_images(labels.tolist(), folds, order)


FIXED_SPLIT = (
    "folds: the data says itself which images are for testing, so it is not divided into folds: "
    "remove the key"
)


def divided(items: list[Item], labels: np.ndarray, share: float, notes: list[str]) -> list[str]:
    """Choose a share of each class for testing, by a seed that does not change.

    The order in which images, or whole groups, are chosen is that of the SHA-256 of the seed and
    their names: equal on all machines and in all versions of Python.
    """
    counts = np.bincount(labels)
    wanted = np.rint(counts * share)
    if items[0].group is not None:
        groups = [item.group for item in items]
        chosen = whole_groups(groups, labels.tolist(), wanted, sorted(set(groups), key=drawn))
        found = sum(group in chosen for group in groups) / len(groups)
        notes.append(
            f"test_share: {found:.3f} of the images, in whole groups, of which there are "
            f"{len(set(groups)):,}, are for testing"
        )
        return ["test" if item.group in chosen else "train" for item in items]
    notes.append(f"test_share: {share} of each class is for testing")
    splits = ["train"] * len(items)
    members = defaultdict(list)
    for index, label in enumerate(labels.tolist()):
        members[label].append(index)
    for label, indices in members.items():
        indices.sort(key=lambda index: drawn(items[index].name))
        for index in indices[: int(wanted[label])]:
            splits[index] = "test"
    return splits


def drawn(name: str) -> str:
    """Return a key that sorts names in a random order, the same everywhere."""
    return hashlib.sha256(f"{SPLIT_SEED} {name}".encode()).hexdigest()


def check_classes(found: Survey, notes: list[str]) -> None:
    """Check that all classes can be learned; note those that cannot be tested.

    Raises:
        UserError: a class has no training image, or there are no test images.
    """
    problems, untested = [], {}  # of each class, the folds that do not test it
    for part, indices in found.trainings.items():
        if not len(indices[1]):
            problems.append(
                f"folds: no image is left in {part}"
                if part
                else "test_share: it leaves no image for testing"
            )
        counts = [np.bincount(found.labels[each], minlength=len(found.classes)) for each in indices]
        for name, here, there in zip(found.classes, *counts, strict=True):
            if not here and part:
                problems.append(
                    f"folds: all images of {name!r}, {there:,}, are in {part}: the networks that "
                    "are tested there cannot learn it"
                )
            elif not here:
                problems.append(
                    f"classes: {name!r} has no training image, only {there:,} for testing"
                )
            if not there:
                untested.setdefault(name, []).append(part)
    raise_problems(problems)
    if untested and found.folds is None:
        notes.append(f"no image for testing is of {', '.join(untested)}")
    elif untested:
        notes += [
            f"no image of {name} is in {', '.join(folds)}" for name, folds in untested.items()
        ]
