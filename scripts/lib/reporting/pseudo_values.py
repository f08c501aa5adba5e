"""A metric as a mean over images, so that one way to intervals and tests serves all metrics.

A metric is a function of the weights that the images have. The pseudo-value of an image is the
metric plus its derivative with respect to the image's weight, times the number of images. Of an
accuracy, these are 1 for each correct prediction and 0 for the others. In general, their mean is
the metric, and the variance of their mean is that of the metric over bootstrap samples of the
images, up to terms that vanish with their number: L. A. Jaeckel, The infinitesimal jackknife, Bell
Laboratories (1972), and B. Efron, The jackknife, the bootstrap and other resampling plans, SIAM
(1982), chapter 6. For the area under the ROC curve, that variance is the one of E. R. DeLong, D. M.
DeLong and D. L. Clarke-Pearson, Biometrics 44 (1988) 837-845.
"""

from dataclasses import dataclass

import numpy as np

from lib.core.metric import Metric
from lib.training.measures import Answers


def pseudo_values(metric: Metric, answers: Answers) -> np.ndarray | None:
    """Return the pseudo-value of each image, float64 [images]; None where there is no metric."""
    if metric.of_class:
        number = answers.classes.index(metric.of_class)
        numbers = [number] if number in answers.present else []
    else:
        numbers = answers.ranked if metric.kind in _RANKED else list(answers.present)
    if metric.kind in _OF_CLASSES:
        each = [_OF_CLASSES[metric.kind](answers, number) for number in numbers]
        return sum(each) / len(each) if each else None
    return _OF_IMAGES[metric.kind](answers)


def _accuracy(answers: Answers) -> np.ndarray:
    return (answers.prediction == answers.labels).astype(np.float64)


def _log_loss(answers: Answers) -> np.ndarray:
    sure = answers.probabilities[np.arange(len(answers.labels)), answers.labels]
    smallest = np.finfo(sure.dtype).eps  # as scikit-learn has it
    return -np.log(np.clip(sure, smallest, 1 - smallest)).astype(np.float64)


def _top5(answers: Answers) -> np.ndarray | None:
    if len(answers.classes) <= 5:
        return None
    best = np.argsort(answers.probabilities, axis=1, kind="stable")[:, -5:]
    return (best == answers.labels[:, None]).any(axis=1).astype(np.float64)


def _recall(answers: Answers, number: int) -> np.ndarray:
    members = answers.labels == number
    recall = (answers.prediction[members] == number).mean()
    own = (answers.prediction == number) - recall
    return recall + members * own * (len(members) / members.sum())


def _f1(answers: Answers, number: int) -> np.ndarray:
    members, chosen = answers.labels == number, answers.prediction == number
    over, under = 2.0 * (members & chosen), members.astype(np.float64) + chosen
    f1 = over.sum() / under.sum()
    return f1 + (over - f1 * under) * (len(members) / under.sum())


@dataclass(frozen=True)
class _Ranked:
    """Images by falling probability of a class.

    Attributes:
        order: their numbers in that order, int [images].
        member: whether each is of the class, in that order, float64 [images].
        first: the place of the first one that has the same probability, int [images].
        last: that of the last one.
    """

    order: np.ndarray
    member: np.ndarray
    first: np.ndarray
    last: np.ndarray

    @classmethod
    def of(cls, answers: Answers, number: int) -> "_Ranked":
        """Rank images by the probability of a class."""
        order = np.argsort(-answers.probabilities[:, number])  # of equal ones in any order
        sure = answers.probabilities[order, number]
        new = np.append(True, sure[1:] != sure[:-1])
        ends = np.append(new[1:], True).nonzero()[0]
        run = np.cumsum(new) - 1
        member = (answers.labels[order] == number).astype(np.float64)
        return cls(order, member, new.nonzero()[0][run], ends[run])

    def up_to(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of values over the images that rank as high or higher."""
        return np.cumsum(values)[self.last]

    def from_here(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of values over the images that rank as high or lower."""
        return np.cumsum(values[::-1])[::-1][self.first]

    def by_image(self, values: np.ndarray) -> np.ndarray:
        """Return values in the order of the images."""
        found = np.empty(len(values))
        found[self.order] = values
        return found


def _auroc(answers: Answers, number: int) -> np.ndarray:
    """Return the placements of DeLong et al. of both kinds of images."""
    ranked = _Ranked.of(answers, number)
    member, other = ranked.member, 1 - ranked.member
    inside, outside = member.sum(), other.sum()
    # Of an image of the class, the share of the others that rank lower; ties count half.
    below = (outside - ranked.up_to(other) + ranked.from_here(other)) / 2 / outside
    above = (inside - ranked.from_here(member) + ranked.up_to(member)) / 2 / inside
    placement = np.where(member > 0, below, above)
    area = (member * placement).sum() / inside
    share = np.where(member > 0, inside, outside) / len(member)
    return ranked.by_image(area + (placement - area) / share)


def _average_precision(answers: Answers, number: int) -> np.ndarray:
    """Return what an image adds: its own precision, and what it does to that of those below it."""
    ranked = _Ranked.of(answers, number)
    member, images = ranked.member, len(ranked.member)
    found, seen, inside = ranked.up_to(member), ranked.last + 1.0, member.sum()
    precision = found / seen
    average = (member * precision).sum() / inside
    others = member * ranked.from_here(member / seen) - ranked.from_here(member * found / seen**2)
    gained = member * (precision - average) + others
    return ranked.by_image(average + gained * (images / inside))


_OF_IMAGES = {"accuracy": _accuracy, "log_loss": _log_loss, "top5": _top5}
_OF_CLASSES = {
    "recall": _recall, "balanced_accuracy": _recall, "f1": _f1, "macro_f1": _f1, "auroc": _auroc,
    "average_precision": _average_precision,
}  # fmt: skip
_RANKED = ("auroc", "average_precision")
