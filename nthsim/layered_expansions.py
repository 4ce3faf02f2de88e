"""A network along a path of parameters, layer by layer."""

from collections.abc import Callable
from math import prod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from nthsim.expansions import AbstractExpansion, Path
from nthsim.layered_paths import AtRest, Forward, layered_path
from nthsim.opened import OpenedNetwork


class LayeredExpansion(AbstractExpansion):
    r"""Outputs and gradients from the series of layer inputs h and of signals $\delta$.

    Each call of a layer returns $z = W h$ and its input receives $W^\top \delta$, products of
    series; the weight's gradient is $\sum_b \delta_b h_b^\top$, another one. Coefficients 0 of z
    are the same at all times, and kept in `rest` where they fit.

    Where outputs are scalars, the residual weighs unit signals at their end. Then coefficients 0
    of $W^\top \delta$ are the same too, and the highest coefficient of f, beyond those of the
    signals, takes no more than one product per layer: `LayeredPath.last_output`. Unit signals of
    vectors would take as many backward passes as outputs; there the outputs come first.
    """

    opened: OpenedNetwork
    rest: AtRest | None
    out_shape: tuple[int, ...] = eqx.field(static=True)
    chunk: int = eqx.field(static=True)

    def batch_outputs(self, path: Path, x: Float[Array, "s ..."]) -> Float[Array, "p s ..."]:
        """Those of the forward pass."""
        f = jnp.stack(self._outputs(path, x, None).f[:-1])
        return f.reshape(*f.shape[:2], *self.out_shape)

    def batch_gradients(
        self,
        path: Path,
        x: Float[Array, "s ..."],
        samples: Int[Array, " s"],
        residual: Callable[[Array], Array],
    ) -> Path:
        """Forward, the residual, backward, and products of the signals, or backward first."""
        batch = lambda a: jax.lax.dynamic_slice_in_dim(a, samples[0], len(samples))  # noqa: E731
        rest = jax.tree.map(batch, self.rest)
        layered = layered_path(self.opened, path, x, rest)
        cotangents = lambda f: residual(f.reshape(-1, *self.out_shape)).reshape(len(x), -1)  # noqa: E731
        if prod(self.out_shape) > 1:
            forward = self._outputs(path, x, rest)
            c = cotangents(sum(forward.f[1:-1], start=forward.f[0]))
            backward = layered.backward(forward, c)
        else:
            forward = layered.forward()
            unit = layered.backward(forward, jnp.ones_like(forward.f[0]))
            lower = [f[:, 0] for f in forward.f[:-1]]
            parts = jnp.stack([*lower, *layered.last_output(forward, unit)])
            # A product, since XLA would redo a chain of sums for every number that c weighs.
            c = cotangents(jnp.ones_like(parts, shape=len(parts)) @ parts)
            backward = unit.weighed(c)
        return tuple(layered.gradients(forward, backward, c))

    def _outputs(self, path: Path, x: Float[Array, "s ..."], rest: AtRest | None) -> Forward:
        """Of a path that goes on, which has as many terms of f, and one more, as those of z."""
        return layered_path(self.opened, (*path, path[-1]), x, rest).forward()
