"""How often the report says falsely that one of two experiments is better: by simulation.

    python tests/error_rates.py                 2,000 studies per case: half an hour on two cores
    python tests/error_rates.py --studies 200   a first impression

Each study draws its test images, and the networks of two experiments, anew. The two are drawn in
the same way, so that none is better in truth, whatever the metric. What the networks differ in is
how hard each of them finds each image, and, with three or more seeds each, how good the training
with a seed comes out. The report's own code then compares them. The table is that of
docs/statistics.md.
"""

import argparse
import math
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from lib.core.metric import WORDS, Metric
from lib.reporting import tables
from lib.reporting.finished_runs import FinishedExperiment, FinishedRun, TestSet
from lib.reporting.measures import Answers
from lib.reporting.pseudo_values import pseudo_values
from lib.reporting.uncertainty import LEVEL, Measured

STUDIES = 2000
METRICS = [name for name in WORDS if name != "top5"]
PART = 100  # studies that are drawn one after another
# The standard deviation of a seed's quality, times the root of the number of images. With the first
# one, seeds and images matter both; with the last one, the seeds decide.
SPREADS = (5.0, 25.0)


@dataclass(frozen=True)
class Case:
    """What the test sets of some studies are like.

    Attributes:
        name: of the case.
        images: of the test set.
        classes: how many.
        largest: the share of the first class; the others have equal shares.
        group: images of each group, which are of one class and alike.
    """

    name: str
    images: int
    classes: int
    largest: float
    group: int = 1

    @property
    def positive(self) -> int | None:
        """The number of the positive class."""
        return 1 if self.classes == 2 else None

    def labels(self, random: np.random.Generator) -> np.ndarray:
        """Draw the labels, int [images]."""
        share = (1 - self.largest) / (self.classes - 1)
        shares = [self.largest, *[share] * (self.classes - 1)]
        drawn = random.choice(self.classes, self.images // self.group, p=shares)
        return np.repeat(drawn, self.group)

    def groups(self) -> np.ndarray | None:
        """Return the number of each image's group, int [images]; None where each is its own."""
        return np.arange(self.images) // self.group if self.group > 1 else None


CASES = (
    Case("2 classes, 525 images, 10% positive", 525, 2, 0.9),
    Case("10 classes, 10,000 images", 10000, 10, 0.1),
    Case("2 classes, 100 groups of 10 images, 30% positive", 1000, 2, 0.7, group=10),
)


def experiment(
    case: Case, test_set: TestSet, seeds: int, spread: float, hard: np.ndarray, random
) -> tuple[FinishedExperiment, list[Answers]]:
    """Draw the networks of an experiment, and what they say of the test images.

    Args:
        case: the case.
        test_set: the test images.
        seeds: how many networks.
        spread: of the seeds, see `SPREADS`.
        hard: how hard each image is for all networks, float32 [images].
        random: the generator.
    """
    labels, shape = test_set.labels, (case.images, case.classes)
    own = random.standard_normal((case.images // case.group, case.classes), dtype=np.float32)
    own = np.repeat(own, case.group, axis=0)  # how an experiment sees an image, or a group
    runs, answers = [], []
    for seed in range(1, seeds + 1):
        quality = 1.5 + random.normal() * spread / math.sqrt(case.images) * (seeds > 1)
        score = random.standard_normal(shape, dtype=np.float32) + own
        score[np.arange(case.images), labels] += 2 * quality - hard
        score[:, 0] += math.log(case.largest / (1 - case.largest)) if case.classes == 2 else 0
        sure = np.exp(score - score.max(axis=1, keepdims=True))
        sure /= sure.sum(axis=1, keepdims=True)
        prediction, about = sure.argmax(axis=1), (test_set.classes, test_set.positive)
        runs.append(
            FinishedRun("", seed, "", {}, {}, None, labels, prediction, sure, test_set, None)
        )
        answers.append(Answers(labels, prediction, sure, *about))
    return FinishedExperiment("", runs), answers


def verdicts(case: Case, seeds: int, spread: float, metrics: list[str], random) -> dict[str, bool]:
    """Draw a study; return by which metrics one of two equal experiments is called better."""
    labels, groups = case.labels(random), case.groups()
    names = [str(number) for number in range(case.classes)]
    test_set = TestSet(Path(), (), None, labels, names, case.positive, None, groups)
    hard = np.repeat(random.standard_normal(case.images // case.group), case.group)
    drawn = [experiment(case, test_set, seeds, spread, hard, random) for _ in "ab"]
    a, b = (replace(each, name=name) for name, (each, _) in zip("ab", drawn, strict=True))
    found = {}
    for metric in map(Metric, metrics):
        known = {
            each.name: Measured.of(
                np.stack([pseudo_values(metric, one) for one in answers]), groups
            )
            for each, (_, answers) in zip((a, b), drawn, strict=True)
        }
        estimate = tables.difference(metric, a, b, known)
        found[metric.name] = not isinstance(estimate, str) and estimate.p_value() < LEVEL
    return found


def rates(
    case: Case, seeds: int, spread: float, studies: int, metrics: list[str] = METRICS, part: int = 0
) -> dict[str, float]:
    """Return for each metric in which share of so many studies one experiment is called better."""
    random = np.random.default_rng([case.images, seeds, int(spread), part])
    drawn = [verdicts(case, seeds, spread, metrics, random) for _ in range(studies)]
    return {name: sum(each[name] for each in drawn) / studies for name in metrics}


def bound(studies: int) -> float:
    """Return the highest rate that may come out of so many studies: 5% and two standard errors."""
    return LEVEL + 2 * math.sqrt(LEVEL * (1 - LEVEL) / studies)


def settings() -> Iterator[tuple[Case, int, float]]:
    """Yield what is simulated: with one seed, there is no spread of seeds."""
    for case in CASES:
        yield case, 1, 0.0
        yield from ((case, 3, spread) for spread in SPREADS)
        yield case, 10, SPREADS[-1]


def main() -> int:
    """Simulate, print the table, and return 1 if a rate is beyond the bound."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--studies", type=int, default=STUDIES, help="per case (default: %(default)s)"
    )
    parser.add_argument("--cores", type=int, default=2, help="(default: %(default)s)")
    args = parser.parse_args()
    parts = range(args.studies // PART)
    print(f"| test images | seeds | spread of seeds | {' | '.join(METRICS)} |")
    print(f"|---|---|---|{'---|' * len(METRICS)}")
    highest = 0.0
    with ProcessPoolExecutor(args.cores) as pool:
        found = [
            (each, [pool.submit(rates, *each, PART, METRICS, part) for part in parts])
            for each in settings()
        ]
        for (case, seeds, spread), jobs in found:
            each = [np.mean([job.result()[name] for job in jobs]) for name in METRICS]
            cells = " | ".join(f"{100 * rate:.1f}%" for rate in each)
            print(f"| {case.name} | {seeds} | {spread:g} | {cells} |", flush=True)
            highest = max(highest, *each)
    print(f"\nThe highest: {100 * highest:.2f}%; the bound: {100 * bound(args.studies):.2f}%")
    return int(highest > bound(args.studies))


if __name__ == "__main__":
    sys.exit(main())
