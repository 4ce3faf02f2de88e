"""Indices that an `eqx.nn.Embedding` has no row for, which JAX takes for others without a word."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PRNGKeyArray, PyTree, Real

from nthsim.network.alike import mapped, nodes
from nthsim.network.network import Network
from nthsim.solvers.compiled import compiled, is_traced

#: Rows that are tried in the place of missing ones, and inputs that are looked at at once.
ROWS, BATCH = 4, 64


class Filled(eqx.nn.Embedding):
    """The same table with a row for all indices that it has none for.

    Derived from the layer, as models ask for `weight` and compare types.
    """

    row: Float[Array, " longest"]

    def __call__(self, x: Int[ArrayLike, ""], *, key: PRNGKeyArray | None = None) -> Array:
        """Look one index up."""
        known, at = super().__call__(x, key=key), jnp.asarray(x)
        own = self.row[: self.embedding_size].astype(known.dtype)
        return jnp.where((at >= 0) & (at < len(self.weight)), known, own)


def check_lookups(network: Network, theta: PyTree[Array], name: str, x: Array) -> None:
    """Refuse inputs by which outputs depend on rows that a table has not.

    What a model does with its indices before, or with such rows after, is its own affair: looked
    at are outputs, with several rows in the place of those missing, at the parameters and at others
    near them, as a readout that begins at zero hides everything.

    Raises:
        ValueError: The sentence names the first.
    """
    model = network.model(theta)
    if is_traced(theta, x) or not nodes(model, _is_table):
        return
    near = jax.tree.map(_moved, theta)
    lost = np.flatnonzero(_lost(model, x) | _lost(network.model(near), x))
    if len(lost):
        sizes = ", ".join(str(table.num_embeddings) for table in nodes(model, _is_table))
        raise ValueError(
            f"`{name}` must hold indices from 0 on, below the size of an Embedding, {sizes}, but "
            f"{name}[{lost[0]}] makes the model look up others."
        )


@compiled
def _lost(model: PyTree, x: Real[Array, "n ..."]) -> Bool[Array, " n"]:
    """By which inputs outputs depend on the rows that are filled in, beyond rounding."""
    longest = max(table.embedding_size for table in nodes(model, _is_table))
    rows = jr.normal(jr.key(0), (ROWS, longest))

    def one(x: Array) -> Bool[Array, ""]:
        filled = lambda row: mapped(functools.partial(_filled, row), _is_table, model)  # noqa: E731
        found = jax.vmap(lambda row: jnp.ravel(filled(row)(x)))(rows)
        rounding = jnp.sqrt(jnp.finfo(found.dtype).eps) * jnp.max(jnp.abs(found), axis=0)
        same = jnp.ptp(found, axis=0) <= rounding
        return jnp.any(~same & jnp.isfinite(jnp.ravel(model(x))))

    return jax.lax.map(one, x, batch_size=min(BATCH, len(x)))


def _moved(leaf: Array) -> Array:
    return leaf + 0.1 * (1 + jnp.abs(leaf)) * jr.normal(jr.key(1), leaf.shape, leaf.dtype)


def _is_table(node: object) -> bool:
    return type(node) is eqx.nn.Embedding


def _filled(row: Float[Array, " longest"], table: eqx.nn.Embedding) -> Filled:
    filled = object.__new__(Filled)
    for name, value in (*vars(table).items(), ("row", row)):
        object.__setattr__(filled, name, value)
    return filled
