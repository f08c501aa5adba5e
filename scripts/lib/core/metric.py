"""The metrics by which networks are compared: their names, and what is said of them.

This module imports no package that computes: the Snakefile reads it at every start.
"""

import argparse
from dataclasses import dataclass

from lib.core.errors import UserError
from lib.core.spelling import nearest

# What each is called in a sentence, after `The` and before `of the cnn`.
WORDS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "auroc": "area under the ROC curve",
    "average_precision": "average precision",
    "log_loss": "log loss",
    "top5": "top-5 accuracy",
}
OF_A_CLASS = {"recall": "recall", "f1": "F1"}
PERCENT = ("accuracy", "balanced_accuracy", "top5", "recall")
RANKING = ("auroc", "average_precision")  # with two classes, they are those of the positive one


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        name: as in the config, such as `auroc` or `recall:defective`.
    """

    name: str

    @property
    def kind(self) -> str:
        """The name without a class."""
        return self.name.partition(":")[0]

    @property
    def of_class(self) -> str:
        """The class that it is about; empty where it is about all."""
        return self.name.partition(":")[2]

    @property
    def minimized(self) -> bool:
        """Whether less is better."""
        return self.kind == "log_loss"

    @property
    def worst(self) -> float:
        """What a network gets that has diverged: as log loss, that of a probability of 0."""
        return 15.942385 if self.minimized else 0.0

    @property
    def in_percent(self) -> bool:
        """Whether it is a share of images, which is read best in percent."""
        return self.kind in PERCENT

    @property
    def factor(self) -> int:
        """By what its values are multiplied where they are shown."""
        return 100 if self.in_percent else 1

    @property
    def unit(self) -> str:
        """What follows a value that is shown."""
        return "%" if self.in_percent else ""

    @property
    def needs_probabilities(self) -> bool:
        """Whether it is about more than which class is chosen."""
        return self.kind in (*RANKING, "log_loss", "top5")

    @property
    def words(self) -> str:
        """What it is called in a sentence."""
        return f"{OF_A_CLASS[self.kind]} of {self.of_class}" if self.of_class else WORDS[self.name]

    def text(self, value: float) -> str:
        """Return a value for a table: in percent where that is how it is read."""
        return f"{100 * value:.2f}%" if self.in_percent else f"{value:.4f}"

    def difference_text(self, value: float) -> str:
        """Return a difference of two values for a sentence."""
        return f"{100 * value:.2f} percentage points" if self.in_percent else f"{value:.4f}"

    def better(self, value: float, other: float) -> bool:
        """Return whether one value is better than another."""
        return value < other if self.minimized else value > other

    def best_first(self, value: float) -> float:
        """Return what values are sorted by, the best first."""
        return value if self.minimized else -value


ACCURACY = Metric("accuracy")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a metric."""
    parser.add_argument(
        "--metric",
        default=ACCURACY.name,
        metavar="NAME",
        help=f"by which they are compared: {', '.join(WORDS)}, recall:CLASS, or f1:CLASS (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--positive",
        metavar="CLASS",
        help="of two classes, the one that auroc and average_precision are of (default: the last)",
    )


def names(classes: list[str]) -> list[str]:
    """Return the names of all metrics, in the order of the tables' columns."""
    return [*WORDS, *(f"{kind}:{name}" for kind in OF_A_CLASS for name in classes)]


def parse(name: str, classes: list[str]) -> Metric:
    """Return a metric by its name.

    Raises:
        UserError: there is none of this name, or it says nothing where there are these classes.
    """
    metric = Metric(name)
    if metric.of_class and metric.kind in OF_A_CLASS:
        if metric.of_class not in classes:
            raise UserError(
                f"metric: {name!r}: the data set has no class {metric.of_class!r}"
                f"{nearest(metric.of_class, classes)}"
            )
    elif name not in WORDS:
        valid = [*WORDS, *(f"{kind}:CLASS" for kind in OF_A_CLASS)]
        raise UserError(f"metric: {name!r} is not known{nearest(name, valid)}")
    elif name == "top5" and len(classes) <= 5:
        raise UserError(f"metric: top5 is always 1 where there are only {len(classes)} classes")
    return metric


def positive_class(name: str | None, classes: list[str]) -> int | None:
    """Return the number of the positive class: the last, unless it is named; None without any.

    Raises:
        UserError: there is no such class, or there are more than two.
    """
    if name is None:
        return 1 if len(classes) == 2 else None
    if name not in classes:
        raise UserError(f"positive: there is no class {name!r}{nearest(name, classes)}")
    if len(classes) != 2:
        raise UserError(f"positive: only one of two classes can be; there are {len(classes)}")
    return classes.index(name)
