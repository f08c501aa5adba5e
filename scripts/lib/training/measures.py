"""What each metric is for the predictions of a network, by scikit-learn.

Averages over classes are over those that have images. What cannot be computed is None. In the log
loss, scikit-learn counts a probability of 0 as the precision of its type: 1.2e-7 for float32.
"""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType

import numpy as np

from lib.core.metric import Metric, names


def scikit_learn() -> ModuleType:
    """Return its module of metrics. The import takes seconds, and most trainings need none."""
    from sklearn import metrics

    return metrics


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
            c: float(scikit_learn().roc_auc_score(self.labels == c, self.probabilities[:, c]))
            for c in self.ranked
        }

    @cached_property
    def per_class(self) -> dict[str, list[float | None]]:
        """Recall and F1 of each class; None for those without images."""
        _, recall, f1, images = scikit_learn().precision_recall_fscore_support(
            self.labels, self.prediction, labels=range(len(self.classes)), zero_division=0
        )
        return {
            kind: [float(each) if some else None for each, some in zip(values, images, strict=True)]
            for kind, values in (("recall", recall), ("f1", f1))
        }


def scores(answers: Answers) -> dict[str, float | None]:
    """Return the value of each metric, in the order of `lib.core.metric.names`."""
    return {name: score(Metric(name), answers) for name in names(answers.classes)}


def score(metric: Metric, answers: Answers) -> float | None:
    """Return the value of a metric; None where it cannot be computed."""
    if metric.of_class:
        return answers.per_class[metric.kind][answers.classes.index(metric.of_class)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes without images, and of sums that are rounded
        value = OVER_ALL[metric.name](answers)
    return None if value is None else float(value)


def _average_precision(answers: Answers) -> float | None:
    labels, sure = answers.labels, answers.probabilities
    return _mean(
        scikit_learn().average_precision_score(labels == c, sure[:, c]) for c in answers.ranked
    )


def _top5(answers: Answers) -> float | None:
    if len(answers.classes) <= 5:
        return None
    numbers = range(len(answers.classes))
    return scikit_learn().top_k_accuracy_score(
        answers.labels, answers.probabilities, k=5, labels=numbers
    )


def majority(labels: np.ndarray) -> float:
    """Return the share of the largest class: the accuracy of always answering with it."""
    return float(np.bincount(labels).max() / len(labels))


def _mean(values: Iterable[float]) -> float | None:
    values = list(values)
    return float(np.mean(values)) if values else None


# Of the metrics that are about all classes, what computes them.
OVER_ALL: dict[str, Callable[[Answers], float | None]] = {
    "accuracy": lambda of: scikit_learn().accuracy_score(of.labels, of.prediction),
    "balanced_accuracy": lambda of: scikit_learn().balanced_accuracy_score(
        of.labels, of.prediction
    ),
    "macro_f1": lambda of: scikit_learn().f1_score(
        of.labels, of.prediction, labels=of.present, average="macro"
    ),
    "auroc": lambda of: _mean(of.areas.values()),
    "average_precision": _average_precision,
    "log_loss": lambda of: scikit_learn().log_loss(
        of.labels, of.probabilities, labels=range(len(of.classes))
    ),
    "top5": _top5,
}
