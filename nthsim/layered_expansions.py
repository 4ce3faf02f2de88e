"""A network of scalar outputs along a path of parameters, layer by layer."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from nthsim.expansions import AbstractExpansion, Path
from nthsim.layered_paths import AtRest, layered_path
from nthsim.opened import OpenedNetwork


class LayeredExpansion(AbstractExpansion):
    r"""Outputs and gradients from the series of layer inputs h and of unit signals $\delta$.

    Each call of a layer returns $z = W h$ and its input receives $W^\top \delta$, products of
    series; the weight's gradient is $\sum_b c_b \delta_b h_b^\top$, another one. That is less work
    than Taylor arithmetic all through a backward pass, since

    * the residual c weighs unit signals at their end, so that coefficients 0 of z and of
      $W^\top \delta$ are the same at all times, and kept in `rest` where they fit;
    * the highest coefficient of f, beyond those of the signals, follows from the adjoint with one
      product per layer: `nthsim.layered_paths.LayeredPath.last_output`.

    A path of p terms takes $(p-2)(p+1) + p(p-1)/2 + 1$ products per layer, and two more without
    `rest`; a gradient takes three.
    """

    opened: OpenedNetwork
    rest: AtRest | None
    out_shape: tuple[int, ...] = eqx.field(static=True)
    chunk: int = eqx.field(static=True)

    def batch_outputs(self, path: Path, x: Float[Array, "s ..."]) -> Float[Array, "p s ..."]:
        """Those of a path that goes on, which have as many terms as the signals along it."""
        longer = layered_path(self.opened, (*path, path[-1]), x, None)
        f = jnp.stack(longer.forward().f[:-1])
        return f.reshape(*f.shape, *self.out_shape)

    def batch_gradients(
        self,
        path: Path,
        x: Float[Array, "s ..."],
        samples: Int[Array, " s"],
        residual: Callable[[Array], Array],
    ) -> Path:
        """Forward, backward, the residual, and products of the signals."""
        batch = lambda a: jax.lax.dynamic_slice_in_dim(a, samples[0], len(samples))  # noqa: E731
        layered = layered_path(self.opened, path, x, jax.tree.map(batch, self.rest))
        forward = layered.forward()
        backward = layered.backward(forward)
        parts = jnp.stack([*forward.f[:-1], *layered.last_output(forward, backward)])
        # A product, since XLA would redo a chain of sums for every number that c weighs.
        f = jnp.ones_like(parts, shape=len(parts)) @ parts
        c = residual(f.reshape(len(x), *self.out_shape)).reshape(len(x))
        return tuple(layered.gradients(forward, backward, c))
