r"""Gaussian expectations of any activation, by its expansion in Hermite polynomials."""

import functools
import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nthsim.expectations import (
    AbstractExpectation,
    Columns,
    Cross,
    Rows,
    Variances,
    correlation,
)
from nthsim.models.activation import gauss_legendre
from nthsim.solvers.compiled import compiled

#: Terms of the expansion at most; those below `NEGLIGIBLE` of the whole at its end are left out.
TERMS, NEGLIGIBLE = 512, 1e-18

#: The quadrature that the coefficients are computed by; 32 nodes between neighbouring integers
#: resolve polynomials of degree 512, which have 7 zeros there.
NODES, WEIGHTS = gauss_legendre(bound=12, order=32)

#: What may be missing of an expectation, relative to the largest that it could be, without a
#: warning; and how near to one the correlation of identical points is.
MISSING, ROUNDING = 1e-8, 1e-14

#: Entries of a block whose powers are summed at once, about as many as a processor's cache holds.
BLOCK = 2**14


#: Values at the nodes for each of some variances.
Nodes = Float[np.ndarray, "... nodes"]


class SlowDecayWarning(UserWarning):
    """The Hermite coefficients of an activation, or of its derivative, decay too slowly."""


class Hermite(AbstractExpectation):
    r"""Those of any activation, by Mehler's formula.

    With $a_k(s) = E\,\sigma(\sqrt s z)\,\mathrm{he}_k(z)$, $\mathrm{he}_k$ the normalised
    polynomials and $\rho$ the correlation of u and v,
    $E\,\sigma(u)\sigma(v) = \sum_k a_k(s_u)\, a_k(s_v)\, \rho^k$. What K terms leave out is at most
    $|\rho|^K \sqrt{T_u T_v}$ with $T = E\,\sigma^2 - \sum_k a_k^2$; where $\rho > 0$ that much is
    added, which is exact for identical points. The derivative is JAX's.

    Warns:
        SlowDecayWarning: When that is more than 1e-8 of $\sqrt{E\,\sigma(u)^2\, E\,\sigma(v)^2}$.
    """

    activation: Callable[..., Array]

    def mean(self, s: Variances) -> Variances:
        """By quadrature."""
        return _values(self.activation, s)[0] @ WEIGHTS

    def square(self, s: Variances) -> Variances:
        """By quadrature."""
        return _values(self.activation, s)[0] ** 2 @ WEIGHTS

    def pair(self, rows: Rows, columns: Columns, cross: Cross) -> tuple[Cross, Cross]:
        """By the expansion of the activation and that of its derivative."""
        rho = correlation(rows, columns, cross)
        left, right = (_values(self.activation, s) for s in (rows, columns))
        values = _expanded(left[0], right[0], rho, "the activation")
        return values, _expanded(left[1], right[1], rho, "the derivative")


def _values(activation: Callable[..., Array], s: Variances) -> tuple[Nodes, Nodes]:
    """The activation and its derivative at the nodes of the quadrature for each variance."""
    with jax.enable_x64(True):
        values, slopes = _evaluated(activation, jnp.asarray(np.sqrt(s)[..., None] * NODES))
        return np.asarray(values), np.asarray(slopes)


@compiled
def _evaluated(activation: Callable[..., Array], z: Array) -> tuple[Array, Array]:
    return activation(z), jax.grad(lambda z: jnp.sum(activation(z)))(z)


def _expanded(left: Nodes, right: Nodes, rho: Cross, name: str) -> Cross:
    """From a function's values at the nodes for rows and for columns."""
    (a, rest_a, whole_a), (b, rest_b, whole_b) = _coefficients(left), _coefficients(right)
    used = max(_used(a, whole_a), _used(b, whole_b))
    tail = np.abs(rho) ** used * np.sqrt(rest_a[:, None] * rest_b)
    largest = np.sqrt(whole_a[:, None] * whole_b)
    # Identical points miss nothing: what is added to them is all that there is.
    doubtful = (rho < 1 - ROUNDING) & (largest > 0)
    doubt = np.divide(tail, largest, out=np.zeros_like(tail), where=doubtful).max()
    if doubt > MISSING:
        warnings.warn(
            "`activation` has Hermite coefficients that decay slowly: expectations of "
            f"{name} are off by up to {doubt:.1e} of their size for inputs as nearly parallel as "
            "these.",
            SlowDecayWarning,
            stacklevel=2,
        )
    return _summed(a[:, :used], b[:, :used], rho) + np.where(rho > 0, tail, 0.0)


def _coefficients(
    values: Nodes,
) -> tuple[Float[np.ndarray, "n K"], Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    r"""$a_k(s)$, what their squares leave of $E\,\sigma^2$, and that."""
    a = values @ _weighted_polynomials()
    whole = values**2 @ WEIGHTS
    return a, np.maximum(whole - np.sum(a**2, axis=1), 0.0), whole


@functools.cache
def _weighted_polynomials() -> Float[np.ndarray, "nodes K"]:
    """The normalised Hermite polynomials at the nodes, times their weights."""
    found = np.empty((TERMS, len(NODES)))
    found[0], found[1] = 1.0, NODES
    for k in range(1, TERMS - 1):
        found[k + 1] = (NODES * found[k] - np.sqrt(k) * found[k - 1]) / np.sqrt(k + 1)
    return np.ascontiguousarray((found * WEIGHTS).T)


def _used(a: Float[np.ndarray, "n K"], whole: Float[np.ndarray, " n"]) -> int:
    """How many terms count for any of the variances."""
    counts = (a**2 > NEGLIGIBLE * whole[:, None]).any(axis=0)
    return int(np.max(np.flatnonzero(counts), initial=0)) + 1


def _summed(a: Float[np.ndarray, "t K"], b: Float[np.ndarray, "n K"], rho: Cross) -> Cross:
    r"""$\sum_k a_k b_k \rho^k$ by Horner's rule, in blocks of rows."""
    total = np.zeros_like(rho)
    height = max(1, BLOCK // rho.shape[1])
    columns = np.ascontiguousarray(b.T)
    for start in range(0, len(rho), height):
        part = slice(start, start + height)
        block, power = total[part], rho[part]
        for k in reversed(range(len(columns))):
            block *= power
            block += a[part, k, None] * columns[k]
    return total
