"""How fast the outputs of a batch change with the state that they depend on."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree, Real

#: Numbers that gradients of single samples, formed together, may take.
TOGETHER = 2**22


def velocity(
    function: Callable[[PyTree[Array], Array], Array],
    state: PyTree[Array],
    direction: PyTree[Array],
    x: Real[Array, "n ..."],
    *,
    forward: bool,
) -> Float[Array, " N"]:
    """How fast `function(state, x)` changes when the state moves in this direction.

    By one forward pass of derivatives; or, unless `forward`, by the gradient of each output, which
    a function with a backward pass of its own allows too, whatever that is made of: it may be a
    loop, which cannot be transposed. The kernel of what is pulled back and pushed is then the one
    of those gradients.
    """
    if forward:
        at = lambda state: function(state, x)  # noqa: E731
        return jax.jvp(at, (state,), (direction,))[1].reshape(-1)

    def one(x: Array) -> Float[Array, " k"]:
        f, pullback = jax.vjp(lambda state: function(state, x[None]).reshape(-1), state)
        (gradients,) = jax.vmap(pullback)(jnp.eye(f.size, dtype=f.dtype))
        rates = jax.tree.map(lambda g, v: jnp.tensordot(g, v, v.ndim), gradients, direction)
        return sum(jax.tree.leaves(rates), start=jnp.zeros_like(f))

    numbers = sum(leaf.size for leaf in jax.tree.leaves(state))
    return jax.lax.map(one, x, batch_size=min(len(x), max(1, TOGETHER // numbers))).reshape(-1)
