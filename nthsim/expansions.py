"""A network along a path of parameters, Taylor coefficient by Taylor coefficient."""

from collections.abc import Callable
from math import ceil

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from nthsim.blocks import CHUNK_BYTES
from nthsim.network import AbstractNetwork
from nthsim.series import coefficients, obstacle

Path = tuple[PyTree[Array], ...]

#: Beyond this many nested derivatives memory is as good as infinite.
MOST_NESTED = 100


class Expansion(eqx.Module):
    r"""Outputs and gradients along $\theta(\epsilon) = \sum_j \epsilon^j \theta_j$.

    At most `chunk` inputs are evaluated together, so memory does not grow with their number.
    `obstacle` says what kept Taylor arithmetic away, in which case derivatives are nested, else
    None. Built by `expansion`.
    """

    network: AbstractNetwork
    chunk: int = eqx.field(static=True)
    obstacle: str | None = eqx.field(static=True)

    def outputs(self, path: Path, x: Float[Array, "n ..."]) -> Float[Array, "p N"]:
        r"""$[\epsilon^j] f$ for j = 0..p-1, outputs of a sample side by side."""
        each = lambda one: self._batch(path, one[None])[:, 0]  # noqa: E731
        found = jax.lax.map(each, x, batch_size=min(self.chunk, len(x)))
        return jnp.moveaxis(found, 1, 0).reshape(len(path), -1)

    def gradients(
        self, path: Path, x: Float[Array, "n ..."], residual: Callable[..., Array]
    ) -> Path:
        r"""$[\epsilon^j] \sum_b c_b \nabla f_b$ for j = 0..p-2, with c that of the summed outputs.

        A sample's residual is known from its own outputs, so every sample is visited once.
        """
        n = len(x)
        calls = ceil(n / self.chunk)
        size = ceil(n / calls)

        def part(call: Array) -> Path:
            start = jnp.minimum(call * size, n - size)
            samples = start + jnp.arange(size)
            fresh = samples >= call * size  # the last chunk is moved back to fit
            batch = jax.lax.dynamic_slice_in_dim(x, start, size)
            f = jnp.sum(self._batch(path, batch), axis=0)
            c = residual(f, samples)
            c = jnp.where(fresh.reshape(-1, *(1,) * (f.ndim - 1)), c, jnp.zeros_like(c))
            pulled = lambda at: jax.vjp(lambda t: self.network(t, batch), at)[1](c)[0]  # noqa: E731
            return tuple(coefficients(pulled, path[:-1], nested=self._nested(path)))

        def add(total: Path, call: Array) -> tuple[Path, None]:
            return jax.tree.map(jnp.add, total, part(call)), None

        if calls == 1:
            return part(jnp.array(0))
        none = jax.tree.map(jnp.zeros_like, path[:-1])
        return jax.lax.scan(add, none, jnp.arange(calls))[0]

    def _batch(self, path: Path, x: Array) -> Float[Array, "p s ..."]:
        network = lambda at: self.network(at, x)  # noqa: E731
        return jnp.stack(coefficients(network, path, nested=self._nested(path)))

    def _nested(self, path: Path) -> bool:
        # Two terms take one derivative, whose evaluation XLA merges with that of the gradient.
        return self.obstacle is not None or len(path) == 2


def expansion(
    network: AbstractNetwork,
    theta: PyTree[Array],
    x: Float[Array, "n ..."],
    terms: int,
    *,
    chunk_bytes: int = CHUNK_BYTES,
) -> Expansion:
    """Find the road for a network, and how many inputs a path of so many terms lets through."""
    reason = taylor_obstacle(network, theta, x)
    written = network.work(theta, x).written
    numbers = expanded_numbers(written, terms, nested=reason is not None)
    chunk = max(1, chunk_bytes // (numbers * x.dtype.itemsize))
    return Expansion(network.expandable(), min(chunk, len(x)), reason)


def taylor_obstacle(network: AbstractNetwork, theta: PyTree[Array], x: Array) -> str | None:
    """What keeps Taylor arithmetic from a network and its gradient; nothing is computed."""
    network, one = network.expandable(), x[:1]

    def both(at: PyTree[Array]) -> tuple[PyTree, PyTree]:
        f = network(at, one)  # by itself too: differentiated, it is made of other operations
        return f, jax.vjp(lambda theta: network(theta, one), at)[1](f)

    return obstacle(both, theta)


def expanded_numbers(written: int, terms: int, *, nested: bool) -> int:
    """How many numbers one input takes, when an evaluation writes `written`."""
    return written * (2 ** min(terms + 1, MOST_NESTED) if nested else terms)
