"""A network along a path of parameters, layer by layer."""

from collections.abc import Callable
from functools import reduce
from operator import add

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from nthsim.expansions import AbstractExpansion, Path
from nthsim.layered_paths import AtRest, LayeredPath, layered_path
from nthsim.opened import OpenedNetwork


class LayeredExpansion(AbstractExpansion):
    r"""Outputs and gradients from the series of layer inputs h and of signals $\delta$.

    Each call of a layer returns $z = W h$ and its input receives $W^\top \delta$, products of
    series; the weight's gradient is $\sum_b \delta_b h_b^\top$, another one. Coefficients 0 of z
    are the same at all times, and kept in `rest` where they fit.

    Where outputs are scalars, signals have `units`: the residual weighs them at their end. Then
    coefficients 0 of $W^\top \delta$ are the same at all times too, and the highest coefficient of
    f, beyond those of the signals, takes no more than one product per layer
    (`LayeredPath.last_output`). Unit signals of vectors would take a backward pass for each of
    their numbers; there the outputs come first.
    """

    opened: OpenedNetwork
    rest: AtRest | None
    out_shape: tuple[int, ...] = eqx.field(static=True)
    units: bool = eqx.field(static=True)
    chunk: int = eqx.field(static=True)

    def batch_outputs(self, path: Path, x: Float[Array, "s ..."]) -> Float[Array, "p s ..."]:
        """Those of the forward pass."""
        f = jnp.stack(layered_path(self.opened, path, x).forward(len(path)).f)
        return f.reshape(*f.shape[:2], *self.out_shape)

    def batch_gradients(
        self,
        path: Path,
        x: Float[Array, "s ..."],
        samples: Int[Array, " s"],
        residual: Callable[[Array], Array],
    ) -> Path:
        """Products of the signals."""
        batch = lambda a: jax.lax.dynamic_slice_in_dim(a, samples[0], len(samples))  # noqa: E731
        layered = layered_path(self.opened, path, x, jax.tree.map(batch, self.rest))
        by_units = _gradients_by_units if self.units else _gradients_of_vectors
        shaped = lambda f: f.reshape(len(x), *self.out_shape)  # noqa: E731
        return by_units(layered, len(path), lambda f: residual(shaped(f)).reshape(len(x), -1))


def _gradients_by_units(
    layered: LayeredPath, p: int, residual: Callable[[Array], Float[Array, "s 1"]]
) -> Path:
    """Backward first."""
    forward = layered.forward(p - 1, beyond=True)
    unit = layered.backward(forward, p - 1)
    last = layered.last_output(forward, unit)
    parts = jnp.stack([*(f[:, 0] for f in forward.f[:-1]), *last])
    # A product, since XLA would redo a chain of sums for every number that c weighs.
    c = residual(jnp.ones_like(parts, shape=len(parts)) @ parts)
    return layered.gradients(forward, unit.weighed(c), c)


def _gradients_of_vectors(
    layered: LayeredPath, p: int, residual: Callable[[Array], Float[Array, "s k"]]
) -> Path:
    """The outputs first."""
    forward = layered.forward(p)
    c = residual(reduce(add, forward.f))
    return layered.gradients(forward, layered.backward(forward, p - 1, c), c)
