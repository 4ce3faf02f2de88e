"""Indices that an `eqx.nn.Embedding` has no row for, which JAX takes for others without a word."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Int, PRNGKeyArray, PyTree, Real

from nthsim.network.alike import mapped, nodes
from nthsim.network.network import Network
from nthsim.solvers.compiled import compiled, is_traced


class Strict(eqx.nn.Embedding):
    """The same table, which has NaN for what it has no row for."""

    def __call__(self, x: Int[ArrayLike, ""], *, key: PRNGKeyArray | None = None) -> Array:
        """Look one index up."""
        row, at = super().__call__(x, key=key), jnp.asarray(x)
        return jnp.where((at >= 0) & (at < len(self.weight)), row, jnp.nan)


def check_lookups(network: Network, theta: PyTree[Array], name: str, x: Array) -> None:
    """Refuse inputs by which outputs depend on rows that a table has not.

    What a model does with its indices before, or with such rows after, is its own affair: looked
    at are the outputs.

    Raises:
        ValueError: The sentence names the first.
    """
    model = network.model(theta)
    if is_traced(theta, x) or not nodes(model, _is_table):
        return
    lost = np.flatnonzero(_lost(model, x))
    if len(lost):
        sizes = ", ".join(str(table.num_embeddings) for table in nodes(model, _is_table))
        raise ValueError(
            f"`{name}` must hold indices from 0 on, below the size of an Embedding, {sizes}, but "
            f"{name}[{lost[0]}] makes the model look up others."
        )


@compiled
def _lost(model: PyTree, x: Real[Array, "n ..."]) -> Bool[Array, " n"]:
    """By which inputs outputs are numbers that are none with strict tables."""
    outputs, strict = (
        jax.vmap(each)(x).reshape(len(x), -1) for each in (model, mapped(_strict, _is_table, model))
    )
    return jnp.any(jnp.isnan(strict) & ~jnp.isnan(outputs), axis=1)


def _is_table(node: object) -> bool:
    return type(node) is eqx.nn.Embedding


def _strict(table: eqx.nn.Embedding) -> Strict:
    strict = object.__new__(Strict)
    for name, value in vars(table).items():
        object.__setattr__(strict, name, value)
    return strict
