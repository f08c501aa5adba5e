"""Confidence intervals and tests for metrics and their differences.

A metric depends on chance in two ways: which images are in the test set, and which random numbers
were drawn in training. With a single run, the second source cannot be estimated, so the results
describe that trained network only. With three or more runs, they describe the recipe. The mean over
runs and images then has the variance

    s2_seed / runs  +  s2_image / images

where s2_seed is the variance of the runs' metrics and s2_image is that of the images' means of what
`pseudo_values` gives: the second term is the variance over bootstrap samples of the images, which
needs no draws, as it is known in closed form. Images of one group are drawn together. Both terms
include a part of the interaction of the two sources, so the sum is conservative. For crossed
sources of variance, and why resampling only one of them is wrong, see A. B. Owen, The pigeonhole
bootstrap, Ann. Appl. Stat. 1 (2007) 386-411.

The first term is estimated from a few runs, the second from thousands of images. The quantile of t
is therefore the mean of the two terms' quantiles, weighted by the terms: W. G. Cochran, Biometrics
20 (1964) 191-195. A single t with the degrees of freedom of F. E. Satterthwaite, Biometrics
Bulletin 2 (1946) 110-114, is wrong too often: 8% of the time with three runs if seeds dominate. A
few runs may be similar by chance, and their term then gets almost no weight. Satterthwaite's method
works well for adding up the terms of two experiments that share no seeds.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binomtest, norm, t
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

LEVEL = 0.05  # significance level of the tests; intervals cover 1 - LEVEL
POWER = 0.8
TINY = 1e-100
# Quantiles are larger by this factor than in theory: the variances are estimates of first order,
# and 'better' is to be said falsely in less than 5% of all studies, not in about 5%.
CAUTION = 1.05


def wilson(correct: int, total: int) -> tuple[float, float]:
    """Return the 95% interval of a share: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209-212."""
    interval = binomtest(correct, total).proportion_ci(1 - LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class Term:
    """A part of a mean's variance, and its degrees of freedom."""

    variance: float
    df: float


@dataclass(frozen=True)
class Mean:
    """A mean over runs and images, and the two terms of its variance."""

    value: float
    seeds: Term
    images: Term

    @property
    def standard_error(self) -> float:
        """The standard error of the mean."""
        return math.sqrt(self.seeds.variance + self.images.variance)

    def quantile(self, upper_tail: float) -> float:
        """Return Cochran's quantile: the mean of the terms' quantiles, weighted by the terms."""
        terms = (self.seeds, self.images)
        weighted = sum(term.variance * t.isf(upper_tail, term.df) for term in terms)
        return CAUTION * float(weighted) / self.standard_error**2

    def interval(self) -> tuple[float, float]:
        """Return the 95% interval. If nothing varies, both ends are the value."""
        half = self.quantile(LEVEL / 2) * self.standard_error if self.standard_error else 0.0
        return self.value - half, self.value + half

    def p_value(self) -> float:
        """Return the two-sided p value of the hypothesis that the mean is zero.

        A p value of less than 1e-100 is returned as 0.
        """
        if not self.standard_error:
            return 0.0 if self.value else 1.0
        target = abs(self.value) / self.standard_error
        if self.quantile(TINY / 2) < target:
            return 0.0
        exponent = brentq(lambda e: self.quantile(10**e / 2) - target, math.log10(TINY), 0)
        return float(10**exponent)

    def detectable(self, level: float, largest: float = 1.0) -> float | None:
        """Return the true value that a test at `level` detects with 80% power.

        Return None if nothing varies, or if not even the largest value would be detected.
        """
        if not self.standard_error:
            return None
        found = (self.quantile(level / 2) + self.quantile(1 - POWER)) * self.standard_error
        return found if found < largest else None


@dataclass(frozen=True)
class Folds:
    """A metric on the folds of a cross-validation.

    Attributes:
        values: on each, mean over the seeds, float64 [folds].
        ratio: of test images to those that a network is trained on.
    """

    values: np.ndarray
    ratio: float


@dataclass(frozen=True)
class Measured:
    """A metric of an experiment on the test images.

    Attributes:
        runs: the metric of each seed, float64 [seeds]; with folds, the mean over them.
        images: the mean over the seeds of each image's pseudo-value, float64 [images].
        groups: the number of each image's group, int [images]; None where each is its own.
        folds: the metric on each fold; None where there are none.
    """

    runs: np.ndarray
    images: np.ndarray
    groups: np.ndarray | None = None
    folds: Folds | None = None

    @classmethod
    def of(cls, values: np.ndarray, groups: np.ndarray | None = None) -> "Measured":
        """Return the metric whose pseudo-values for each run are given, [runs, images]."""
        return cls(values.mean(axis=1), values.mean(axis=0), groups)

    def mean(self) -> Mean:
        """Return the mean over the seeds: of a recipe, or of the one network that there is."""
        images = _image_term(self.images, self.groups, self.folds)
        return Mean(float(self.runs.mean()), seed_term(self.runs), images)


FEWEST_SEEDS = 3  # from which their spread is known
NO_SEEDS = Term(0.0, 1)


def seed_term(means: np.ndarray) -> Term:
    """Return the variance of the mean over seeds; of few of them, it is not known."""
    if len(means) < FEWEST_SEEDS:
        return NO_SEEDS
    return Term(float(means.var(ddof=1)) / len(means), len(means) - 1)


def _image_term(values: np.ndarray, groups: np.ndarray | None, folds: Folds | None) -> Term:
    images = image_term(values, groups)
    return images if folds is None else fold_term(folds, images)


def fold_term(folds: Folds, images: Term) -> Term:
    """Return the variance of the mean over the folds of a cross-validation.

    The trainings of two folds share most of their images, so the variance over the folds is
    multiplied by 1 / folds + ratio rather than by 1 / folds: C. Nadeau and Y. Bengio, Machine
    Learning 52 (2003) 239-281. A few folds may be similar by chance: the variance is never less
    than what the images alone have.

    Args:
        folds: the metric on each.
        images: the variance over samples of the images.
    """
    number = len(folds.values)
    variance = float(folds.values.var(ddof=1)) * (1 / number + folds.ratio)
    return Term(max(variance, images.variance), number - 1)


def image_term(values: np.ndarray, groups: np.ndarray | None = None) -> Term:
    """Return the variance of the mean of pseudo-values [images] over samples of images, or groups.

    Its degrees of freedom are those that its own fourth moment gives it: where a few images decide,
    as in a small class, there are few. They are Satterthwaite's for values that are not normal; for
    normal ones they are the number of images.
    """
    images, deviations = len(values), values - values.mean()
    if groups is not None:
        deviations = np.bincount(groups, deviations)
    number, squares = len(deviations), deviations**2
    total = float(squares.sum())
    if not total or number < 2:
        return Term(0.0, max(1, number - 1))
    spread = float((squares**2).sum()) / total**2 - 1 / number
    df = min(2 / spread, number - 1) if spread > 0 else number - 1
    return Term(total / images**2 * number / (number - 1), max(1.0, df))


def difference(a: Measured, b: Measured, same_seeds: bool) -> Mean:
    """Return by how much the metric of a exceeds that of b, on the same images.

    Args:
        a: of one experiment.
        b: of the other.
        same_seeds: whether the runs are paired one by one.
    """
    folds = None
    if a.folds is not None:
        folds = Folds(a.folds.values - b.folds.values, max(a.folds.ratio, b.folds.ratio))
    value = float(a.runs.mean() - b.runs.mean())
    images = _image_term(a.images - b.images, a.groups, folds)
    if min(len(a.runs), len(b.runs)) < FEWEST_SEEDS:
        return Mean(value, NO_SEEDS, images)
    if same_seeds:
        return Mean(value, seed_term(a.runs - b.runs), images)
    return Mean(value, _sum(seed_term(a.runs), seed_term(b.runs)), images)


def _sum(a: Term, b: Term) -> Term:
    """Return the sum of two terms, with Satterthwaite's degrees of freedom."""
    variance = a.variance + b.variance
    spread = a.variance**2 / a.df + b.variance**2 / b.df
    return Term(variance, variance**2 / spread if spread else a.df)


@dataclass(frozen=True)
class Pair:
    """Two trained networks on the same images, as counts of the images on which they differ."""

    only_a: int  # images that only a classifies correctly
    only_b: int
    images: int

    @property
    def value(self) -> float:
        """How much more accurate a is than b."""
        return (self.only_a - self.only_b) / self.images

    def interval(self) -> tuple[float, float]:
        """Return the 95% interval of the difference.

        This is the adjusted Wald interval of D. G. Bonett and R. M. Price, J. Educ. Behav. Stat. 37
        (2012) 479-488, with Laplace estimates of the two discordant shares.
        """
        a, b = ((count + 1) / (self.images + 2) for count in (self.only_a, self.only_b))
        half = norm.ppf(1 - LEVEL / 2) * math.sqrt((a + b - (a - b) ** 2) / (self.images + 2))
        return a - b - half, a - b + half

    def p_value(self) -> float:
        """Return the p value of McNemar's exact test, Psychometrika 12 (1947) 153-157."""
        return float(mcnemar([[0, self.only_a], [self.only_b, 0]], exact=True).pvalue)

    def detectable(self, level: float, largest: float = 1.0) -> float | None:
        """Return the true difference that a test at `level` detects with 80% power, or None.

        See R. J. Connor, Biometrics 43 (1987) 207-211. The share of discordant images is the
        observed one, or the difference itself if that is larger.
        """
        seen = (self.only_a + self.only_b) / self.images
        z_level, z_power = norm.ppf(1 - level / 2), norm.ppf(POWER)

        def excess(difference: float) -> float:
            share = max(seen, difference)
            spread = z_level * math.sqrt(share) + z_power * math.sqrt(share - difference**2)
            return difference * math.sqrt(self.images) - spread

        # None: with so few images, not even the largest difference would be detected.
        return float(brentq(excess, 1e-12, largest)) if excess(largest) > 0 else None


def holm(p_values: list[float]) -> list[float]:
    """Adjust p values for multiple tests: S. Holm, Scand. J. Stat. 6 (1979) 65-70."""
    return [float(p) for p in multipletests(p_values, method="holm")[1]] if p_values else []


BINS = 15  # of a reliability curve


def binned(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Sort predictions into bins of equal width by their confidence.

    Args:
        confidence: from 0 to 1, [predictions].
        right: whether each is correct, bool [predictions].

    Returns:
        For each bin the count, the sum of the confidences, and how many are correct, [3, bins].
    """
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return np.stack([np.bincount(place, weights, BINS) for weights in (None, confidence, right)])


def calibration(bins: np.ndarray) -> tuple[list[tuple[float, float, int]], float]:
    """Return the reliability curve and the expected calibration error.

    The curve has one point for each bin that is not empty: its mean confidence, share of correct
    predictions, and count. The error is the mean distance between confidence and share, weighted by
    the count. See M. P. Naeini et al., AAAI 2015, and C. Guo et al., ICML 2017 (15 bins).

    Args:
        bins: as `binned` returns them, or a sum of such.
    """
    counts = bins[0]
    filled = counts > 0
    sure, share = bins[1:, filled] / counts[filled]
    error = float(np.abs(sure - share) @ counts[filled] / counts.sum())
    counts = counts[filled].astype(int).tolist()
    return list(zip(sure.tolist(), share.tolist(), counts, strict=True)), error
