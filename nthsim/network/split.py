"""Any module split into the network as a function and its parameters."""

from collections.abc import Sequence
from math import sqrt

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, PyTree

from nthsim.network.network import Network
from nthsim.network.rates import listed, placed
from nthsim.network.same_functions import alike, hint
from nthsim.network.trained import trained, warn_of_tied


def split(
    model: PyTree, rates: PyTree = None, *, constants: bool = False
) -> tuple[Network, PyTree[Array]]:
    """Split a model into the network as a function and its parameters, its real floating arrays.

    State of layers and what is marked as constant is none of them (`trained`), unless `constants`,
    which get no gradient, are to be handed over beside them. An array that trains at another rate
    than 1, by `rates` as in `listed`, is its parameters times the root of that; at 0 it is such
    a constant.

    Raises:
        ValueError: When the model is not callable, has no parameters, complex ones, parameters that
            are not finite, or parameters of several precisions.

    Warns:
        TiedWeightsWarning: When one array stands in two places.
        RecompilationWarning: When functions of the model are made anew again and again.
    """
    if isinstance(model, type):
        raise ValueError(
            f"`model` must be an instance of an Equinox module, but is the class {model.__name__}."
        )
    if not callable(model):
        raise ValueError(
            f"`model` must be an Equinox module that maps one input to its output, "
            f"but is {type(model).__name__}."
        )
    known = listed(rates, model)
    kind, model = type(model).__name__, alike(model)
    moving = jax.tree.map(eqx.is_inexact_array, model) if constants else trained(model)
    warn_of_tied(eqx.filter(model, moving))
    speeds = None if known is None else placed(known, model)
    if speeds is not None and not constants:
        moving = jax.tree.map(lambda rate, moves: moves and rate != 0, speeds, moving)
    theta, static = eqx.partition(model, moving)
    theta = jax.tree.map(lambda a: a if isinstance(a, jax.Array) else jnp.array(a), theta)
    leaves = jax.tree.leaves(theta)
    if not leaves and not isinstance(model, eqx.Module):
        raise ValueError(
            "`model` must be an instance of an Equinox module, which holds its parameters, "
            f"but is of type {kind}."
        )
    if not leaves and speeds is not None:
        raise ValueError("`rates` must let at least one array of the model train, but let none.")
    if not leaves:
        raise ValueError(
            "`model` must have at least one floating-point array that trains, but has none."
        )
    dtypes = {leaf.dtype for leaf in leaves}
    if len(dtypes) > 1 or any(jnp.issubdtype(d, jnp.complexfloating) for d in dtypes):
        names = ", ".join(sorted(d.name for d in dtypes))
        raise ValueError(f"`model` must hold real parameters of one precision, but holds {names}.")
    if not all(map(_is_finite, leaves)):
        raise ValueError("`model` must hold finite parameters, but some are NaN or infinite.")
    hint("model", model)
    _check_range(known or (), leaves[0].dtype)
    scales = None if speeds is None else _scales(speeds, theta)
    network = Network(static, scales=scales)
    theta = network.unscaled(theta)
    if scales is not None and not all(map(_is_finite, jax.tree.leaves(theta))):
        raise ValueError(
            "`rates` must leave arrays finite that are divided by the roots of theirs, but one is "
            f"not in {leaves[0].dtype.name}."
        )
    return network, theta


def _check_range(rates: Sequence[float], dtype: DTypeLike) -> None:
    """Refuse rates that a precision has no numbers for."""
    low, high = float(jnp.finfo(dtype).tiny), float(jnp.finfo(dtype).max)
    for rate in rates:
        if rate and not low <= rate <= high:
            raise ValueError(
                f"`rates` must be 0 or from {low:.0e} to {high:.0e} in {jnp.dtype(dtype).name}, "
                f"but one is {rate:g}."
            )


def _scales(speeds: PyTree[float], theta: PyTree[Array]) -> PyTree:
    """The roots of rates, None where a rate is one or there is no parameter, and if all are."""
    root = lambda a, rate: None if a is None or rate == 1 else sqrt(rate)  # noqa: E731
    found = jax.tree.map(root, theta, speeds, is_leaf=lambda node: node is None)
    return found if jax.tree.leaves(found) else None


def _is_finite(leaf: Array) -> bool:
    try:
        return bool(np.isfinite(np.asarray(leaf)).all())
    except jax.errors.TracerArrayConversionError:  # only its shape is known, as to `nthsim plan`
        return True
