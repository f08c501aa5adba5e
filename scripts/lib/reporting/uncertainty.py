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
class Measured:
    """A metric of an experiment on the test images.

    Attributes:
        runs: the metric of each run, float64 [runs].
        images: the mean over the runs of each image's pseudo-value, float64 [images].
        groups: the number of each image's group, int [images]; None where each is its own.
    """

    runs: np.ndarray
    images: np.ndarray
    groups: np.ndarray | None = None

    @classmethod
    def of(cls, values: np.ndarray, groups: np.ndarray | None = None) -> "Measured":
        """Return the metric whose pseudo-values for each run are given, [runs, images]."""
        return cls(values.mean(axis=1), values.mean(axis=0), groups)

    def mean(self) -> Mean:
        """Return the mean over the runs: of a recipe, or of the one network that there is."""
        seeds = _term(self.runs) if len(self.runs) > 1 else NO_SEEDS
        return Mean(float(self.runs.mean()), seeds, image_term(self.images, self.groups))


NO_SEEDS = Term(0.0, 1)


def _term(means: np.ndarray) -> Term:
    return Term(float(means.var(ddof=1)) / len(means), len(means) - 1)


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
    if len(a.runs) == len(b.runs) == 1:
        seeds = NO_SEEDS
    elif same_seeds:
        seeds = _term(a.runs - b.runs)
    else:
        seeds = _sum(_term(a.runs), _term(b.runs))
    value = float(a.runs.mean() - b.runs.mean())
    return Mean(value, seeds, image_term(a.images - b.images, a.groups))


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
