"""What a step may err."""

import math
import operator
from numbers import Real
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import DTypeLike


class Tolerances(eqx.Module):
    """What a step may err, level by level: `atol + rtol * size`."""

    rtol: float
    atol: float

    def __str__(self) -> str:
        return f"rtol {self.rtol:.0e}, atol {self.atol:.0e}"


def checked_rtol(value: Any) -> float | None:
    """`rtol` as a plain number, or None."""
    return positive("rtol", value)


def checked_atol(value: Any) -> float | None:
    """`atol` as a plain number, or None."""
    return positive("atol", value)


def checked_steps(value: Any) -> int:
    """`max_steps` as a plain integer."""
    try:
        steps = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        steps = 0
    if steps < 1:
        raise ValueError(f"`max_steps` must be an integer of at least 1, but is {value!r}.")
    return steps


def positive(name: str, value: Any) -> float | None:
    """A positive number as a plain one, or None.

    Raises:
        ValueError: When it is neither.
    """
    if value is None:
        return None
    # True and "1e-3" would pass as floats.
    numeric = isinstance(value, Real | np.ndarray | jax.Array) and not isinstance(value, bool)
    number = float(value) if numeric and np.ndim(value) == 0 else math.nan
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"`{name}` must be a positive number, but is {value!r}.")
    return number


def halved(dtype: DTypeLike) -> bool:
    """Whether a precision is too low for linear algebra."""
    return jnp.dtype(dtype).itemsize < 4


def resolved_tolerances(rtol: float | None, atol: float | None, dtype: DTypeLike) -> Tolerances:
    """Defaults for the precision at hand; a tolerance below its rounding is refused."""
    eps = float(jnp.finfo(dtype).eps)
    if rtol is None:
        rtol = 1e-7 if eps < 1e-12 else 1e-4
    if rtol < 10 * eps:
        cure = (
            "raise it"
            if eps < 1e-12
            else 'raise it or work in float64 (jax.config.update("jax_enable_x64", True))'
        )
        raise ValueError(
            f"`rtol` must be at least {10 * eps:.1e} in {jnp.dtype(dtype).name}, "
            f"but is {rtol:.1e}: {cure}."
        )
    return Tolerances(rtol, 1e-6 * rtol if atol is None else atol)
