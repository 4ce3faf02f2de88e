"""Inputs in the type that a network takes them in."""

from typing import TypeVar

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, PyTree

from nthsim.network.network import AbstractNetwork, accepts, precision
from nthsim.network.program import program
from nthsim.solvers.compiled import is_traced

#: So many inputs are tried.
SOME = 8

Inputs = TypeVar("Inputs")  # an array, or several in a tuple


def in_precision(network: AbstractNetwork, theta: PyTree[Array], inputs: Inputs) -> Inputs:
    """Inputs in the precision of the parameters; whole numbers as they are where they must be.

    They must where the network takes no others, as with an `eqx.nn.Embedding`, where it makes
    something else of them, as one that asks for their type, but makes nothing whole, as one that
    returns what it computes in their type; and where they are none of that precision's and the
    network takes them without making such of them: under strict promotion, as otherwise nearly
    every network would, and round them inside.
    """
    leaves = jax.tree.leaves(inputs)
    converted = jax.tree.map(lambda x: x.astype(precision(theta)), inputs)
    if not all(jnp.issubdtype(x.dtype, jnp.integer) for x in leaves):
        return converted
    kinds = {x.dtype for x in leaves}  # bytes stay bytes, as a network may ask for their type
    kind = kinds.pop() if len(kinds) == 1 else int
    indices = jax.tree.map(lambda x: x.astype(kind), inputs)
    if not accepts(network, theta, jax.tree.leaves(converted)[0]):
        return indices
    pairs = zip(jax.tree.leaves(indices), jax.tree.leaves(converted), strict=True)
    if any(_means_else(network, theta, *pair) for pair in pairs):
        return indices
    if all(map(_equal, leaves, jax.tree.leaves(converted))):
        return converted
    with jax.numpy_dtype_promotion("strict"):
        taken = accepts(network, theta, jax.tree.leaves(indices)[0])
    return indices if taken else converted


def _means_else(network: AbstractNetwork, theta: PyTree[Array], x: Array, converted: Array) -> bool:
    """Whether a network makes something else of whole numbers than of the same as others.

    Tried at some of them, or, as within `jit`, at made up ones, operation by operation.
    """
    if not accepts(network, theta, x):
        return False
    if program(network.single, theta, jax.ShapeDtypeStruct(x.shape[1:], x.dtype)).rounds:
        return False
    with jax.ensure_compile_time_eval():
        known, some = theta, x[:: -(-len(x) // SOME)]
        if is_traced(theta, x):
            known = jax.tree.map(lambda a: jr.normal(jr.key(0), a.shape, a.dtype), theta)
            some = jr.randint(jr.key(1), some.shape, 0, 10, x.dtype)
        try:
            pairs = [
                (network.single(known, one), network.single(known, one.astype(converted.dtype)))
                for one in some
            ]
            return not all(map(_close, *zip(*pairs, strict=True)))
        except Exception:  # whatever a stranger's module raises, which is told where it is used
            return False


def _close(one: Array, other: Array) -> bool:
    tolerance = float(jnp.finfo(other.dtype).eps) ** 0.5
    size = float(jnp.max(jnp.abs(other), initial=0))
    return bool(jnp.allclose(one, other, rtol=tolerance, atol=tolerance * size, equal_nan=True))


def _equal(x: Array, converted: Array) -> bool:
    return is_traced(x) or bool(jnp.array_equal(x, converted.astype(x.dtype)))
