"""What each metric is for the predictions of a network, by scikit-learn.

Averages over classes are over those that have images. What cannot be computed is None. In the log
loss, scikit-learn counts a probability of 0 as the precision of its type: 1.2e-7 for float32.
"""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from sklearn import metrics

from lib.core.metric import OF_A_CLASS, WORDS


@dataclass(frozen=True)
class Answers:
    """What a network says of the images of a split, and what is right.

    Attributes:
        labels: int [images].
        prediction: the class that is chosen, int [images].
        probabilities: of each class, float32 [images, classes].
        classes: their names.
        positive: the number of the positive class; None with more than two.
    """

    labels: np.ndarray
    prediction: np.ndarray
    probabilities: np.ndarray
    classes: list[str]
    positive: int | None

    @cached_property
    def present(self) -> np.ndarray:
        """The numbers of the classes that have images."""
        return np.unique(self.labels)

    @property
    def ranked(self) -> list[int]:
        """The numbers of the classes whose probabilities can rank images: some are, some are not.

        With two classes, that is the positive one.
        """
        numbers = range(len(self.classes)) if self.positive is None else [self.positive]
        return [c for c in numbers if c in self.present and len(self.present) > 1]

    @cached_property
    def areas(self) -> dict[int, float]:
        """The area under the ROC curve of each class that can be ranked, against the rest."""
        return {
            c: float(metrics.roc_auc_score(self.labels == c, self.probabilities[:, c]))
            for c in self.ranked
        }


def scores(answers: Answers) -> dict[str, float | None]:
    """Return the value of each metric, in the order of `lib.core.metric.names`."""
    labels, prediction, sure = answers.labels, answers.prediction, answers.probabilities
    numbers, some = range(len(answers.classes)), answers.present
    by_class = per_class(answers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes without images, and of sums that are rounded
        found = {
            "accuracy": metrics.accuracy_score(labels, prediction),
            "balanced_accuracy": metrics.balanced_accuracy_score(labels, prediction),
            "macro_f1": metrics.f1_score(labels, prediction, labels=some, average="macro"),
            "auroc": _mean(answers.areas.values()),
            "average_precision": _mean(
                metrics.average_precision_score(labels == c, sure[:, c]) for c in answers.ranked
            ),
            "log_loss": metrics.log_loss(labels, sure, labels=numbers),
            "top5": metrics.top_k_accuracy_score(labels, sure, k=5, labels=numbers)
            if len(numbers) > 5
            else None,
        }
    found = {name: None if value is None else float(value) for name, value in found.items()}
    return {name: found[name] for name in WORDS} | {
        f"{kind}:{name}": by_class[kind][number]
        for kind in OF_A_CLASS
        for number, name in enumerate(answers.classes)
    }


def per_class(answers: Answers) -> dict[str, list[float | None]]:
    """Return recall and F1 of each class; None for those without images."""
    _, recall, f1, images = metrics.precision_recall_fscore_support(
        answers.labels, answers.prediction, labels=range(len(answers.classes)), zero_division=0
    )
    return {
        kind: [float(each) if some else None for each, some in zip(values, images, strict=True)]
        for kind, values in (("recall", recall), ("f1", f1))
    }


def majority(labels: np.ndarray) -> float:
    """Return the share of the largest class: the accuracy of always answering with it."""
    return float(np.bincount(labels).max() / len(labels))


def _mean(values: Iterable[float]) -> float | None:
    values = list(values)
    return float(np.mean(values)) if values else None
