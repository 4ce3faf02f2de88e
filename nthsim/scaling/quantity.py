"""A number for each of many networks of several sizes, and how it changes with the size."""

from collections.abc import Sequence

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int

from nthsim.inputs.integers import checked_integers
from nthsim.scaling.exponents import Estimate, counted, growth, middle, power_law, settled

Integers = Sequence[int] | Int[np.ndarray, " integers"]


class Quantity(eqx.Module):
    """A number for each network: `values` by size, then by seed; what blew up is NaN.

    `predicted` is the power of the width by which it is predicted to change, None where no theory
    says so. Of a `signed` one the mean over seeds is looked at, of all others the median, in which
    what blew up is infinite. Those that are drawn have the `panel` that they are drawn in, and a
    `label` there.
    """

    sizes: Int[np.ndarray, " sizes"]
    values: Float[np.ndarray, "sizes seeds"]
    predicted: float | int | None
    signed: bool = False
    panel: str = ""
    label: str = ""

    def middles(self) -> Float[np.ndarray, " sizes"]:
        """The median of each size, or the mean of a signed quantity."""
        return middle(self.values, self.signed)

    def spreads(self) -> Float[np.ndarray, "2 sizes"]:
        """The quartiles of each size; of a signed quantity the mean -/+ its standard error."""
        if not self.signed:
            # Not by interpolation, which makes NaN of infinities.
            return np.quantile(counted(self.values), (0.25, 0.75), axis=1, method="nearest")
        seeds = self.values.shape[1]
        error = self.values.std(axis=1, ddof=1) / np.sqrt(seeds) if seeds > 1 else np.nan
        return np.stack([self.middles() - error, self.middles() + error])

    def exponent(self, sizes: Integers | None = None) -> Estimate:
        """The fitted power of the size by which the middles change, with a 95% interval.

        Args:
            sizes: Those to fit to; all by default.

        Raises:
            ValueError: When `sizes` are fewer than two, or not among those that were measured.
        """
        chosen = self._chosen(sizes)
        return power_law(self.sizes[chosen], self.values[chosen], signed=self.signed)

    def slopes(self) -> Float[np.ndarray, " gaps"]:
        """The power from each size to the next; NaN where it has no meaning, as in a fit."""
        middles, known = self.middles(), settled(self.values, self.signed)
        with np.errstate(divide="ignore", invalid="ignore"):
            found = np.diff(np.log(np.abs(middles))) / np.diff(np.log(self.sizes))
            alike = known[1:] & known[:-1] & (np.sign(middles[1:]) == np.sign(middles[:-1]))
        return np.where(alike, found, np.nan)

    def growth(self) -> Estimate:
        """The factor from the first to the last size, with a 95% interval."""
        return growth(self.values, signed=self.signed)

    def _chosen(self, sizes: Integers | None) -> Bool[np.ndarray, " sizes"]:
        if sizes is None:
            return np.ones(len(self.sizes), bool)
        wanted = checked_integers("sizes", sizes, 1)
        if len(wanted) < 2 or not set(wanted) <= set(self.sizes.tolist()):
            measured, given = (", ".join(map(str, each)) for each in (self.sizes, wanted))
            raise ValueError(f"`sizes` must be two or more of {measured}, but is {given}.")
        return np.isin(self.sizes, wanted)
