"""Independent ways to the numbers that the tests compare with."""

from collections.abc import Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PyTree

Tree = list[tuple[int, int]]


def increasing_trees(order: int) -> Iterator[Tree]:
    """All trees on vertices 0..order-1 in which each vertex hangs from an earlier one."""
    if order == 1:
        yield []
        return
    for tree in increasing_trees(order - 1):
        for parent in range(order - 1):
            yield [*tree, (parent, order - 1)]


def tree_kernel(tensors: list[np.ndarray], order: int) -> np.ndarray:
    """K^(r) as a sum of contractions of whole derivative tensors, one per increasing tree.

    Differentiating a product of tensors D^j f along grad f_b hangs one more leaf, grad f_b, from
    each factor in turn (theory: the six terms of K^(4) in the ddNTK form). Outputs are joined with
    samples. `tensors` are the derivative tensors up to degree r-1.
    """
    total = 0
    for tree in increasing_trees(order):
        degree = [sum(v in edge for edge in tree) for v in range(order)]
        operands = []
        for v in range(order):
            edges = [order + e for e, edge in enumerate(tree) if v in edge]
            operands += [tensors[degree[v]], [v, *edges]]
        total = total + np.einsum(*operands, list(range(order)), optimize=True)
    return np.asarray(total)


def derivative_tensors(model: PyTree, x: Array, degree: int) -> list[np.ndarray]:
    """f, its gradient, Hessian, ... with respect to all parameters, each with samples first.

    For tiny models: degree j has n·k·P^j entries.
    """
    params, static = eqx.partition(model, eqx.is_inexact_array)
    theta, unravel = ravel_pytree(params)

    def f(flat: Array) -> Array:
        return jax.vmap(eqx.combine(unravel(flat), static))(x).reshape(-1)

    tensors = []
    for _ in range(degree + 1):
        tensors.append(np.asarray(jax.jit(f)(theta)))
        f = jax.jacfwd(f)
    return tensors


class TwoLayerLinear(eqx.Module):
    """f(x) = u·(V x) / sqrt(m), the solvable network of Lewkowycz et al. and of V5, V6."""

    u: Array
    V: Array

    def __call__(self, x: Array) -> Array:
        return self.u @ (self.V @ x) / jnp.sqrt(len(self.u))


class Product(eqx.Module):
    """f = w1·w2·…·wN times the one input: the deep linear scalar network of V4 and V7."""

    w: Array

    def __call__(self, x: Array) -> Array:
        return jnp.prod(self.w) * x[0]


class DeepLinear(eqx.Module):
    """A product of matrices, for the conservation law of V8."""

    weights: tuple[Array, ...]

    def __call__(self, x: Array) -> Array:
        for W in self.weights:
            x = W @ x
        return x


def relative_error(actual: Array | np.ndarray, expected: Array | np.ndarray) -> float:
    """Largest difference over largest entry."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max() / np.abs(expected).max())
