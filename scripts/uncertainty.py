"""How sure the data makes us: intervals and tests for accuracies and their differences.

Two things might have come out otherwise: which images are in the test set, and which random numbers
a training drew. One run of an experiment has one draw of the second, so it speaks of that trained
network alone; three or more speak of the recipe. Then the mean over runs and images has the
variance

    s2_seed / runs  +  s2_image / images

where s2_seed is the variance of the runs' means and s2_image that of the images' means. Each term
holds a part of what is due to neither source alone, so the sum errs on the safe side. For such
crossed sources, and why to resample one of them alone is wrong: A. B. Owen, The pigeonhole
bootstrap, Ann. Appl. Stat. 1 (2007) 386-411.

The first term rests on few runs, the second on thousands of images. So the quantile of t is the
mean of the two terms' own, weighted by the terms: W. G. Cochran, Biometrics 20 (1964) 191-195. (One
t with the degrees of freedom of F. E. Satterthwaite, Biometrics Bulletin 2 (1946) 110-114, errs too
often, 8 % of the time with three runs where seeds dominate: few runs may look alike by chance, and
then count for nothing. For the runs of two experiments that share no seeds, it does well.)
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binomtest, norm, t
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

LEVEL = 0.05  # of tests; intervals cover 1 - LEVEL
POWER = 0.8
TINY = 1e-100


def wilson(correct: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a share: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209-212."""
    interval = binomtest(correct, total).proportion_ci(1 - LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class Term:
    """A part of a mean's variance, and its degrees of freedom."""

    variance: float
    freedom: float


@dataclass(frozen=True)
class Mean:
    """A mean over runs and images, and the two terms of its variance."""

    value: float
    seeds: Term
    images: Term

    @property
    def error(self) -> float:
        """The standard error."""
        return math.sqrt(self.seeds.variance + self.images.variance)

    def quantile(self, upper_tail: float) -> float:
        """Return Cochran's quantile: the terms' quantiles of t, weighted by the terms."""
        terms = (self.seeds, self.images)
        weighted = sum(term.variance * t.isf(upper_tail, term.freedom) for term in terms)
        return float(weighted) / self.error**2

    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval; where nothing varies, the value twice."""
        half = self.quantile(LEVEL / 2) * self.error if self.error else 0.0
        return self.value - half, self.value + half

    def p_value(self) -> float:
        """Return the two-sided p value of a mean of zero; 0 is less than 1e-100."""
        if not self.error:
            return 0.0 if self.value else 1.0
        wanted = abs(self.value) / self.error
        if self.quantile(TINY / 2) < wanted:
            return 0.0
        exponent = brentq(lambda e: self.quantile(10**e / 2) - wanted, math.log10(TINY), 0)
        return float(10**exponent)

    def detectable(self, level: float) -> float | None:
        """Return the true value that a test at `level` finds with 80 % power.

        None where nothing varies, and where even a difference of 1 would not be found.
        """
        if not self.error:
            return None
        found = (self.quantile(level / 2) + self.quantile(1 - POWER)) * self.error
        return found if found < 1 else None


def _term(means: np.ndarray) -> Term:
    return Term(float(means.var(ddof=1)) / len(means), len(means) - 1)


def recipe_accuracy(right: np.ndarray) -> Mean:
    """Return the accuracy of a recipe from `right`, bool [runs, images], of three runs or more."""
    return Mean(float(right.mean()), _term(right.mean(axis=1)), _term(right.mean(axis=0)))


def recipe_difference(a: np.ndarray, b: np.ndarray, same_seeds: bool) -> Mean:
    """Return how much more accurate recipe a is than b.

    Args:
        a: whether each run of a is right, bool [runs, images].
        b: the same of b, on the same images.
        same_seeds: whether the runs are paired, row by row.
    """
    seeds_a, seeds_b = a.mean(axis=1), b.mean(axis=1)
    seeds = _term(seeds_a - seeds_b) if same_seeds else _sum(_term(seeds_a), _term(seeds_b))
    images = _term(a.mean(axis=0) - b.mean(axis=0))
    return Mean(float(seeds_a.mean() - seeds_b.mean()), seeds, images)


def _sum(a: Term, b: Term) -> Term:
    """Return the sum of two terms, with Satterthwaite's degrees of freedom."""
    variance = a.variance + b.variance
    spread = a.variance**2 / a.freedom + b.variance**2 / b.freedom
    return Term(variance, variance**2 / spread if spread else a.freedom)


@dataclass(frozen=True)
class Pair:
    """Two trained networks on the same images, by the counts in which they differ."""

    only_a: int  # images that only a gets right
    only_b: int
    images: int

    @property
    def value(self) -> float:
        """How much more accurate a is than b."""
        return (self.only_a - self.only_b) / self.images

    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval of the difference.

        The adjusted Wald interval of D. G. Bonett and R. M. Price, J. Educ. Behav. Stat. 37 (2012)
        479-488: Laplace's estimates of the two discordant shares.
        """
        a, b = ((count + 1) / (self.images + 2) for count in (self.only_a, self.only_b))
        half = norm.ppf(1 - LEVEL / 2) * math.sqrt((a + b - (a - b) ** 2) / (self.images + 2))
        return a - b - half, a - b + half

    def p_value(self) -> float:
        """Return the p value of McNemar's exact test, Psychometrika 12 (1947) 153-157."""
        return float(mcnemar([[0, self.only_a], [self.only_b, 0]], exact=True).pvalue)

    def detectable(self, level: float) -> float | None:
        """Return the true difference that a test at `level` finds with 80 % power, or None.

        R. J. Connor, Biometrics 43 (1987) 207-211, with the share of discordant images seen here,
        or as many as the difference itself takes.
        """
        seen = (self.only_a + self.only_b) / self.images
        z_level, z_power = norm.ppf(1 - level / 2), norm.ppf(POWER)

        def excess(difference: float) -> float:
            share = max(seen, difference)
            spread = z_level * math.sqrt(share) + z_power * math.sqrt(share - difference**2)
            return difference * math.sqrt(self.images) - spread

        # None: there are so few images that even all of them would not do.
        return float(brentq(excess, 1e-12, 1)) if excess(1) > 0 else None


def holm(p_values: list[float]) -> list[float]:
    """Adjust p values for their number: S. Holm, Scand. J. Stat. 6 (1979) 65-70."""
    return [float(p) for p in multipletests(p_values, method="holm")[1]] if p_values else []


def calibration(
    confidence: np.ndarray, right: np.ndarray, bins: int = 15
) -> tuple[list[tuple[float, float, int]], float]:
    """Return the reliability curve, and the expected calibration error.

    Predictions are sorted into bins of equal width by their confidence. The curve has a point for
    each bin that is not empty: mean confidence, share right, and count. The error is the mean
    distance between the two, weighted by count. M. P. Naeini et al., AAAI 2015; C. Guo et al.,
    ICML 2017 (15 bins).
    """
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    counts = np.bincount(place, minlength=bins)
    filled = counts > 0
    sums = (np.bincount(place, weights, minlength=bins) for weights in (confidence, right))
    sure, share = (total[filled] / counts[filled] for total in sums)
    error = float(np.abs(sure - share) @ counts[filled] / counts.sum())
    return list(zip(sure.tolist(), share.tolist(), counts[filled].tolist(), strict=True)), error
