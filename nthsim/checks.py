"""Checks of what a user hands in; each failure is one sentence, as a `ValueError`."""

import operator
import reprlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64, Shaped


def count(name: str, value: object, least: int) -> int:
    """Return `value` as a Python integer of at least `least`.

    NumPy's and JAX's integer scalars are integers; booleans, and floats such as 2.0, are not.

    Raises:
        ValueError: `value` is no integer, or is less than `least`.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)  # pyright: ignore[reportArgumentType]
    except TypeError:
        number = None
    if number is None or number < least:
        raise ValueError(
            f"`{name}` must be an integer of at least {least}, but is {_shown(value)}."
        )
    return number


def points(n_train: object, n_test: object) -> tuple[int, int]:
    """Return the numbers of training and test points, at least 1 and 0.

    Raises:
        ValueError: one of them is no such number; a sentence tells of both where both are wrong.
    """
    numbers: list[int] = []
    refused: list[ValueError] = []
    for name, value, low in (("n_train", n_train, 1), ("n_test", n_test, 0)):
        try:
            numbers.append(count(name, value, low))
        except ValueError as error:
            refused.append(error)
    if len(refused) == 2:
        raise ValueError(
            "`n_train` and `n_test` must be integers of at least 1 and 0, "
            f"but are {_shown(n_train)} and {_shown(n_test)}."
        )
    if refused:
        raise refused[0]
    return numbers[0], numbers[1]


def checked_orders(
    orders: object, *, name: str = "orders", least: int = 2, empty: bool = False
) -> tuple[int, ...]:
    """The orders, each an integer of at least `least`, in rising order and once each.

    Raises:
        ValueError: `orders`, called `name`, is neither a sequence nor a one-dimensional array of
            such integers.
    """
    listed = orders.tolist() if isinstance(orders, np.ndarray | jax.Array) else orders
    if not isinstance(listed, Sequence) or isinstance(listed, str) or not (listed or empty):
        raise ValueError(
            f"`{name}` must be a sequence of integers such as ({least}, {least + 1}), "
            f"but is {_shown(orders)}."
        )
    return tuple(sorted({count(name, order, least) for order in listed}))


def choice(name: str, value: object, choices: Sequence[str]) -> str:
    """Return `value`, which must be one of `choices`.

    Raises:
        ValueError: it is none of them.
    """
    if isinstance(value, str) and value in choices:
        return value
    listed = ", ".join(repr(item) for item in choices)
    raise ValueError(f"`{name}` must be one of {listed}, but is {_shown(value)}.")


def real(name: str, value: object) -> Shaped[Array | np.ndarray, "..."]:
    """Return `value` as an array of integers or floats, a JAX array (also a traced one) as it is.

    Raises:
        ValueError: `value` is ragged, boolean, complex or no array of numbers at all.
    """
    try:
        array = value if isinstance(value, jax.Array) else np.asarray(value)
    except ValueError as error:
        raise ValueError(
            f"`{name}` must be an array of real numbers, but its rows have unequal lengths."
        ) from error
    # NumPy counts time differences (kind "m") among the integers.
    integral = jnp.issubdtype(array.dtype, jnp.integer) and array.dtype.kind != "m"
    if not (integral or jnp.issubdtype(array.dtype, jnp.floating)):
        raise ValueError(f"`{name}` must be an array of real numbers, but has dtype {array.dtype}.")
    return array


def finite(name: str, array: Shaped[Array | np.ndarray, "..."]) -> None:
    """Refuse NaN and infinity; a traced array, which has no values yet, passes.

    Raises:
        ValueError: an entry is not finite; the sentence names the first.
    """
    try:
        values = np.asarray(array)
    except jax.errors.TracerArrayConversionError:
        return
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        index = bad[0].tolist()
        entry = f"{name}{index}" if index else name
        raise ValueError(
            f"`{name}` must be finite, but {entry} is {values[tuple(index)]} in {values.dtype}."
        )


def times(ts: object) -> Float64[np.ndarray, " T"]:
    """Return the save times `ts` as a new NumPy array in float64, whatever JAX's precision is.

    Raises:
        ValueError: `ts` is not one-dimensional, empty, not finite, negative, or does not
            increase strictly.
    """
    values = np.array(real("ts", ts), dtype=np.float64)
    if values.ndim != 1 or not values.size:
        raise ValueError(
            f"`ts` must be a one-dimensional array of at least one time, "
            f"but has shape {values.shape}."
        )
    finite("ts", values)
    if values[0] < 0:
        raise ValueError(f"`ts` must start at 0 or later, but ts[0] = {values[0]}.")
    falls = np.flatnonzero(np.diff(values) <= 0)
    if len(falls):
        i = falls[0] + 1
        raise ValueError(
            f"`ts` must increase strictly, but ts[{i}] = {values[i]} follows {values[i - 1]}."
        )
    return values


def _shown(value: object) -> str:
    """Write any value on one short line, a NumPy scalar as its number."""
    plain = value.item() if isinstance(value, np.generic) else value
    return " ".join(reprlib.repr(plain).split())
