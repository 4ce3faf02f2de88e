"""How fast each array of a module trains."""

from collections.abc import Sequence
from numbers import Real
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

#: The most rates that are shown one by one.
MOST_SHOWN = 8


def each_rate(rates: PyTree, model: PyTree) -> PyTree[float]:
    """The rate of each floating array of a model, in a tree like it, 0 elsewhere.

    Args:
        rates: A tree that is a prefix of the model, as Equinox's filter specifications are: a
            number for each array, or for all in a part of the model. True is 1, False 0.
        model: Any Equinox module.

    Raises:
        ValueError: When it is no such tree, or holds what is no number of at least 0.
    """

    def over(rate: Any, part: PyTree) -> PyTree[float]:
        number = _number(rate)
        return jax.tree.map(lambda leaf: number if eqx.is_inexact_array(leaf) else 0.0, part)

    none = lambda node: node is None  # noqa: E731
    try:
        return jax.tree.map(over, rates, model, is_leaf=none)
    except (ValueError, TypeError) as error:
        if str(error).startswith("`rates`"):
            raise
        raise ValueError(
            "`rates` must be a number or a tree of numbers that is a prefix of the model, but is "
            f"none of {type(model).__name__}."
        ) from error


def listed(rates: PyTree, model: PyTree) -> tuple[float, ...] | None:
    """The rates of all floating arrays of a model in their order; None where all are one.

    Raises:
        ValueError: As in `each_rate`.
    """
    leaves = jax.tree.leaves(model)
    pairs = zip(jax.tree.leaves(each_rate(rates, model)), leaves, strict=True)
    found = tuple(rate for rate, leaf in pairs if eqx.is_inexact_array(leaf))
    return None if all(rate == 1 for rate in found) else found


def placed(rates: Sequence[float], model: PyTree) -> PyTree[float]:
    """The tree of rates that `listed` listed."""
    left = iter(rates)
    return jax.tree.map(lambda leaf: next(left) if eqx.is_inexact_array(leaf) else 0.0, model)


def in_words(rates: tuple[float, ...]) -> str:
    """Rates that were `listed`."""
    if len(rates) <= MOST_SHOWN:
        return f"trained at rates {', '.join(f'{rate:g}' for rate in rates)}"
    still, moving = rates.count(0.0), [rate for rate in rates if rate]
    return (
        f"trained at rates {min(moving):g} to {max(moving):g}, {still} of {len(rates)} arrays not"
    )


def _number(rate: Any) -> float:
    """A rate as a plain number; a place of the tree without one holds no array that trains."""
    if rate is None:
        return 0.0
    scalar = isinstance(rate, Real) or (isinstance(rate, np.ndarray | jax.Array) and not rate.ndim)
    number = float(rate) if scalar else np.nan
    if not (np.isfinite(number) and number >= 0):
        raise ValueError(f"`rates` must hold numbers of at least 0, but holds {rate!r}.")
    return number
