"""What a comparison will take, in numbers, bytes and operations, before anything is allocated."""

from collections.abc import Sequence
from decimal import Decimal

import equinox as eqx
import numpy as np
from jaxtyping import Int, PyTree
from numpy.typing import ArrayLike

from nthsim.checks import checked_orders, times
from nthsim.datasets import Dataset
from nthsim.footprints import (
    ENDLESS,
    Size,
    comparison_bytes,
    flow_bytes,
    hierarchy_bytes,
    orders_to,
    problem_size,
)
from nthsim.losses import Loss, squared_error
from nthsim.memory import available, largest, readable
from nthsim.problem import pose
from nthsim.tables import table


class Estimate(eqx.Module):
    """What one dynamics takes: numbers that move and that are frozen, bytes at the peak, flops.

    `kernels` is the work of its kernels before the start (for exact flow, of those recorded along
    it), `side` that of one right-hand side, and `gradient` that of one gradient of the loss.
    """

    name: str
    moving: int
    frozen: int
    peak: int
    kernels: int
    side: int
    gradient: int

    def row(self) -> list[str]:
        """Its cells in the table."""
        numbers = [_short(self.moving), _short(self.frozen), readable(self.peak)]
        gradients = Decimal(self.side) / Decimal(max(1, self.gradient))
        work = [_short(self.kernels), _short(self.side), f"{gradients:.2g}"]
        return [self.name, *numbers, *work]


class Plan(eqx.Module):
    """What exact flow and each order will take, and what of it does not fit into `memory` bytes.

    `together` is the peak in bytes of all of them in one `compare`.
    """

    size: Size
    precision: str
    memory: int
    orders: tuple[int, ...]
    estimates: tuple[Estimate, ...]
    together: int

    @property
    def fits(self) -> bool:
        """Whether all of it fits into memory, in one comparison."""
        return self.together <= self.memory

    def __str__(self) -> str:
        """A table for people, and what to change if something does not fit."""
        s = self.size
        about = (
            f"n = {s.n} training and {s.n_test} test points, k = {s.k} "
            f"output{'s' if s.k > 1 else ''}, P = {s.parameters} parameters, {self.precision}, "
            f"{s.save_times} save times"
        )
        heads = ["", "moving", "frozen", "peak", "kernels", "right-hand side", "in gradients"]
        units = ["", "numbers", "numbers", "bytes", "flops", "flops", ""]
        rows = [heads, units, *(estimate.row() for estimate in self.estimates)]
        total = f"all in one comparison: {readable(self.together)} at the peak"
        free = f"{readable(self.memory)} of memory are available"
        return "\n".join([about, "", table(rows), "", f"{total}; {free}", self._verdict()])

    def _verdict(self) -> str:
        if self.fits:
            return "everything fits"
        top = max(self.orders)
        n = largest(lambda n: self._fits(top, n), 1, self.size.n)
        p = largest(lambda p: self._fits(p, self.size.n), 2, top)
        fewer = "no n fits" if n is None else f"the largest n that fits is {n}"
        lower = "no order fits" if p is None else f"the largest order that fits is {p}"
        return f"does not fit: at order {top} {fewer}; at n = {self.size.n} {lower}"

    def _fits(self, top: int, n: int) -> bool:
        orders = orders_to(top, self.orders)
        certified = self.precision == "float64"
        return comparison_bytes(self.size.with_n(n), orders, certified=certified) <= self.memory


def plan(
    model: PyTree,
    data: Dataset,
    orders: Sequence[int] | Int[np.ndarray, " orders"],
    ts: ArrayLike,
    *,
    loss: Loss = squared_error,
    memory: int | None = None,
) -> Plan:
    """Estimate what `compare` would take, before anything is allocated.

    Peaks assume the eighth-order method and recorded kernels, and came within a factor of 1.3 of
    what was measured on a CPU for peaks from 0.2 to 1.4 GB; small ones are mostly the 0.1 GB of one
    chunk and of compilation, more for several programs. The work of kernels, nested Lie
    derivatives, came within a factor of 2 of XLA's own count for orders 2 to 5 of FCN and ResNet.

    Args:
        model: Any Equinox module that maps one input to a scalar or a vector.
        data: Training data and, perhaps, test points.
        orders: The truncation orders p, each at least 2.
        ts: Save times; only their number counts here.
        loss: Differentiable function of one output and one target.
        memory: The bytes to stay within; None means what is free on the device.

    Raises:
        ValueError: When an argument is not as above.
    """
    chosen = checked_orders(orders)
    problem = pose(model, data, loss)
    size = problem_size(problem, len(times(ts)))
    precision = problem.x.dtype.name
    estimates = (_flow_estimate(size), *(_hierarchy_estimate(size, p) for p in chosen))
    together = comparison_bytes(size, chosen, certified=precision == "float64")
    return Plan(size, precision, available(memory), chosen, estimates, together)


def _flow_estimate(size: Size) -> Estimate:
    gradient = _gradient_flops(size)
    return Estimate(
        name="exact flow",
        moving=size.parameters,
        frozen=0,
        peak=flow_bytes(size, recorded=True),
        kernels=size.save_times * _kernel_flops(size, 2),
        side=gradient,
        gradient=gradient,
    )


def _hierarchy_estimate(size: Size, order: int) -> Estimate:
    orders = range(2, min(order, ENDLESS) + 1)
    return Estimate(
        name=f"order {order}",
        moving=size.moving(order),
        frozen=size.entries(order),
        peak=hierarchy_bytes(size, order, recorded=True),
        kernels=sum(_kernel_flops(size, r) for r in orders),
        side=2 * sum(size.entries(r) for r in orders),
        gradient=_gradient_flops(size),
    )


def _gradient_flops(size: Size) -> int:
    """One forward pass and a backward pass of twice its cost, at every training point."""
    return 3 * size.n * size.work.evaluation


def _kernel_flops(size: Size, order: int) -> int:
    return size.work.flops(size.n + size.n_test, size.n * size.k, order)


def _short(number: int) -> str:
    # Decimal, as floats end at 1e308 and some plans do not.
    return f"{number:,}" if number < 10**9 else f"{Decimal(number):.1e}"
