"""What solvers demand: derivatives in forward mode, a smooth field, precision enough."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, PyTree

from nthsim.solvers.compiled import lowers
from nthsim.solvers.system import AbstractSystem
from nthsim.solvers.tolerances import halved


def check_forward(system: AbstractSystem, solver: str) -> None:
    """Refuse a field without derivatives in forward mode, which shows when they are lowered.

    Raises:
        ValueError: When it has none.
    """
    arrays, rest = eqx.partition(system, eqx.is_array)

    def push(arrays: AbstractSystem, state: PyTree[Array]) -> PyTree[Array]:
        return jax.jvp(eqx.combine(arrays, rest).field, (state,), (state,))[1]

    if not lowers(push, arrays, system.initial()):
        raise ValueError(
            "`solver` must be another where the field has no derivatives in forward mode, as "
            f"with a custom_vjp within one, but is {solver}."
        )


def check_smooth(system: AbstractSystem, solver: str) -> None:
    """Refuse a field that jumps.

    Raises:
        ValueError: When it does.
    """
    if system.roughness():
        raise ValueError(
            f"`solver` must be Auto or Explicit where {system.roughness()}, but is {solver}."
        )


def check_single(dtype: DTypeLike, solver: str) -> None:
    """Refuse half precision, for which JAX has no routines that factor matrices.

    Raises:
        ValueError: When numbers have fewer than 32 bits.
    """
    if halved(dtype):
        raise ValueError(
            f"`solver` must be Auto or Explicit in {jnp.dtype(dtype).name}, but is {solver}."
        )
