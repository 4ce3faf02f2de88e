"""Explicit Runge–Kutta integration with adaptive steps."""

import math
import operator
from numbers import Real
from typing import Any

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import DTypeLike


class Tolerances(eqx.Module):
    """What a step may err, level by level: `atol + rtol * size`."""

    rtol: float
    atol: float


def checked_rtol(value: Any) -> float | None:
    """`rtol` as a plain number, or None."""
    return _tolerance("rtol", value)


def checked_atol(value: Any) -> float | None:
    """`atol` as a plain number, or None."""
    return _tolerance("atol", value)


def checked_steps(value: Any) -> int:
    """`max_steps` as a plain integer."""
    try:
        steps = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        steps = 0
    if steps < 1:
        raise ValueError(f"`max_steps` must be an integer of at least 1, but is {value!r}.")
    return steps


class Explicit(eqx.Module):
    """Any explicit Runge–Kutta pair of Diffrax, with its tolerances and its step limit.

    `rtol` and `atol` bound the local error of each level against its own size: for exact flow the
    Euclidean norm of the distance travelled by the parameters, for a hierarchy the root mean square
    of each tensor. Left out, `rtol` is 1e-7 in float64 and 1e-4 in float32, and `atol` is
    `1e-6 * rtol`: it only keeps a level that is zero from being held to its own rounding.

    Raises:
        ValueError: When a tolerance is not positive, `max_steps` is not at least 1, or `method` is
            implicit or estimates no error; when solving, if `rtol` is below what the precision of
            the numbers can meet.
    """

    rtol: float | None = eqx.field(default=None, converter=checked_rtol)
    atol: float | None = eqx.field(default=None, converter=checked_atol)
    max_steps: int = eqx.field(default=100_000, converter=checked_steps)
    method: dfx.AbstractERK = dfx.Dopri8()

    def __check_init__(self) -> None:
        """Refuse a method that cannot choose its steps."""
        explicit = isinstance(self.method, dfx.AbstractERK)
        if not (explicit and np.any(self.method.tableau.b_error)):
            raise ValueError(
                "`method` must be an explicit Runge-Kutta method of Diffrax with an error "
                f"estimate, such as Dopri8(), but is {type(self.method).__name__}."
            )

    def resolve(self, dtype: DTypeLike) -> tuple[dfx.AbstractERK, Tolerances, str]:
        """The method, the tolerances for numbers of `dtype`, and the choice in words."""
        tolerances = resolved_tolerances(self.rtol, self.atol, dtype)
        return self.method, tolerances, describe(self.method, tolerances)


def _tolerance(name: str, value: Any) -> float | None:
    if value is None:
        return None
    # True and "1e-3" would pass as floats.
    numeric = isinstance(value, Real | np.ndarray | jax.Array) and not isinstance(value, bool)
    number = float(value) if numeric and np.ndim(value) == 0 else math.nan
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"`{name}` must be a positive number, but is {value!r}.")
    return number


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


def describe(method: dfx.AbstractERK, tolerances: Tolerances) -> str:
    """Method and tolerances in words."""
    return f"{type(method).__name__}, rtol {tolerances.rtol:.0e}, atol {tolerances.atol:.0e}"
