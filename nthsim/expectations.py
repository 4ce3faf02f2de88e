r"""Gaussian expectations of an activation, which infinite width makes of hidden layers."""

import abc

import equinox as eqx
import numpy as np
from jaxtyping import Float

#: Variances of any shape; those of u, those of v, and the covariances of the two.
Variances = Float[np.ndarray, "..."]
Rows = Float[np.ndarray, " t"]
Columns = Float[np.ndarray, " n"]
Cross = Float[np.ndarray, "t n"]


class AbstractExpectation(eqx.Module):
    r"""Expectations of $\sigma(u)$, $\sigma(v)$ for centred Gaussian u, v of given covariances.

    All in NumPy's float64, whatever JAX's precision is.
    """

    @abc.abstractmethod
    def mean(self, s: Variances) -> Variances:
        r"""$E\,\sigma(u)$ where u has the variance s, entry by entry."""

    @abc.abstractmethod
    def square(self, s: Variances) -> Variances:
        r"""$E\,\sigma(u)^2$ where u has the variance s, entry by entry."""

    @abc.abstractmethod
    def pair(self, rows: Rows, columns: Columns, cross: Cross) -> tuple[Cross, Cross]:
        r"""$E\,\sigma(u)\sigma(v)$ and $E\,\sigma'(u)\sigma'(v)$.

        u has a variance of `rows`, v one of `columns`, and `cross` holds their covariances.
        """


class Erf(AbstractExpectation):
    r"""Those of $\mathrm{erf}$, in closed form (Williams 1997)."""

    def mean(self, s: Variances) -> Variances:
        """None, as erf is odd."""
        return np.zeros_like(s)

    def square(self, s: Variances) -> Variances:
        """By the arcsine."""
        return 2 / np.pi * np.arcsin(2 * s / (1 + 2 * s))

    def pair(self, rows: Rows, columns: Columns, cross: Cross) -> tuple[Cross, Cross]:
        """By the arcsine, and its derivative by the covariance."""
        product = (1 + 2 * rows[:, None]) * (1 + 2 * columns)
        values = 2 / np.pi * np.arcsin(2 * cross / np.sqrt(product))
        return values, 4 / np.pi / np.sqrt(product - 4 * cross**2)


class Relu(AbstractExpectation):
    """Those of relu, the arc-cosine kernels (Cho & Saul 2009)."""

    def mean(self, s: Variances) -> Variances:
        """Half the mean modulus."""
        return np.sqrt(s / (2 * np.pi))

    def square(self, s: Variances) -> Variances:
        """Half the variance."""
        return s / 2

    def pair(self, rows: Rows, columns: Columns, cross: Cross) -> tuple[Cross, Cross]:
        """By the angle between u and v; a variance of zero has none, and counts as orthogonal."""
        root = np.sqrt(rows[:, None] * columns)
        cosine = correlation(rows, columns, cross)
        angle = np.arccos(cosine)
        sine = np.sqrt(1 - cosine**2)
        values = root / (2 * np.pi) * (sine + (np.pi - angle) * cosine)
        return values, (np.pi - angle) / (2 * np.pi)


class Identity(AbstractExpectation):
    """Those of a linear network."""

    def mean(self, s: Variances) -> Variances:
        """None."""
        return np.zeros_like(s)

    def square(self, s: Variances) -> Variances:
        """The variance."""
        return s

    def pair(self, rows: Rows, columns: Columns, cross: Cross) -> tuple[Cross, Cross]:
        """The covariance, and one."""
        del rows, columns
        return cross, np.ones_like(cross)


class Sin(AbstractExpectation):
    """Those of the sine, from the characteristic function of a Gaussian."""

    def mean(self, s: Variances) -> Variances:
        """None, as the sine is odd."""
        return np.zeros_like(s)

    def square(self, s: Variances) -> Variances:
        """Half of what is left of one by the cosine of twice the angle."""
        return -np.expm1(-2 * s) / 2

    def pair(self, rows: Rows, columns: Columns, cross: Cross) -> tuple[Cross, Cross]:
        """By the cosines of difference and sum."""
        both = rows[:, None] + columns
        difference, total = np.exp(cross - both / 2), np.exp(-cross - both / 2)
        return (difference - total) / 2, (difference + total) / 2


def correlation(rows: Rows, columns: Columns, cross: Cross) -> Cross:
    """Covariances over the roots of both variances, within -1 and 1; zero where one of these is."""
    root = np.sqrt(rows[:, None] * columns)
    found = np.divide(cross, root, out=np.zeros_like(cross), where=root > 0)
    return np.clip(found, -1.0, 1.0)
