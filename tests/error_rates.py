"""How often the report says falsely that one of two experiments is better: by simulation.

    python tests/error_rates.py                 2,000 studies per case: half an hour on two cores
    python tests/error_rates.py --studies 200   a first impression

Each study draws its test images, and the networks of two experiments, anew. The two are drawn in
the same way, so that none is better in truth, whatever the metric. What the networks differ in is
how hard each of them finds each image, and, with three or more seeds each, how good the training
with a seed comes out. The report's own code then compares them. The table is that of
docs/statistics.md.

With folds, networks are trained, so that those of two folds have most of their training images in
common: each experiment sees features of its own of each image, learns the mean of each class, and
how likely an image is of a class is told by how near it is to that mean.
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
from lib.data.splits import folds_of_groups, folds_of_images
from lib.reporting import tables
from lib.reporting.finished_runs import FinishedExperiment, FinishedRun, TestSet, in_folds
from lib.reporting.pseudo_values import pseudo_values
from lib.reporting.uncertainty import LEVEL, Measured
from lib.training.measures import Answers

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
        folds: into which all images are divided; 0: there is one test set.
    """

    name: str
    images: int
    classes: int
    largest: float
    group: int = 1
    folds: int = 0

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


FOLDS = 5
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


FEATURES = 10  # that each experiment sees of an image; as many again are seen by both


def experiment_in_folds(
    case: Case, test_set: TestSet, seeds: int, spread: float, both: np.ndarray, random
) -> tuple[FinishedExperiment, list[Answers]]:
    """Train the networks of an experiment, one for each seed and fold, as `experiment` draws them.

    Args:
        case: the case.
        test_set: all images.
        seeds: how many networks for each fold.
        spread: of the seeds: in it, learned means differ from those of the training images, and a
            seed is the same in all folds for a half of it.
        both: what both experiments see of the images, float64 [images, features].
        random: the generator.
    """
    labels, groups = test_set.labels, case.images // case.group
    own = random.standard_normal((groups, FEATURES)) / 2
    noise = random.standard_normal((case.images, FEATURES))
    seen = np.concatenate([both, np.repeat(own, case.group, axis=0) + noise], axis=1)
    seen[np.arange(case.images), FEATURES - case.classes // 2 + labels] += 1.5
    members = np.eye(case.classes)[labels]
    runs, answers, shape = [], [], (case.classes, seen.shape[1])
    size = spread / math.sqrt(case.images) / math.sqrt(2)
    for seed in range(1, seeds + 1):
        of_seed = size * random.standard_normal(shape)
        for fold in range(1, case.folds + 1):
            test = test_set.folds == fold
            count = members[~test].sum(axis=0)
            means = members[~test].T @ seen[~test] / np.maximum(count, 1)[:, None]
            means += of_seed + size * random.standard_normal(shape)
            score = seen[test] @ means.T - (means**2).sum(axis=1) / 2 + np.log(count + 1)
            sure = np.exp(score - score.max(axis=1, keepdims=True))
            sure = (sure / sure.sum(axis=1, keepdims=True)).astype(np.float32)
            chosen, about = sure.argmax(axis=1), (test_set.classes, test_set.positive)
            given = (labels[test], chosen, sure, test_set, None, None, fold)
            record = {"train_size": int((~test).sum())}
            runs.append(FinishedRun("", seed, "", record, {}, None, *given))
            answers.append(Answers(labels[test], chosen, sure, *about))
    return FinishedExperiment("", runs), answers


def folds_of(case: Case, labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Divide images into folds, int64 [images]."""
    groups, order = case.groups(), random.permutation(case.images // case.group).tolist()
    if groups is None:
        return folds_of_images(labels.tolist(), case.folds, order)
    return folds_of_groups(groups.tolist(), labels.tolist(), case.folds, order)


def verdicts(case: Case, seeds: int, spread: float, metrics: list[str], random) -> dict[str, bool]:
    """Draw a study; return by which metrics one of two equal experiments is called better."""
    labels, groups = case.labels(random), case.groups()
    names = [str(number) for number in range(case.classes)]
    folds = folds_of(case, labels, random) if case.folds else None
    test_set = TestSet(Path(), (), None, labels, names, case.positive, None, groups, None, folds)
    draw, shape = (experiment, ()) if folds is None else (experiment_in_folds, (FEATURES,))
    common = random.standard_normal((case.images // case.group, *shape))
    common = np.repeat(common, case.group, axis=0)
    drawn = [draw(case, test_set, seeds, spread, common, random) for _ in "ab"]
    a, b = (replace(each, name=name) for name, (each, _) in zip("ab", drawn, strict=True))
    found = {}
    for metric in map(Metric, metrics):
        known = {
            each.name: measured(metric, each, answers)
            for each, (_, answers) in zip((a, b), drawn, strict=True)
        }
        estimate = tables.difference(metric, a, b, known)
        found[metric.name] = not isinstance(estimate, str) and estimate.p_value() < LEVEL
    return found


def measured(metric: Metric, drawn: FinishedExperiment, answers: list[Answers]) -> Measured | None:
    """Return a metric of an experiment; None where it cannot be computed."""
    values = [pseudo_values(metric, one) for one in answers]
    if any(each is None for each in values):
        return None
    if drawn.runs[0].fold is None:
        return Measured.of(np.stack(values), drawn.runs[0].test_set.groups)
    return in_folds(drawn.runs, np.array([each.mean() for each in values]), values)


def rates(
    case: Case, seeds: int, spread: float, studies: int, metrics: list[str] = METRICS, part: int = 0
) -> dict[str, float]:
    """Return for each metric in which share of so many studies one experiment is called better."""
    about = [case.images, seeds, int(spread), part, *([case.folds] if case.folds else [])]
    random = np.random.default_rng(about)
    drawn = [verdicts(case, seeds, spread, metrics, random) for _ in range(studies)]
    return {name: sum(each[name] for each in drawn) / studies for name in metrics}


def bound(studies: int) -> float:
    """Return the highest rate that may come out of so many studies: 5% and two standard errors."""
    return LEVEL + 2 * math.sqrt(LEVEL * (1 - LEVEL) / studies)


def settings() -> Iterator[tuple[Case, int, float]]:
    """Yield what is simulated: with one seed, there is no spread of seeds, but with folds."""
    for case in CASES:
        yield case, 1, 0.0
        yield from ((case, 3, spread) for spread in SPREADS)
        yield case, 10, SPREADS[-1]
    for case in CASES:
        folded = replace(case, name=f"{case.name}, {FOLDS} folds", folds=FOLDS)
        yield from ((folded, seeds, SPREADS[0]) for seeds in (1, 3))


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
