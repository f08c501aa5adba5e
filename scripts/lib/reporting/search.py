"""Which point of a search is the best on the validation images, and how far to trust that.

The best of many points is the best partly by chance: its validation metric is too good as a
forecast. How much too good is estimated by repeating the choice on bootstrap samples, and looking
at the chosen point on what is not in the sample: I. Tsamardinos, E. Greasidou and G. Borboudakis,
Bootstrapping the out-of-sample predictions for efficient and accurate cross-validation, Machine
Learning 107 (2018) 1895-1922. Their samples are of images. Here, the seeds of each point are drawn
too, since a choice depends on them as much.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lib.core.metric import ACCURACY, Metric
from lib.core.seeds import Seed, parts
from lib.reporting.uncertainty import Measured, wilson

SAMPLES = 500  # of the bootstrap
BOOTSTRAP_SEED = 0
DIGITS = 12  # of a metric: points that differ less are equal
FEWEST_RUNS = 3  # from which the spread of seeds can be estimated

COLUMNS = (
    "experiment,point,rank,chosen,seeds,diverged,validation_accuracy,accuracy_low,accuracy_high,"
    "validation_loss,bias,train_seconds"
).split(",")
LAST_COLUMNS = "metric,metric_value,metric_low,metric_high".split(",")


@dataclass(frozen=True)
class PointResult:
    """What is known of a point.

    Attributes:
        name: of its experiment.
        values: the searched settings.
        seeds: of its runs.
        right: whether each run classifies each validation image correctly, bool [runs, images];
            a run that has diverged has none of them right.
        metric: by which the points are compared.
        metrics: its value for each run.
        shares: its pseudo-values, float32 [runs, images]; a run that has diverged has its worst.
        loss: mean validation loss; of a run that has diverged it is infinite.
        seconds: of the trainings, in all.
        diverged: how many of the runs have.
    """

    name: str
    values: dict[str, Any]
    seeds: list[Seed]
    right: np.ndarray
    metric: Metric
    metrics: list[float]
    shares: np.ndarray
    loss: float
    seconds: float
    diverged: int = 0

    @property
    def accuracy(self) -> float:
        """Mean accuracy on the validation images, over the runs."""
        return float(self.right.mean())

    @property
    def value(self) -> float:
        """Mean of the metric on the validation images, over the runs."""
        return round(float(np.mean(self.metrics)), DIGITS)

    def interval(self) -> tuple[float, float]:
        """Return the 95% interval of the accuracy: of the recipe, or of a few trained networks."""
        runs, images = self.right.shape
        if runs >= FEWEST_RUNS:
            low, high = Measured.of(self.right).mean().interval()
            return max(0.0, low), min(1.0, high)
        return wilson(round(self.accuracy * images), images)

    def metric_interval(self) -> tuple[float, float] | tuple[None, None]:
        """Return that of the metric; of the accuracy it is the one above.

        There is none where nothing varies.
        """
        if self.metric == ACCURACY:
            return self.interval()
        runs = self.metrics if len(self.metrics) >= FEWEST_RUNS else [self.value]
        mean = Measured(np.array(runs), self.shares.mean(axis=0)).mean()
        if not mean.standard_error:
            return None, None
        low, high = mean.interval()
        return max(0.0, low), high if self.metric.minimized else min(1.0, high)


@dataclass(frozen=True)
class Ranking:
    """The points of a search, the best first, and by how much the best one's metric is too good."""

    points: list[PointResult] = field(default_factory=list)
    bias: float = 0.0

    @property
    def best(self) -> PointResult:
        """The point that is chosen."""
        return self.points[0]


def rank(points: list[PointResult]) -> Ranking:
    """Return points by metric, equal ones by loss, and those that are equal in both as they were.

    The runs of all points are of the same validation images.
    """
    ordered = sorted(points, key=lambda point: (point.metric.best_first(point.value), point.loss))
    return Ranking(ordered, bias(ordered))


def bias(points: list[PointResult], samples: int = SAMPLES) -> float:
    """Return by how much the metric of the best point is too good, at an average over samples.

    Each sample draws images, and seeds of each point, with replacement; the best point on what is
    drawn is compared with itself on the images, and the seeds, that are not.
    """
    sign = -1 if points[0].metric.minimized else 1
    best = max(sign * point.value for point in points)
    random = np.random.default_rng(BOOTSTRAP_SEED)
    images = points[0].shares.shape[1]
    values = sign * np.concatenate([point.shares for point in points]).astype(np.float32)
    sizes = [len(point.shares) for point in points]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    corrected = []
    for _ in range(samples):
        drawn = random.multinomial(images, np.full(images, 1 / images)).astype(np.float32)
        if drawn.all():  # of a few images
            continue
        weights = np.concatenate([random.multinomial(n, np.full(n, 1 / n)) for n in sizes])
        inside = values @ drawn / images
        means = np.add.reduceat(inside * weights, starts) / sizes
        chosen = int(means.argmax())
        rows = slice(starts[chosen], starts[chosen] + sizes[chosen])
        left_rows = weights[rows] == 0
        left_rows = left_rows if left_rows.any() else np.ones_like(left_rows)
        corrected.append(values[rows][left_rows][:, drawn == 0].mean())
    return best - float(np.mean(corrected)) if corrected else 0.0


def rows(search: str, ranking: Ranking, fold: int | None = None) -> list[dict]:
    """Return the rows of sweep.csv for a search, or its part of a fold, without its settings."""
    found = []
    for place, point in enumerate(ranking.points, start=1):
        (low, high), ends = point.interval(), point.metric_interval()
        found.append(
            {
                "experiment": search,
                "point": point.name,
                "rank": place,
                "chosen": place == 1,
                "seeds": " ".join(str(parts(seed)[0]) for seed in point.seeds),
                "diverged": point.diverged,
                "validation_accuracy": point.accuracy,
                "accuracy_low": low,
                "accuracy_high": high,
                "validation_loss": point.loss,
                "bias": ranking.bias if place == 1 else None,
                "train_seconds": point.seconds,
                **dict(zip(LAST_COLUMNS, (point.metric.name, point.value, *ends), strict=True)),
                **({"fold": fold} if fold else {}),
            }
        )
    return found
