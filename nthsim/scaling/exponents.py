"""Numbers of many networks, and the powers of their size by which they change."""

import warnings
from collections.abc import Callable

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int
from scipy.stats import DegenerateDataWarning, bootstrap

#: Samples that an interval rests on.
RESAMPLES = 999

#: The part of all samples within an interval.
CONFIDENCE = 0.95

#: Values by size, then by seed.
Table = Float[np.ndarray, "sizes seeds"]

#: From a size's values, along an axis, to the one that stands for them.
Statistic = Callable[..., np.ndarray]


class Estimate(eqx.Module):
    """A number and the ends of its interval, NaN where they are unknown."""

    value: float
    low: float
    high: float

    def __contains__(self, value: float | int) -> bool:
        return self.low <= value <= self.high


def power_law(
    sizes: Int[np.ndarray, " sizes"], values: Table, *, statistic: Statistic = np.median
) -> Estimate:
    r"""The exponent $\alpha$ of $\mathrm{size}^\alpha$, fitted to the medians over seeds.

    By least squares of logarithms, of the medians' absolute values if `statistic` is a mean. The
    interval holds 95% of the exponents of samples in which the seeds of each size are drawn with
    replacement, the same ones each time. Sizes whose median is not finite are left out.
    """
    known = np.isfinite(values).any(axis=1) & np.isfinite(statistic(counted(values), axis=1))
    if np.count_nonzero(known) < 2:
        return Estimate(np.nan, np.nan, np.nan)
    logs = np.log(sizes[known])
    weights = (logs - logs.mean()) / np.sum((logs - logs.mean()) ** 2)
    return _bootstrapped(
        counted(values)[known],
        lambda middles: np.tensordot(weights, np.log(np.abs(middles)), axes=1),
        statistic,
    )


def growth(values: Table, *, statistic: Statistic = np.median) -> Estimate:
    """The factor by which the median over seeds grows from the first to the last size."""
    if len(values) < 2:
        return Estimate(np.nan, np.nan, np.nan)
    return _bootstrapped(counted(values)[[0, -1]], lambda ends: ends[1] / ends[0], statistic)


def prefactor(
    sizes: Int[np.ndarray, " sizes"], middles: Float[np.ndarray, " sizes"], slope: float | int
) -> float:
    """The factor before the power law of this slope that goes through the middle of all."""
    known = np.isfinite(middles) & (middles > 0)
    if not known.any():
        return np.nan
    return float(np.exp(np.mean(np.log(middles[known]) - slope * np.log(sizes[known]))))


def kernel_exponent(order: int) -> int:
    r"""Of the size of $K^{(r)}$ at t = 0: -1 for r = 3 and 4, -2 for r = 5 and 6, and so on.

    So are the exponents of $E K^{(r)}$ for even and of $E K^{(r)} f$ for odd r (Huang & Yau 2019,
    arXiv 1909.08156; Dyer & Gur-Ari 2019, arXiv 1909.11304).
    """
    return -((order - 1) // 2)


def error_exponent(order: int) -> int:
    """Of the error of truncation order p at any fixed time: -1 for p = 2 and 3, -2 for 4 and 5."""
    return -(order // 2)


#: Of the movement of the tangent kernel in training.
DRIFT_EXPONENT = -1


def counted(values: Table) -> Table:
    """What blew up, or was not reached within the step limit, counts as infinitely large."""
    return np.where(np.isnan(values), np.inf, values)


def _bootstrapped(
    rows: Table, summary: Callable[[np.ndarray], np.ndarray], statistic: Statistic
) -> Estimate:
    """A summary of each row's statistic; rows are resampled apart from each other."""

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


class Quantity(eqx.Module):
    """A number for each network: `values` by size, then by seed; what blew up is NaN.

    `predicted` is the power of the width by which it is predicted to change. Of a `signed` one the
    mean over seeds is looked at, of all others the median, in which what blew up is infinite. Those
    that are drawn have the `panel` that they are drawn in, and a `label` there.
    """

    sizes: Int[np.ndarray, " sizes"]
    values: Float[np.ndarray, "sizes seeds"]
    predicted: int
    signed: bool = False
    panel: str = ""
    label: str = ""

    def middles(self) -> Float[np.ndarray, " sizes"]:
        """The median of each size, or the mean of a signed quantity."""
        return self._middle(counted(self.values), axis=1)

    def spreads(self) -> Float[np.ndarray, "2 sizes"]:
        """The quartiles of each size; of a signed quantity the mean -/+ its standard error."""
        if not self.signed:
            # Not by interpolation, which makes NaN of infinities.
            return np.quantile(counted(self.values), (0.25, 0.75), axis=1, method="nearest")
        seeds = self.values.shape[1]
        error = self.values.std(axis=1, ddof=1) / np.sqrt(seeds) if seeds > 1 else np.nan
        return np.stack([self.middles() - error, self.middles() + error])

    def exponent(self) -> Estimate:
        """The fitted power of the size by which the middles change, with a 95% interval."""
        return power_law(self.sizes, self.values, statistic=self._middle)

    def growth(self) -> Estimate:
        """The factor from the first to the last size, with a 95% interval."""
        return growth(self.values, statistic=self._middle)

    @property
    def _middle(self):
        return np.mean if self.signed else np.median
