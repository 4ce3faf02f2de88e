"""Numbers of many networks, and the powers of their size by which they change."""

import warnings
from collections.abc import Callable

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import DegenerateDataWarning, bootstrap, t

#: Samples that an interval rests on.
RESAMPLES = 999

#: The part of all samples within an interval.
CONFIDENCE = 0.95

#: Values by size, then by seed.
Table = Float[np.ndarray, "sizes seeds"]

#: How sure it must be that a mean is not zero before its powers and factors are looked at.
SURE = 0.99


class Estimate(eqx.Module):
    """A number and the ends of its interval, NaN where they are unknown."""

    value: float
    low: float
    high: float

    def __contains__(self, value: float | int) -> bool:
        return self.low <= value <= self.high

    def excludes(self, value: float | int) -> bool:
        """Whether the interval is known and does not hold the value."""
        return value < self.low or value > self.high


UNKNOWN = Estimate(np.nan, np.nan, np.nan)


def power_law(sizes: Int[np.ndarray, " sizes"], values: Table, *, signed: bool = False) -> Estimate:
    r"""The exponent $\alpha$ of $\mathrm{size}^\alpha$, fitted to the medians over seeds.

    By least squares of logarithms; of the means' absolute values if `signed`. The interval holds
    95% of the exponents of samples in which the seeds of each size are drawn with replacement, the
    same ones each time. Sizes whose median is not finite are left out. There is no exponent where
    any other one is zero, or means are of both signs or are not `settled`.
    """
    finite = np.isfinite(middle(values, signed))
    sizes, values = sizes[finite], values[finite]
    if len(sizes) < 2 or not _settled_alike(values, signed):
        return UNKNOWN
    logs = np.log(sizes)
    weights = (logs - logs.mean()) / np.sum((logs - logs.mean()) ** 2)
    fit = lambda middles: np.tensordot(weights, np.log(np.abs(middles)), axes=1)  # noqa: E731
    return _bootstrapped(counted(values), fit, signed)


def growth(values: Table, *, signed: bool = False) -> Estimate:
    """The factor by which the median over seeds grows from the first to the last size.

    Or the mean, if `signed`. It may be infinite. There is none from zero or infinity on, nor where
    means are of both signs or are not `settled`.
    """
    ends = values[[0, -1]]
    if len(values) < 2 or not np.isfinite(middle(ends[:1], signed)).all():
        return UNKNOWN
    if not _settled_alike(ends if signed else ends[:1], signed):
        return UNKNOWN
    return _bootstrapped(counted(ends), lambda middles: middles[1] / middles[0], signed)


def middle(values: Table, signed: bool) -> Float[np.ndarray, " sizes"]:
    """The median of each size, or the mean if `signed`."""
    return (np.mean if signed else np.median)(counted(values), axis=1)


def settled(values: Table, signed: bool) -> Bool[np.ndarray, " sizes"]:
    """Of which sizes the median, or the mean, is finite and surely not zero.

    Of means Student's t-test is asked, at 99%; one seed says nothing of theirs.
    """
    middles, seeds = middle(values, signed), values.shape[1]
    known = np.isfinite(middles) & (middles != 0)
    if not signed:
        return known
    if seeds < 2:
        return np.zeros_like(known)
    errors = values.std(axis=1, ddof=1) / np.sqrt(seeds)
    return known & (np.abs(middles) > t.ppf((1 + SURE) / 2, seeds - 1) * errors)


def _settled_alike(values: Table, signed: bool) -> bool:
    """Whether logarithms and ratios of the middles of all sizes mean something."""
    signs = np.sign(middle(values, signed))
    return bool(settled(values, signed).all() and (signs == signs[0]).all())


def prefactor(
    sizes: Int[np.ndarray, " sizes"], middles: Float[np.ndarray, " sizes"], slope: float | int
) -> float:
    """The factor before the power law of this slope that goes through the middle of all."""
    known = np.isfinite(middles) & (middles > 0)
    if not known.any():
        return np.nan
    return float(np.exp(np.mean(np.log(middles[known]) - slope * np.log(sizes[known]))))


def counted(values: Table) -> Table:
    """What blew up, or was not reached within the step limit, counts as infinitely large."""
    return np.where(np.isnan(values), np.inf, values)


def _bootstrapped(
    rows: Table, summary: Callable[[np.ndarray], np.ndarray], signed: bool
) -> Estimate:
    """A summary of each row's middle; rows are resampled apart from each other."""
    statistic = np.mean if signed else np.median

    def summarised(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
        middles = np.stack([statistic(sample, axis=axis) for sample in samples])
        return np.asarray(summary(middles))

    # Medians may be infinite, and zero.
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        value = float(summarised(*rows))
        if rows.shape[1] < 2 or not np.isfinite(value):
            return Estimate(value, np.nan, np.nan)
        warnings.simplefilter("ignore", DegenerateDataWarning)  # the interval is then NaN
        found = bootstrap(
            tuple(rows),
            summarised,
            n_resamples=RESAMPLES,
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(0),
        )
    interval = found.confidence_interval
    return Estimate(value, float(interval.low), float(interval.high))
