"""The largest curvature of a function, without its Hessian."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from nthsim.solvers.compiled import compiled

#: Products with the Hessian that its largest eigenvalue is estimated by.
ITERATIONS = 12


@compiled
def largest_curvature(
    function: Callable[[PyTree[Array]], Float[Array, ""]], at: PyTree[Array]
) -> Float[Array, ""]:
    """The largest eigenvalue of the Hessian there by size, from below, by power iteration."""
    flat, back = ravel_pytree(at)

    def slope(row: Float[Array, " P"], v: Float[Array, " P"]) -> Float[Array, ""]:
        return jnp.vdot(jax.grad(lambda row: function(back(row)))(row), v)

    def product(_: Array, pair: tuple[Array, Array]) -> tuple[Array, Array]:
        v = pair[0] / jnp.maximum(jnp.linalg.norm(pair[0]), jnp.finfo(flat.dtype).tiny)
        row = jax.grad(slope)(flat, v)
        return row, jnp.linalg.norm(row)

    start = 1 + jnp.cos(jnp.arange(flat.size, dtype=flat.dtype) ** 2)
    zero = jnp.zeros((), flat.dtype)
    return jax.lax.fori_loop(0, ITERATIONS, product, (start, zero))[1]
