r"""Gaussian expectations of any activation, by its expansion in Hermite polynomials."""

import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nthsim.kernels.expectations import (
    AbstractExpectation,
    Columns,
    Cross,
    Rows,
    Variances,
    correlation,
    namespace,
)
from nthsim.models.activation import (
    PIECES,
    allowed,
    check_elementwise,
    gauss_legendre,
    kinks,
)
from nthsim.network.function_contents import described
from nthsim.network.program import program
from nthsim.solvers.compiled import compiled

#: Terms of the expansion at most; those below `NEGLIGIBLE` of the whole at its end are left out.
TERMS, NEGLIGIBLE = 512, 1e-18

#: The quadrature that the coefficients are computed by; 32 nodes between neighbouring integers
#: resolve polynomials of degree 512, which have 7 zeros there.
BOUND, ORDER = 12, 32
NODES, WEIGHTS = gauss_legendre(BOUND, ORDER)

#: Beyond this standard deviation, panels between integers are too wide for an activation, whose own
#: scale is one: further panels double from there on. Traced variances, which nobody knows, have so
#: many of these, enough for standard deviations up to a million.
WIDE, DOUBLINGS = 8.0, 24

#: What of a moment may lie beyond `EDGE` standard deviations, the last before the nodes end, so
#: that far less lies behind them than `MISSING`; of moments that nothing comes of, all.
EDGE, BEYOND, NOTHING = 11, 1e-9, 1e-20

#: What may be missing of an expectation, relative to the largest that it could be, without a
#: warning; and how near to one the correlation of identical points is.
MISSING, ROUNDING = 1e-8, 1e-14

#: Of so many variances, the smallest and the largest among them, moments are looked at.
LOOKED_AT = 9

#: Entries of a block whose powers are summed at once, about as many as a processor's cache holds.
BLOCK = 2**14


#: Values at the nodes for each of some variances.
Nodes = Float[np.ndarray | Array, "... nodes"]

#: The coefficients of each.
Terms = Float[np.ndarray | Array, "_ K"]


class Coefficients(NamedTuple):
    r"""$a_k(s)$, the root of what their squares leave of $E\,\sigma^2$, and that."""

    terms: Terms
    rest: Variances
    whole: Variances


class SlowDecayWarning(UserWarning):
    """The Hermite coefficients of an activation, or of its derivative, decay too slowly."""


class Hermite(AbstractExpectation):
    r"""Those of any activation, by Mehler's formula.

    With $a_k(s) = E\,\sigma(\sqrt s z)\,\mathrm{he}_k(z)$, $\mathrm{he}_k$ the normalised
    polynomials and $\rho$ the correlation of u and v,
    $E\,\sigma(u)\sigma(v) = \sum_k a_k(s_u)\, a_k(s_v)\, \rho^k$. What K terms leave out is at most
    $|\rho|^K \sqrt{T_u T_v}$ with $T = E\,\sigma^2 - \sum_k a_k^2$; where $\rho > 0$ that much is
    added, which is exact for identical points. The derivative is JAX's.

    Of traced arrays, whose values nobody knows, all terms are taken and nothing is told.

    Warns:
        SlowDecayWarning: When that is more than 1e-8 of $\sqrt{E\,\sigma(u)^2\, E\,\sigma(v)^2}$.
    """

    activation: Callable[..., Array]
    kinks: tuple[float, ...] = eqx.field(static=True)
    program: str = eqx.field(static=True)

    @staticmethod
    def of(activation: Callable[..., Array]) -> "Hermite":
        """Those of an activation as it is now: it may read what changes.

        Raises:
            ValueError: When it does not act elementwise.
        """
        check_elementwise(activation)
        one = jax.ShapeDtypeStruct((), jnp.result_type(float))
        return Hermite(activation, kinks(activation), program(activation, one).digest(described))

    def mean(self, s: Variances) -> Variances:
        """By quadrature."""
        sample, values, _ = _sampled(self, s)
        return sample.mean(values)

    def square(self, s: Variances) -> Variances:
        """By quadrature."""
        sample, values, _ = _sampled(self, s)
        return sample.mean(values**2)

    def pair(self, rows: Rows, columns: Columns, cross: Cross) -> tuple[Cross, Cross]:
        """By the expansion of the activation and that of its derivative."""
        rho = correlation(rows, columns, cross)
        left, f, df = _sampled(self, rows)
        right, g, dg = _sampled(self, columns)
        values = _expanded(left.coefficients(f), right.coefficients(g), rho, "the activation")
        left, right = left.coefficients(df), right.coefficients(dg)
        return values, _expanded(left, right, rho, "the derivative")


class Sample(NamedTuple):
    """Standard normal numbers, the same for all variances or others for each, and weights."""

    nodes: Nodes
    weights: Nodes

    def mean(self, values: Nodes) -> Variances:
        """The expectation of what has these values at the nodes."""
        return namespace(values).sum(values * self.weights, axis=-1)

    def coefficients(self, values: Nodes) -> Coefficients:
        """Those of what has these values at the nodes."""
        xp = namespace(values)
        if self.nodes.shape[-1] == len(NODES):
            a = values @ xp.asarray(_weighted_polynomials(), dtype=values.dtype)
        elif xp is np:
            a = np.empty((len(values), TERMS))
            for k, he in enumerate(_polynomials(self.nodes)):
                a[:, k] = np.sum(he * self.weights * values, axis=-1)
        else:
            a = _followed_polynomials(jnp.asarray(self.nodes), jnp.asarray(self.weights * values))
        whole = self.mean(values**2)
        rest = whole - xp.sum(a**2, axis=1)
        some = rest > 0
        return Coefficients(a, xp.where(some, xp.sqrt(xp.where(some, rest, 1)), 0), whole)


def _sampled(expectation: Hermite, s: Variances) -> tuple[Sample, Nodes, Nodes]:
    """Nodes for each variance, as close as they must be, the activation and its slopes there.

    Raises:
        ValueError: When no number of nodes settles the moments of either, or they are not finite or
            lie where there are no nodes.
    """
    if isinstance(s, jax.Array):
        return _at_nodes(expectation, s, 1)
    some = np.quantile(s, np.linspace(0, 1, LOOKED_AT))
    before = _at_nodes(expectation, some, 1)
    _check_ends(before, some)
    for pieces in PIECES[1:]:
        after = _at_nodes(expectation, some, pieces)
        if _settled(before, after):
            return _at_nodes(expectation, s, pieces // 2)
        before = after
    raise ValueError(
        "`activation` must have moments that quadrature settles, but they still change between "
        f"{ORDER * PIECES[-2]} and {ORDER * PIECES[-1]} nodes to a standard deviation."
    )


def _check_ends(found: tuple[Sample, Nodes, Nodes], s: Variances) -> None:
    """Refuse moments that are not finite, or of which too much lies at the ends."""
    sample, *values = found
    outer = np.where(np.abs(sample.nodes) > EDGE, sample.weights, 0)
    for each in values:
        with np.errstate(over="ignore", invalid="ignore"):
            whole, beyond = (np.sum(w * each**2, axis=-1) for w in (sample.weights, outer))
            wrong = ~(beyond <= BEYOND * whole + NOTHING)
        if wrong.any():
            largest = float(np.sqrt(np.max(s[wrong])))
            raise ValueError(
                "`activation` must have moments that are finite and within "
                f"{EDGE} standard deviations, but they or those of its derivative are not where "
                f"what it takes has the standard deviation {largest:.3g}."
            )


def _settled(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Whether second moments are the same for both, where they are finite."""
    pairs = zip(one[1:], other[1:], strict=True)
    moments = [(one[0].mean(a**2), other[0].mean(b**2)) for a, b in pairs]
    part = allowed(other[1].dtype)
    return all(np.all(~np.isfinite(a - b) | (np.abs(a - b) <= part * b)) for a, b in moments)


def _at_nodes(expectation: Hermite, s: Variances, pieces: int) -> tuple[Sample, Nodes, Nodes]:
    xp, traced = namespace(s), isinstance(s, jax.Array)
    # Panels end at zero.
    others = np.array([z for z in expectation.kinks if z != 0])
    root = xp.sqrt(xp.where(s > 0, s, 1))[..., None]
    others = np.concatenate([others, _scales(None if traced else float(np.max(root)), pieces)])
    breaks = others.reshape(*[1] * s.ndim, -1) / root if len(others) else None
    nodes, weights = NODES, WEIGHTS
    if pieces > 1 or breaks is not None:
        nodes, weights = gauss_legendre(BOUND, ORDER, breaks, pieces=pieces)
    if breaks is None:
        nodes, weights = (each.reshape(*[1] * s.ndim, -1) for each in (nodes, weights))
    sample = Sample(xp.asarray(nodes, dtype=s.dtype), xp.asarray(weights, dtype=s.dtype))
    z = xp.sqrt(s)[..., None] * sample.nodes
    if traced:
        return sample, *_evaluated(expectation, z)
    with jax.enable_x64(True):
        values, slopes = _evaluated(expectation, jnp.asarray(z))
        return sample, np.asarray(values), np.asarray(slopes)


def _scales(widest: float | None, pieces: int) -> Float[np.ndarray, " ends"]:
    """Ends of panels that double from an activation's own scale on, each cut into `pieces`."""
    if widest is None:
        doublings = DOUBLINGS
    elif widest <= WIDE:
        return np.zeros(0)
    else:
        doublings = int(np.ceil(np.log2(BOUND * widest * pieces)))
    parts = 2.0 ** np.arange(doublings)[:, None] * (1 + np.arange(pieces) / pieces) / pieces
    return np.concatenate([-parts.ravel(), parts.ravel()])


@compiled
def _evaluated(expectation: Hermite, z: Array) -> tuple[Array, Array]:
    activation = expectation.activation
    return activation(z), jax.grad(lambda z: jnp.sum(activation(z)))(z)


def _expanded(left: Coefficients, right: Coefficients, rho: Cross, name: str) -> Cross:
    """From a function's coefficients for rows and for columns."""
    (a, rest_a, whole_a), (b, rest_b, whole_b) = left, right
    traced = isinstance(rho, jax.Array)
    used = TERMS if traced else max(_used(a, whole_a), _used(b, whole_b))
    tail = abs(rho) ** used * rest_a[:, None] * rest_b[None]
    if not traced:
        _tell(tail, np.sqrt(whole_a[:, None] * whole_b), rho, name)
    total = _followed(a, b, rho) if traced else _summed(a[:, :used], b[:, :used], rho)
    return total + namespace(rho).where(rho > 0, tail, 0)


def _tell(tail: Cross, largest: Cross, rho: Cross, name: str) -> None:
    """Warn of what is missing."""
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


@functools.cache
def _weighted_polynomials() -> Float[np.ndarray, "nodes K"]:
    """The normalised Hermite polynomials at the common nodes, times their weights."""
    return np.stack([he * WEIGHTS for he in _polynomials(NODES)], axis=1)


def _polynomials(nodes: Nodes) -> Iterator[Nodes]:
    """The normalised Hermite polynomials one by one."""
    before, he = np.zeros_like(nodes), np.ones_like(nodes)
    for k in range(TERMS):
        yield he
        before, he = he, (nodes * he - np.sqrt(k) * before) / np.sqrt(k + 1)


def _followed_polynomials(nodes: Array, weighted: Array) -> Array:
    """The sums over all nodes of each polynomial times what is weighted, of traced arrays."""

    def step(last: tuple[Array, Array], k: Array) -> tuple[tuple[Array, Array], Array]:
        before, he = last
        after = (nodes * he - jnp.sqrt(k) * before) / jnp.sqrt(k + 1)
        return (he, after), jnp.sum(he * weighted, axis=-1)

    start = jnp.zeros_like(nodes), jnp.ones_like(nodes)
    return jax.lax.scan(step, start, jnp.arange(TERMS, dtype=nodes.dtype))[1].T


def _used(a: Terms, whole: Variances) -> int:
    """How many terms count for any of the variances."""
    counts = (a**2 > NEGLIGIBLE * whole[:, None]).any(axis=0)
    return int(np.max(np.flatnonzero(counts), initial=0)) + 1


def _summed(a: Terms, b: Terms, rho: Cross) -> Cross:
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


def _followed(a: Terms, b: Terms, rho: Cross) -> Array:
    """The same of traced arrays."""

    def step(total: Array, terms: tuple[Array, Array]) -> tuple[Array, None]:
        left, right = terms
        return total * rho + left[:, None] * right[None], None

    return jax.lax.scan(
        step, jnp.zeros_like(rho), (jnp.asarray(a.T), jnp.asarray(b.T)), reverse=True
    )[0]
