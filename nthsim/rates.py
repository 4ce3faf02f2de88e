"""How fast this device multiplies matrices and reads memory, measured once."""

import functools
import time
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp

#: The side of the matrices multiplied, the bytes read through, and how often each is tried.
SIDE, BYTES, TRIES = 1024, 2**26, 3


class Rates(eqx.Module):
    """Floating-point operations of matrix products per second, and bytes read per second."""

    flops: float
    bytes: float


def rates(dtype: str) -> Rates:
    """Measure for numbers of `dtype`, the first time; takes half a second."""
    return _measured(dtype, jax.devices()[0])


@functools.cache
def _measured(dtype: str, device: object) -> Rates:
    del device  # it is that of all computations
    # A plan is made of shapes alone, inside of a trace; runs multiply at the highest precision.
    with jax.ensure_compile_time_eval(), jax.default_matmul_precision("highest"):
        matrix = jnp.ones((SIDE, SIDE), dtype)
        rows = jnp.ones((BYTES // matrix.itemsize // SIDE, SIDE), dtype)
        column = jnp.ones(SIDE, dtype)
        return Rates(
            flops=2 * SIDE**3 / _seconds(lambda: matrix @ matrix),
            bytes=BYTES / _seconds(lambda: rows @ column),
        )


def _seconds(work: Callable[[], jax.Array]) -> float:
    """The shortest of a few tries, after one that may compile."""
    taken = []
    for _ in range(1 + TRIES):
        clock = time.perf_counter()
        work().block_until_ready()
        taken.append(time.perf_counter() - clock)
    return min(taken[1:])
