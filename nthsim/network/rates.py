"""How fast each array of a module trains."""

from collections.abc import Sequence
from numbers import Real
from typing import Any, TypeGuard

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from nthsim.models.parametrisation import own_rates
from nthsim.network.trained import trained
from nthsim.solvers.compiled import is_traced

#: The most rates that are shown one by one.
MOST_SHOWN = 8


def listed(rates: PyTree, model: PyTree) -> tuple[float, ...] | None:
    """The rates of all floating arrays of a model, in their order; None where all are one.

    Arrays that do not train by themselves (`trained`) have 0, and are none of those.

    Args:
        rates: A tree that is a prefix of the model, as Equinox's filter specifications are: a
            number for each array, or for all in a part of the model. True is 1, False 0; what
            stands where there is no array does not count. None stands for those that nthsim's own
            networks in the model have by their parametrisation, and one for all else.
        model: Any Equinox module.

    Raises:
        ValueError: When it is no such tree, or holds what is no number of at least 0.
    """
    rates = own_rates(model) if rates is None else rates
    if rates is None:
        return None
    parts: list[tuple[Any, PyTree, PyTree]] = []
    note = lambda *part: parts.append(part)  # noqa: E731
    try:
        jax.tree.map(note, rates, model, trained(model), is_leaf=lambda node: node is None)
    except (ValueError, TypeError) as error:
        raise ValueError(
            "`rates` must be a number or a tree of numbers that is a prefix of the model, but is "
            f"none of {type(model).__name__}."
        ) from error
    found: list[float] = []
    own: list[float] = []
    for rate, part, trains in parts:
        pairs = zip(jax.tree.leaves(part), jax.tree.leaves(trains), strict=True)
        moving = [trains for leaf, trains in pairs if eqx.is_inexact_array(leaf)]
        if moving:  # what stands elsewhere says nothing
            number = _number(rate)
            found.extend(number * each for each in moving)
            own.extend(number for each in moving if each)
    return None if all(rate == 1 for rate in own) else tuple(found)


def placed(rates: Sequence[float], model: PyTree) -> PyTree[float]:
    """Rates that were `listed`, in a tree like the model; 0 where it holds no floating array."""
    left = iter(rates)
    return jax.tree.map(lambda leaf: next(left) if eqx.is_inexact_array(leaf) else 0.0, model)


def in_words(rates: tuple[float, ...]) -> str:
    """Rates that were `listed`."""
    if len(rates) <= MOST_SHOWN:
        return f"trained at rates {', '.join(f'{rate:g}' for rate in rates)}"
    still, moving = rates.count(0.0), [rate for rate in rates if rate]
    rest = f", {still} of {len(rates)} arrays not at all" if still else ""
    return f"trained at rates {min(moving):g} to {max(moving):g}{rest}"


def _number(rate: Any) -> float:
    """A rate as a plain number."""
    if is_traced(rate):
        raise ValueError("`rates` must be numbers, but hold one that is traced here.")
    try:
        number = float(rate) if _is_real(rate) else np.nan
    except OverflowError:
        number = np.nan
    if not (np.isfinite(number) and number >= 0):
        raise ValueError(f"`rates` must hold numbers of at least 0, but holds {rate!r}.")
    return number


def _is_real(rate: Any) -> TypeGuard[Real]:
    if isinstance(rate, np.generic | np.ndarray | jax.Array):
        kinds = (jnp.bool_, jnp.integer, jnp.floating)
        return not rate.ndim and any(jnp.issubdtype(rate.dtype, kind) for kind in kinds)
    return isinstance(rate, Real)
