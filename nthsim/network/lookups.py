"""Indices beyond the end of an array, which JAX takes for others without a word."""

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Integer, PRNGKeyArray, PyTree, Real

from nthsim.network.alike import mapped, nodes
from nthsim.network.network import Network, accepts
from nthsim.network.program import Evaluation, asked_once, program
from nthsim.solvers.compiled import compiled, is_staged
from nthsim.solvers.xla import Traced

#: Sums of derivatives agree to this power of the rounding of one number, relative to their terms.
ROUNDING = 0.7

#: Of parameters or outputs, and of an input or a target.
Function = Callable[[PyTree, Array], Array]

#: Rows that are tried in the place of missing ones, and inputs that are looked at at once.
ROWS, BATCH = 4, 64


class Filled(eqx.nn.Embedding):
    """The same table with a row for all indices that it has none for.

    Derived from the layer, as models ask for `weight` and compare types.
    """

    row: Float[Array, " longest"]

    def __call__(self, x: Integer[ArrayLike, ""], *, key: PRNGKeyArray | None = None) -> Array:
        """Look one index up."""
        at = jnp.asarray(x).astype(int)  # a byte cannot be compared with a longer table
        known = super().__call__(jnp.clip(at, 0, len(self.weight) - 1), key=key)
        own = self.row[: self.embedding_size].astype(known.dtype)
        return jnp.where((at >= 0) & (at < len(self.weight)), known, own)


def check_lookups(network: Network, theta: PyTree[Array], name: str, x: Array) -> None:
    """Refuse inputs by which a model looks up what its arrays have not.

    What a model does with its indices before, or with such entries after, is its own affair: looked
    at are outputs, with several rows in the place of those that a table has not, and derivatives,
    which leave an entry out backwards that they do not leave out forwards where any other array is
    indexed beyond its end. Both at the parameters and at others near them, as a readout that begins
    at zero hides everything. Where JAX takes another entry for outputs and derivatives alike, as
    with `mode="clip"` and for a single entry, that is what the model is.

    Raises:
        ValueError: The sentence names the first.
    """
    if is_staged(theta, x):
        return
    tables = nodes(network.model(theta), _is_table)
    if tables and (lost := _first(_lost, network, theta, x)) is not None:
        sizes = ", ".join(str(table.num_embeddings) for table in tables)
        raise ValueError(
            f"`{name}` must hold indices from 0 on, below the size of an Embedding, {sizes}, but "
            f"{name}[{lost}] makes the model look up others."
        )
    if not (_promises(Evaluation(network, theta, x[0])) and network.forward(theta, x)):
        return
    if (lost := _first(_differ, network, theta, x)) is not None:
        raise ValueError(
            f"`{name}` must hold indices that arrays of the model have entries for, but "
            f"{name}[{lost}] makes it look beyond an end, where JAX takes another entry and leaves "
            'it out of gradients; where that is meant, index with .at[i].get(mode="clip").'
        )


def check_labels(
    loss: Function, now: Traced, name: str, y: Array, out_shape: tuple[int, ...]
) -> None:
    """Refuse targets by which a loss, as it is `now`, looks up outputs that there are not.

    Looked at are its derivatives, at outputs that may be any numbers and at such as are
    probabilities; where it has none forwards, nothing is.

    Raises:
        ValueError: The sentence names the first.
    """
    any_numbers = jr.normal(jr.key(4), out_shape, y.dtype)
    for f in (any_numbers, jax.nn.softmax(any_numbers)):
        try:
            jax.eval_shape(lambda f, y: jax.jvp(lambda f: loss(f, y), (f,), (f,)), f, y[0])
        except Exception:  # as that of a `custom_vjp`
            return
        if len(lost := np.flatnonzero(_loss_differs(loss, now, f, y))):
            raise ValueError(
                f"`{name}` must hold what the loss finds outputs for, but {name}[{lost[0]}] makes "
                "it look beyond an end, where JAX takes another output and leaves it out of "
                'gradients; where that is meant, index with .at[i].get(mode="clip").'
            )


@asked_once
def _promises(evaluation: Evaluation) -> bool:
    """Whether a network indexes arrays and says nothing on what is beyond their ends."""
    return program(evaluation.network.single, evaluation.theta, evaluation.one).promises


def _first(
    found: Callable[[Network, PyTree[Array], Array], Bool[Array, " n"]],
    network: Network,
    theta: PyTree[Array],
    x: Real[Array, "n ..."],
) -> int | None:
    """The first input that something is found of, at the parameters or near them."""
    single, x_single = jax.tree.map(_single, (theta, x))  # in which little is lost in sums
    if accepts(network, single, x_single):
        theta, x = single, x_single
    near = jax.tree.map(_moved, theta)
    with jax.default_matmul_precision("highest"):
        where = np.flatnonzero(found(network, theta, x) | found(network, near, x))
    return int(where[0]) if len(where) else None


@compiled
def _lost(network: Network, theta: PyTree[Array], x: Real[Array, "n ..."]) -> Bool[Array, " n"]:
    """By which inputs outputs depend on the rows that are filled in, beyond rounding."""
    model = network.model(theta)
    longest = max(table.embedding_size for table in nodes(model, _is_table))
    rows = jr.normal(jr.key(0), (ROWS, longest))

    def one(x: Array) -> Bool[Array, ""]:
        filled = lambda row: mapped(functools.partial(_filled, row), _is_table, model)  # noqa: E731
        found = jax.vmap(lambda row: jnp.ravel(filled(row)(x)))(rows)
        rounding = jnp.sqrt(jnp.finfo(found.dtype).eps) * jnp.max(jnp.abs(found), axis=0)
        same = jnp.ptp(found, axis=0) <= rounding
        return jnp.any(~same & jnp.isfinite(jnp.ravel(model(x))))

    return jax.lax.map(one, x, batch_size=min(BATCH, len(x)))


@compiled
def _differ(network: Network, theta: PyTree[Array], x: Real[Array, "n ..."]) -> Bool[Array, " n"]:
    """By which inputs a network has other derivatives forwards than backwards."""
    return _other_ways(network.single, theta, x)


@compiled
def _loss_differs(loss: Function, now: Traced, f: Array, y: Array) -> Bool[Array, " n"]:
    """By which targets a loss has."""
    del now
    return _other_ways(loss, f, y)


def _other_ways(
    function: Function, theta: PyTree[Array], x: Real[Array, "n ..."]
) -> Bool[Array, " n"]:
    """By which inputs derivatives are others forwards and backwards, beyond rounding.

    Of each array apart, so that large ones do not hide small ones.
    """
    leaves, tree = jax.tree.flatten(theta)
    away = [jr.normal(jr.key(2), leaf.shape, leaf.dtype) for leaf in leaves]

    def one(x: Array) -> Bool[Array, ""]:
        at = lambda theta: jnp.ravel(function(theta, x))  # noqa: E731
        f, pull = jax.vjp(at, theta)
        weights = jr.normal(jr.key(3), f.shape, f.dtype)
        terms = [a * b for a, b in zip(jax.tree.leaves(pull(weights)[0]), away, strict=True)]

        def pushed(chosen: Array) -> Array:
            turns = [a * (chosen == i).astype(a.dtype) for i, a in enumerate(away)]
            return weights * jax.jvp(at, (theta,), (jax.tree.unflatten(tree, turns),))[1]

        forwards = jax.lax.map(pushed, jnp.arange(len(leaves)))
        backwards = jnp.stack([jnp.sum(term) for term in terms])
        size = jnp.stack([jnp.sum(jnp.abs(term)) for term in terms])
        size += jnp.sum(jnp.abs(forwards), axis=1)
        off = jnp.abs(backwards - jnp.sum(forwards, axis=1))
        return jnp.any(off > jnp.finfo(f.dtype).eps ** ROUNDING * size)

    return jax.lax.map(one, x, batch_size=min(BATCH, len(x)))


def _single(leaf: Array) -> Array:
    """Half precision in single."""
    half = jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.dtype.itemsize < 4
    return leaf.astype(jnp.float32) if half else leaf


def _moved(leaf: Array) -> Array:
    return leaf + 0.1 * (1 + jnp.abs(leaf)) * jr.normal(jr.key(1), leaf.shape, leaf.dtype)


def _is_table(node: object) -> bool:
    return type(node) is eqx.nn.Embedding


def _filled(row: Float[Array, " longest"], table: eqx.nn.Embedding) -> Filled:
    filled = object.__new__(Filled)
    for name, value in (*vars(table).items(), ("row", row)):
        object.__setattr__(filled, name, value)
    return filled
