"""The work of each dynamics, and the seconds that it should take on this device."""

import functools
import time
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp

from nthsim.budget.size import Size
from nthsim.kernels.work import ENDLESS

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


#: What a typical run takes, to weigh a start that is paid once against what every step costs.
SIDES = 300

#: Measured on two cores: seconds until a program runs. Kernels of each further order take longer
#: by the factor, and are compiled from K^(2) on; a series takes so much more per term.
FIRST_KERNEL, FURTHER_KERNEL = 0.7, 2.6
FIRST_TERM, FURTHER_TERM = 2.0, 1.5

#: Measured: how far the kernels of a hierarchy, and a series, stay below the rate of one large
#: matrix product; a series layer by layer does so less than one all through a network.
KERNEL_RATE, LAYERED_RATE, SERIES_RATE = 0.3, 0.6, 0.4


def gradient_flops(size: Size) -> int:
    """One forward pass and a backward pass of twice its cost, at every training point."""
    return 3 * size.n * size.kernel.work.evaluation


def kernel_flops(size: Size, order: int) -> int:
    """One kernel, training and test points in its first slot."""
    return size.kernel.work.flops(size.points, size.n * size.kernel.k, order)


def kernels_flops(size: Size, order: int) -> int:
    """All kernels that a dense truncation at order p starts from."""
    orders, kernel = range(2, min(order, ENDLESS) + 1), size.kernel
    if not kernel.further:
        return sum(kernel_flops(size, r) for r in orders)
    N = size.n * kernel.k + kernel.further  # which only nested derivatives have
    return sum(kernel.work.nested(size.points, N, r) for r in orders)


def dense_side_flops(size: Size, order: int) -> int:
    """One right-hand side: every tensor is contracted with the residual."""
    return 2 * sum(size.entries(r) for r in range(2, min(order, ENDLESS) + 1))


def series_side_flops(size: Size, order: int) -> int:
    """One right-hand side: products of series, of which a gradient's three have one term each."""
    kept = size.expansion.kept(size.n, size.itemsize, size.expansion.chunk_bytes) > 0
    products = size.expansion.products(min(order, ENDLESS), kept=kept)
    return gradient_flops(size) * products // 3


def recorded_flops(size: Size, order: int) -> int:
    """The tangent kernels that a series records: products of their p - 1 Taylor coefficients."""
    p = min(order, ENDLESS)
    return size.recorded * kernel_flops(size, 2) * p * (p - 1) // 2


def dense_seconds(size: Size, order: int, rates: Rates) -> float:
    """A dense truncation: its kernels, and a run that reads all tensors at every right-hand side.

    Infinite where the numbers are beyond what a float holds.
    """
    try:
        start = sum(FIRST_KERNEL * FURTHER_KERNEL ** (r - 2) for r in range(2, order + 1))
        start += kernels_flops(size, order) / (KERNEL_RATE * rates.flops)
        return start + SIDES * dense_side_flops(size, order) * size.itemsize / (2 * rates.bytes)
    except OverflowError:
        return float("inf")


def series_seconds(size: Size, order: int, rates: Rates) -> float:
    """A series: a run of gradients' Taylor coefficients."""
    try:
        start = FIRST_TERM + FURTHER_TERM * order
        start += recorded_flops(size, order) / (KERNEL_RATE * rates.flops)
        rate = rates.flops * (LAYERED_RATE if size.expansion.calls else SERIES_RATE)
        return start + SIDES * series_side_flops(size, order) / rate
    except OverflowError:
        return float("inf")


def taylor_side_flops(size: Size, degree: int) -> int:
    """One gradient of a Taylor model's loss, whose terms are all multiplied with each other."""
    q = min(degree, ENDLESS)
    products = (q + 1) * (q + 2) // 2 if size.expansion.obstacle is None else 3**q
    return gradient_flops(size) * products
