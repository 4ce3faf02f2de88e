r"""Gaussian expectations of an activation, which infinite width makes of hidden layers."""

import abc
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

#: Variances of any shape; those of u, those of v, and the covariances of the two.
Variances = Float[np.ndarray | Array, "..."]
Rows = Float[np.ndarray | Array, " t"]
Columns = Float[np.ndarray | Array, " n"]
Cross = Float[np.ndarray | Array, "t n"]


class AbstractExpectation(eqx.Module):
    r"""Expectations of $\sigma(u)$, $\sigma(v)$ for centred Gaussian u, v of given covariances.

    NumPy's arrays are worked with in NumPy, in float64 whatever JAX's precision is; JAX's, which
    are traced ones here, in JAX.
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
        """Zero, as erf is odd."""
        return namespace(s).zeros_like(s)

    def square(self, s: Variances) -> Variances:
        """By the arcsine."""
        return 2 / np.pi * namespace(s).arcsin(2 * s / (1 + 2 * s))

    def pair(self, rows: Rows, columns: Columns, cross: Cross) -> tuple[Cross, Cross]:
        """By the arcsine, and its derivative by the covariance."""
        xp = namespace(cross)
        product = (1 + 2 * rows[:, None]) * (1 + 2 * columns[None])
        values = 2 / np.pi * xp.arcsin(2 * cross / xp.sqrt(product))
        return values, 4 / np.pi / xp.sqrt(product - 4 * cross**2)


class Relu(AbstractExpectation):
    """Those of relu, the arc-cosine kernels (Cho & Saul 2009)."""

    def mean(self, s: Variances) -> Variances:
        """Half the mean modulus."""
        return namespace(s).sqrt(s / (2 * np.pi))

    def square(self, s: Variances) -> Variances:
        """Half the variance."""
        return s / 2

    def pair(self, rows: Rows, columns: Columns, cross: Cross) -> tuple[Cross, Cross]:
        """By the angle between u and v; a variance of zero has none, and counts as orthogonal.

        Up to rounding, an angle of nothing stays that: its derivative between a point and itself is
        zero, and has no value between others.
        """
        xp = namespace(cross)
        root = xp.sqrt(rows[:, None] * columns[None])
        cosine = correlation(rows, columns, cross)
        between = xp.abs(cosine) < 1 - 4 * float(xp.finfo(cosine.dtype).eps)
        inner = xp.where(between, cosine, 0)  # else zero times infinity is in the derivative
        angle = xp.where(between, xp.arccos(inner), xp.where(cosine > 0, 0, np.pi))
        sine = xp.where(between, xp.sqrt(1 - inner**2), 0)
        values = root / (2 * np.pi) * (sine + (np.pi - angle) * cosine)
        return values, (np.pi - angle) / (2 * np.pi)


class Identity(AbstractExpectation):
    """Those of a linear network."""

    def mean(self, s: Variances) -> Variances:
        """Zero."""
        return namespace(s).zeros_like(s)

    def square(self, s: Variances) -> Variances:
        """The variance."""
        return s

    def pair(self, rows: Rows, columns: Columns, cross: Cross) -> tuple[Cross, Cross]:
        """The covariance, and one."""
        del rows, columns
        return cross, namespace(cross).ones_like(cross)


class Sin(AbstractExpectation):
    """Those of the sine, from the characteristic function of a Gaussian."""

    def mean(self, s: Variances) -> Variances:
        """Zero, as the sine is odd."""
        return namespace(s).zeros_like(s)

    def square(self, s: Variances) -> Variances:
        """Half of what is left of one by the cosine of twice the angle."""
        return -namespace(s).expm1(-2 * s) / 2

    def pair(self, rows: Rows, columns: Columns, cross: Cross) -> tuple[Cross, Cross]:
        """By the cosines of difference and sum."""
        xp = namespace(cross)
        both = rows[:, None] + columns[None]
        difference, total = xp.exp(cross - both / 2), xp.exp(-cross - both / 2)
        return (difference - total) / 2, (difference + total) / 2


def correlation(rows: Rows, columns: Columns, cross: Cross) -> Cross:
    """Covariances over the roots of both variances, within -1 and 1; zero where one of these is."""
    xp = namespace(cross)
    root = xp.sqrt(rows[:, None] * columns[None])
    found = xp.where(root > 0, cross, 0) / xp.where(root > 0, root, 1)
    return xp.clip(found, -1.0, 1.0)


def namespace(array: Variances) -> Any:
    """The functions that an array is worked with: those of NumPy, or those of JAX."""
    return array.__array_namespace__()
