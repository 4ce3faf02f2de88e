"""Indices beyond the end of an array, which JAX takes for others without a word."""

import functools
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.experimental import checkify
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PRNGKeyArray, PyTree, Real

from nthsim.network.alike import mapped, nodes
from nthsim.network.network import Network
from nthsim.network.program import Evaluation, asked_once, program
from nthsim.solvers.compiled import compiled, is_traced

#: Rows that are tried in the place of missing ones, and inputs that are looked at at once.
ROWS, BATCH = 4, 64


#: What is as good as any, where it is meant.
CURE = 'where that is meant, index with .at[i].get(mode="clip"), or mode="fill" and a `fill_value`'


class LookupWarning(UserWarning):
    """A model takes indices beyond the end of an array for others."""


class Filled(eqx.nn.Embedding):
    """The same table with a row for all indices that it has none for.

    Derived from the layer, as models ask for `weight` and compare types.
    """

    row: Float[Array, " longest"]

    def __call__(self, x: Int[ArrayLike, ""], *, key: PRNGKeyArray | None = None) -> Array:
        """Look one index up."""
        at = jnp.asarray(x)
        known = super().__call__(jnp.clip(at, 0, len(self.weight) - 1), key=key)
        own = self.row[: self.embedding_size].astype(known.dtype)
        return jnp.where((at >= 0) & (at < len(self.weight)), known, own)


def check_lookups(network: Network, theta: PyTree[Array], name: str, x: Array) -> None:
    """Refuse inputs by which a model looks up what its arrays have not.

    What a model does with its indices before, or with such entries after, is its own affair: looked
    at are outputs, with several rows in the place of those that a table has not, and derivatives of
    them, which for any other array leave out an entry that is taken for a missing one. Both at the
    parameters and at others near them, as a readout that begins at zero hides everything.

    Raises:
        ValueError: The sentence names the first.

    Warns:
        LookupWarning: When indices are beyond an array's end, and nothing is known to be wrong.
    """
    if is_traced(theta, x):
        return
    model, near = network.model(theta), jax.tree.map(_moved, theta)
    if nodes(model, _is_table):
        lost = np.flatnonzero(_lost(model, x) | _lost(network.model(near), x))
        if len(lost):
            sizes = ", ".join(str(table.num_embeddings) for table in nodes(model, _is_table))
            raise ValueError(
                f"`{name}` must hold indices from 0 on, below the size of an Embedding, {sizes}, "
                f"but {name}[{lost[0]}] makes the model look up others."
            )
    if not _promises(Evaluation(network, theta, x[0])) or _is_beyond(model, x) is False:
        return
    if network.forward(theta, x):
        lost = _differ(network, theta, x) | _differ(network, near, x)
    else:
        lost = _beyond_each(model, x)
    looks = (
        "makes the model look up an entry beyond the end of an array of its own, where JAX takes"
    )
    if jnp.any(lost):
        raise ValueError(
            f"`{name}` must hold indices that the model has entries for, but "
            f"{name}[{jnp.argmax(lost)}] {looks} another and leaves it out of derivatives; {CURE}."
        )
    beyond = _beyond_each(model, x)
    if np.any(beyond):
        words = f"{name}[{np.argmax(beyond)}] {looks} another; {CURE}."
        warnings.warn(words, LookupWarning, stacklevel=4)


@asked_once
def _promises(evaluation: Evaluation) -> bool:
    """Whether a network indexes arrays and says nothing on what is beyond their ends."""
    return program(evaluation.network.single, evaluation.theta, evaluation.one).promises


def _beyond_each(model: PyTree, x: Real[Array, "n ..."]) -> Bool[np.ndarray, " n"]:
    """Which inputs are known to make a model look beyond the ends of arrays, one by one."""
    return np.array([_is_beyond(model, x[i : i + 1]) is True for i in range(len(x))])


def _is_beyond(model: PyTree, x: Real[Array, "n ..."]) -> bool | None:
    """Whether an index is beyond the end of an array that is not a table, where that is known."""
    try:
        return _beyond(model, x).get() is not None
    except Exception:  # checkify fails in its own ways where it cannot check, as at some scatters
        return None


@compiled
def _beyond(model: PyTree, x: Real[Array, "n ..."]) -> checkify.Error:
    """What is known of indices beyond the ends of arrays that are not tables."""
    row = jnp.zeros(max((len(t.weight.T) for t in nodes(model, _is_table)), default=0))
    filled = mapped(functools.partial(_filled, row), _is_table, model)
    outputs = lambda x: jax.lax.map(filled, x, batch_size=min(BATCH, len(x)))  # noqa: E731
    return checkify.checkify(outputs, errors=checkify.index_checks)(x)[0]


@compiled
def _differ(network: Network, theta: PyTree[Array], x: Real[Array, "n ..."]) -> Bool[Array, " n"]:
    """For which inputs derivatives are others forwards and backwards, beyond rounding."""
    push = jax.tree.map(lambda leaf: jr.normal(jr.key(2), leaf.shape, leaf.dtype), theta)

    def one(x: Array) -> Bool[Array, ""]:
        at = lambda theta: jnp.ravel(network.single(theta, x))  # noqa: E731
        f, pushed = jax.jvp(at, (theta,), (push,))
        weights = jr.normal(jr.key(3), f.shape, f.dtype)
        (pulled,) = jax.vjp(at, theta)[1](weights)
        terms = [
            jnp.ravel(a * b) for a, b in zip(*map(jax.tree.leaves, (pulled, push)), strict=True)
        ]
        back = jnp.concatenate([*terms, -weights * pushed])
        rounding = jnp.sqrt(jnp.finfo(f.dtype).eps) * jnp.sum(jnp.abs(back))
        return jnp.abs(jnp.sum(back)) > rounding

    return jax.lax.map(one, x, batch_size=min(BATCH, len(x)))


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
