"""Explicit Runge–Kutta integration with adaptive steps."""

import math

import diffrax as dfx
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import DTypeLike


class Tolerances(eqx.Module):
    """What a step may err, level by level: `atol + rtol * size`."""

    rtol: float
    atol: float


class Explicit(eqx.Module):
    """Any explicit Runge–Kutta pair of Diffrax, with its tolerances and its step limit.

    `rtol` and `atol` bound the local error of each level against its own size: for exact flow the
    Euclidean norm of the distance travelled by the parameters, for a hierarchy the root mean square
    of each tensor. Left out, `rtol` is 1e-7 in float64 and 1e-4 in float32, and `atol` is
    `1e-6 * rtol`: it only keeps a level that is zero from being held to its own rounding.

    Raises:
        ValueError: When a tolerance is not positive or `max_steps` is not at least 1; when solving,
            if `rtol` is below what the precision of the numbers can meet.
    """

    rtol: float | None = None
    atol: float | None = None
    max_steps: int = 100_000
    method: dfx.AbstractERK = dfx.Dopri8()

    def __check_init__(self) -> None:
        """Refuse tolerances that nothing can meet."""
        check_settings(self.rtol, self.atol, self.max_steps)

    def resolve(self, dtype: DTypeLike) -> tuple[dfx.AbstractERK, Tolerances, str]:
        """The method, the tolerances for numbers of `dtype`, and the choice in words."""
        tolerances = resolved_tolerances(self.rtol, self.atol, dtype)
        return self.method, tolerances, describe(self.method, tolerances)


def check_settings(rtol: float | None, atol: float | None, max_steps: int) -> None:
    """Refuse tolerances and step limits that nothing can meet, one sentence each."""
    for name, value in (("rtol", rtol), ("atol", atol)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ValueError(f"`{name}` must be a positive number, but is {value!r}.")
    if not isinstance(max_steps, int) or isinstance(max_steps, bool) or max_steps < 1:
        raise ValueError(f"`max_steps` must be an integer of at least 1, but is {max_steps!r}.")


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
