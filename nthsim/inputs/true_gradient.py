"""Whether the gradient of a loss is that of its value."""

from math import prod

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nthsim.inputs.loss import Residual
from nthsim.solvers.compiled import compiled

#: Targets that it is tried with.
TRIED = 8


def has_true_gradient(residual: Residual) -> bool:
    """Try it near zero: not if `stop_gradient` or a derivative of its own makes another one of it.

    Training and truncations follow the gradient all the same; what is made of the gradient's own
    derivative, as sharpness is, means something else then.
    """
    found, expected = map(np.asarray, _tried(residual))
    known = np.isfinite(found) & np.isfinite(expected)
    # Central differences leave over 1e-10 in float64 and some 1e-4 in float32.
    double = expected.dtype == np.float64
    size = np.abs(expected[known]).max(initial=0)
    return np.allclose(
        found[known], expected[known], rtol=0, atol=(1e-5 if double else 1e-2) * size
    )


@compiled
def _tried(residual: Residual) -> tuple[Float[Array, " tried"], Float[Array, " tried"]]:
    """Slopes of the loss along one direction, by differences and by its gradient."""
    y, out = residual.y[:TRIED], residual.out_shape
    numbers = jnp.arange(len(y) * prod(out), dtype=y.dtype).reshape(len(y), *out)
    f, along = jnp.cos(1 + numbers), jnp.cos(0.5 + jnp.sqrt(3.0).astype(y.dtype) * numbers)
    step = jnp.finfo(y.dtype).eps ** (1 / 3)

    def one(f: Array, along: Array, y: Array) -> tuple[Array, Array]:
        at = lambda sign: residual.loss(f + sign * step * along, y)  # noqa: E731
        return (at(1) - at(-1)) / (2 * step), jnp.sum(jax.grad(residual.loss)(f, y) * along)

    return jax.vmap(one)(f, along, y)
