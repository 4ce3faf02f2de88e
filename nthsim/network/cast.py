"""Inputs in the type that a network takes them in."""

from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from nthsim.network.network import AbstractNetwork, precision
from nthsim.solvers.compiled import compiled, is_staged, is_traced

#: Outputs differ by more than this power of the rounding of one number only where types do.
ROUNDING = 0.5

Inputs = TypeVar("Inputs")  # an array, or several in a tuple


def in_precision(network: AbstractNetwork, theta: PyTree[Array], inputs: Inputs) -> Inputs:
    """Inputs in the precision of the parameters; whole numbers as they are where they must be.

    They must where the network takes no others, as with an `eqx.nn.Embedding`, where it makes
    something else of them, as one that asks for their type, and where they are none of that
    precision's and the network takes them without making such of them: under strict promotion, as
    otherwise nearly every network would, and round them inside.
    """
    leaves = jax.tree.leaves(inputs)
    converted = jax.tree.map(lambda x: x.astype(precision(theta)), inputs)
    if not all(jnp.issubdtype(x.dtype, jnp.integer) for x in leaves):
        return converted
    # In this type sums of them stay what they are.
    indices = jax.tree.map(lambda x: x.astype(int), inputs)
    if not accepts(network, theta, jax.tree.leaves(converted)[0]):
        return indices
    pairs = zip(jax.tree.leaves(indices), jax.tree.leaves(converted), strict=True)
    if any(_differ(network, theta, *pair) for pair in pairs):
        return indices
    if all(map(_equal, leaves, jax.tree.leaves(converted))):
        return converted
    with jax.numpy_dtype_promotion("strict"):
        taken = accepts(network, theta, jax.tree.leaves(indices)[0])
    return indices if taken else converted


def _differ(network: AbstractNetwork, theta: PyTree[Array], x: Array, converted: Array) -> bool:
    """Whether a network makes something else of whole numbers than of the same as others."""
    if is_staged(theta, x) or not accepts(network, theta, x):
        return False
    one, other = (_outputs(network, theta, each) for each in (x, converted))
    tolerance = float(jnp.finfo(precision(theta)).eps) ** ROUNDING
    return one.shape != other.shape or not jnp.allclose(
        one, other, rtol=tolerance, atol=tolerance * jnp.max(jnp.abs(other)), equal_nan=True
    )


@compiled
def _outputs(network: AbstractNetwork, theta: PyTree[Array], x: Array) -> Array:
    with jax.default_matmul_precision("highest"):
        return network(theta, x)


def _equal(x: Array, converted: Array) -> bool:
    return is_traced(x) or bool(jnp.array_equal(x, converted.astype(x.dtype)))


def accepts(network: AbstractNetwork, theta: PyTree[Array], x: Array) -> bool:
    """Whether one input of this shape and type goes through, found without computing anything."""
    try:
        eqx.filter_eval_shape(network.single, theta, jax.ShapeDtypeStruct(x.shape[1:], x.dtype))
    except Exception:  # whatever a stranger's module raises
        return False
    return True
