"""One number for each network of a family, and how it changes with their size."""

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from nthsim.exponents import Estimate, counted, growth, power_law


class Quantity(eqx.Module):
    """A number for each network: `values` by size, then by seed; what blew up is NaN.

    `predicted` is the power of the width by which it is predicted to change. Of a `signed` one the
    mean over seeds is looked at, of all others the median, in which what blew up is infinite.
    """

    sizes: Int[np.ndarray, " sizes"]
    values: Float[np.ndarray, "sizes seeds"]
    predicted: int
    signed: bool = False

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
