"""Checks of integers and flags that a user hands in, for which JAX need not be there."""

import operator
import reprlib
from collections.abc import Sequence

import numpy as np


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
        raise ValueError(f"`{name}` must be an integer of at least {least}, but is {shown(value)}.")
    return number


def check_truths(**flags: object) -> None:
    """Refuse an argument that is neither true nor false: words, "no" among them, count as true.

    Raises:
        ValueError: one is something else.
    """
    for name, value in flags.items():
        if not isinstance(value, bool | np.bool_):
            raise ValueError(f"`{name}` must be True or False, but is {shown(value)}.")


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
            f"but are {shown(n_train)} and {shown(n_test)}."
        )
    if refused:
        raise refused[0]
    return numbers[0], numbers[1]


def checked_integers(
    name: str, values: object, least: int, *, empty: bool = False
) -> tuple[int, ...]:
    """Return several integers, each of at least `least`, in rising order and once each.

    Raises:
        ValueError: `values` is neither a sequence nor a one-dimensional array of such integers, or
            holds none though not `empty`.
    """
    listed = values if isinstance(values, Sequence) else np.asarray(values).tolist()
    if not isinstance(listed, Sequence) or isinstance(listed, str) or not (listed or empty):
        raise ValueError(
            f"`{name}` must be a sequence of integers such as ({least}, {least + 1}), "
            f"but is {shown(values)}."
        )
    return tuple(sorted({count(name, value, least) for value in listed}))


def highest_rank(kernels: object, orders: tuple[int, ...]) -> int:
    """Return the highest r of the kernels to measure, the highest order and at least 3 if None.

    Raises:
        ValueError: `kernels` is neither None nor an integer of at least the highest order.
    """
    least = max((2, *orders))
    return max(3, least) if kernels is None else count("kernels", kernels, least)


def shown(value: object) -> str:
    """Write any value on one short line, a NumPy scalar as its number."""
    plain = value.item() if isinstance(value, np.generic) else value
    return " ".join(reprlib.repr(plain).split())


def orders_to(top: int, orders: Sequence[int]) -> list[int]:
    """What is left of `orders` when the highest is to be `top`."""
    return [*(p for p in orders if p < top), top]
