"""Confidence intervals and tests for accuracies and their differences.

An accuracy depends on chance in two ways: which images are in the test set, and which random
numbers were drawn in training. With a single run, the second source cannot be estimated, so the
results describe that trained network only. With three or more runs, they describe the recipe. The
mean over runs and images then has the variance

    s2_seed / runs  +  s2_image / images

where s2_seed is the variance of the runs' means and s2_image is the variance of the images' means.
Both terms include a part of the interaction of the two sources, so the sum is conservative. For
crossed sources of variance, and why resampling only one of them is wrong, see A. B. Owen, The
pigeonhole bootstrap, Ann. Appl. Stat. 1 (2007) 386-411.

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
        return float(weighted) / self.standard_error**2

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

    def detectable(self, level: float) -> float | None:
        """Return the true value that a test at `level` detects with 80% power.

        Return None if nothing varies, or if even a difference of 1 would not be detected.
        """
        if not self.standard_error:
            return None
        found = (self.quantile(level / 2) + self.quantile(1 - POWER)) * self.standard_error
        return found if found < 1 else None


def _term(means: np.ndarray) -> Term:
    return Term(float(means.var(ddof=1)) / len(means), len(means) - 1)


def recipe_accuracy(right: np.ndarray) -> Mean:
    """Return the accuracy of a recipe from `right`, bool [runs, images], of at least three runs."""
    return Mean(float(right.mean()), _term(right.mean(axis=1)), _term(right.mean(axis=0)))


def recipe_difference(a: np.ndarray, b: np.ndarray, same_seeds: bool) -> Mean:
    """Return how much more accurate recipe a is than b.

    Args:
        a: whether each run of a classifies each image correctly, bool [runs, images].
        b: the same for b, on the same images.
        same_seeds: whether the runs are paired row by row.
    """
    seeds_a, seeds_b = a.mean(axis=1), b.mean(axis=1)
    seeds = _term(seeds_a - seeds_b) if same_seeds else _sum(_term(seeds_a), _term(seeds_b))
    images = _term(a.mean(axis=0) - b.mean(axis=0))
    return Mean(float(seeds_a.mean() - seeds_b.mean()), seeds, images)


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

    def detectable(self, level: float) -> float | None:
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

        # None: with so few images, even a difference of 1 would not be detected.
        return float(brentq(excess, 1e-12, 1)) if excess(1) > 0 else None


def holm(p_values: list[float]) -> list[float]:
    """Adjust p values for multiple tests: S. Holm, Scand. J. Stat. 6 (1979) 65-70."""
    return [float(p) for p in multipletests(p_values, method="holm")[1]] if p_values else []


def calibration(
    confidence: np.ndarray, right: np.ndarray, bins: int = 15
) -> tuple[list[tuple[float, float, int]], float]:
    """Return the reliability curve and the expected calibration error.

    Predictions are sorted into bins of equal width by their confidence. The curve has one point for
    each bin that is not empty: its mean confidence, share of correct predictions, and count. The
    error is the mean distance between confidence and share, weighted by the count. See M. P. Naeini
    et al., AAAI 2015, and C. Guo et al., ICML 2017 (15 bins).
    """
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    counts = np.bincount(place, minlength=bins)
    filled = counts > 0
    sums = (np.bincount(place, weights, minlength=bins) for weights in (confidence, right))
    sure, share = (total[filled] / counts[filled] for total in sums)
    error = float(np.abs(sure - share) @ counts[filled] / counts.sum())
    return list(zip(sure.tolist(), share.tolist(), counts[filled].tolist(), strict=True)), error
