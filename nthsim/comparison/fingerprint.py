"""What the functions of a training compute at a few places, by which they are known again."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float, PyTree

from nthsim.dynamics.problem import Problem
from nthsim.inputs.loss import Residual
from nthsim.network.network import AbstractNetwork, precision
from nthsim.network.regulariser import Penalty
from nthsim.solvers.compiled import compiled

#: Parameters are moved away from where they start by so many times the size of each array.
ASIDE = (0.0, 0.1, -0.3, 1.0, -3.0)

#: Outputs are so many times as large as the largest target, or as one.
SIZES = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)

#: Values of samples are added in so many groups.
GROUPS = 64

#: Patterns repeat after so many numbers, whose squares are exact in float32.
PERIOD = 997

#: Numbers by place; None stands for those that are not finite.
Rows = tuple[tuple[float | None, ...], ...]


def _tuples(rows: Any) -> Rows | None:
    """Rows that a file held as lists."""
    return None if rows is None else tuple(map(tuple, rows))


class Fingerprint(eqx.Module):
    """Values and slopes of a model, a loss and a regulariser at places that are always the same.

    At each place a row of values, which groups of samples have together, and then for each place
    one slope in a fixed direction; None for a function that is unknown here, or that there is not.
    `eps` is that of the precision.
    """

    eps: float
    model: Rows | None = eqx.field(default=None, converter=_tuples)
    loss: Rows | None = eqx.field(default=None, converter=_tuples)
    regulariser: Rows | None = eqx.field(default=None, converter=_tuples)

    def changed(self, other: "Fingerprint") -> list[str]:
        """Which functions compute something else there, of those that both know."""
        found = []
        for name in ("model", "loss", "regulariser"):
            own, others = getattr(self, name), getattr(other, name)
            if not (own is None or others is None or _alike(own, others, np.sqrt(self.eps))):
                found.append(name)
        return found

    @classmethod
    def of(
        cls,
        dtype: DTypeLike,
        model: tuple[AbstractNetwork, PyTree[Array], Array] | None,
        residual: Residual | None,
        added: Penalty | None,
        *,
        y_test: Array | None,
    ) -> "Fingerprint":
        """That of a network with its parameters and inputs, of a loss and of a penalty."""
        if residual is not None and y_test is not None:
            residual = dataclasses.replace(residual, y=jnp.concatenate([residual.y, y_test]))
        try:
            found = _numbers(model, residual, added, ASIDE)
        except Exception:  # of a stranger's module that refuses to be elsewhere
            found = _numbers(model, residual, added, ASIDE[:1])
        rows = {name: _rows(*part) for name, part in found.items()}
        return cls(eps=float(jnp.finfo(dtype).eps), **rows)


def fingerprint(problem: Problem) -> Fingerprint:
    """That of all that a training is made of."""
    model = problem.network, problem.theta, problem.x_first
    parts = problem.residual, problem.penalty
    return Fingerprint.of(problem.dtype, model, *parts, y_test=problem.y_test)


@compiled
def _numbers(
    model: tuple[AbstractNetwork, PyTree[Array], Array] | None,
    residual: Residual | None,
    added: Penalty | None,
    aside: tuple[float, ...],
) -> dict[str, tuple[Float[Array, "places values"], Float[Array, " places"]]]:
    """Values and slopes of each function at each place."""
    found = {}
    if model is not None:
        network, theta, x = model
        outputs = lambda theta: _grouped(network(theta, x))  # noqa: E731
        found["model"] = _along(outputs, theta, aside)
    if residual is not None:
        shape = len(residual.y), *residual.out_shape
        reach = jnp.maximum(1.0, jnp.max(jnp.abs(residual.y)))
        pattern = _pattern(jnp.zeros(shape, residual.y.dtype))
        losses = lambda f: _grouped(jax.vmap(residual.loss)(f, residual.y))  # noqa: E731
        found["loss"] = _at(losses, lambda size: size * reach * pattern, SIZES, pattern.dtype)
    if added is not None:
        assert model is not None  # of whose parameters it is a function
        found["regulariser"] = _along(lambda theta: added(theta)[None], model[1], aside)
    return found


def _along(
    function: Callable[[PyTree[Array]], Float[Array, " values"]],
    theta: PyTree[Array],
    aside: tuple[float, ...],
) -> tuple[Float[Array, "places values"], Float[Array, " places"]]:
    """Values and slopes where parameters are moved aside."""
    size = lambda a: jnp.sqrt(jnp.mean(a * a))  # noqa: E731
    place = lambda s: jax.tree.map(lambda a: a + s * size(a) * _pattern(a), theta)  # noqa: E731
    return _at(function, place, aside, precision(theta))


def _at(
    function: Callable[[Any], Float[Array, " values"]],
    place: Callable[[Float[Array, ""]], Any],
    places: tuple[float, ...],
    dtype: DTypeLike,
) -> tuple[Float[Array, "places values"], Float[Array, " places"]]:
    """Values, and the derivative of a sum of these that has nothing to do with them, backwards."""

    def both(s: Float[Array, ""]) -> tuple[Array, Array]:
        values, pull = jax.vjp(function, place(s))
        (gradient,) = pull(_pattern(values))
        slopes = jax.tree.map(lambda g: jnp.sum(g * _pattern(g)), gradient)
        return values, sum(jax.tree.leaves(slopes), start=jnp.zeros((), dtype))

    return jax.lax.map(both, jnp.asarray(places, dtype))


def _grouped(values: Float[Array, "n ..."]) -> Float[Array, " groups"]:
    """Weighed sums over groups of samples, and over all that each has."""
    weighed = (values * (1.5 + _pattern(values))).reshape(len(values), -1).sum(axis=1)
    rest = -len(values) % min(GROUPS, len(values))
    return jnp.pad(weighed, (0, rest)).reshape(-1, min(GROUPS, len(values))).sum(axis=0)


def _pattern(like: Array) -> Array:
    """Numbers of size one, of which no two are in a simple relation."""
    places = (jnp.arange(like.size) % PERIOD).astype(jnp.float32)
    return jnp.cos(1.0 + places**2).astype(like.dtype).reshape(like.shape)


def _rows(values: Array, slopes: Array) -> Rows:
    """Both as files can hold them."""
    rows = [*np.asarray(values, float), *np.asarray(slopes, float)[:, None]]
    return tuple(tuple(float(v) if np.isfinite(v) else None for v in row) for row in rows)


def _alike(rows: Rows, others: Rows, tolerance: float) -> bool:
    """Whether numbers differ by no more than rounding lets them, on another device too."""
    if [len(row) for row in rows] != [len(row) for row in others]:
        return False
    for row, other in zip(rows, others, strict=True):
        one, two = np.array(row, float), np.array(other, float)
        scale = np.nanmax(np.abs(one), initial=0.0)
        if not np.allclose(one, two, rtol=0.0, atol=tolerance * scale, equal_nan=True):
            return False
    return True
