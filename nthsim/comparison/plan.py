"""What a comparison will take, in numbers, bytes and operations, before anything is allocated."""

import textwrap
from collections.abc import Sequence
from decimal import Decimal

import equinox as eqx
import numpy as np
from jaxtyping import Int, PyTree
from numpy.typing import ArrayLike

from nthsim.budget.fits import METHODS, Choice, choose, compared_bytes
from nthsim.budget.size import Size, flow_bytes, hierarchy_bytes, taylor_bytes
from nthsim.budget.work import (
    dense_side_flops,
    gradient_flops,
    kernel_flops,
    kernels_flops,
    recorded_flops,
    series_side_flops,
    taylor_side_flops,
)
from nthsim.dynamics.parameters import Parameters, parameters
from nthsim.dynamics.problem import pose
from nthsim.dynamics.run import Recorded, problem_size, schedule
from nthsim.dynamics.truncations import check_roads
from nthsim.inputs.arrays import choice
from nthsim.inputs.dataset import Dataset
from nthsim.inputs.integers import checked_integers, orders_to
from nthsim.inputs.loss import Loss, squared_error
from nthsim.inputs.memory import available, largest, memory_limit, readable
from nthsim.kernels.work import ENDLESS
from nthsim.results.terminal import COLUMNS, short, table, wrapped
from nthsim.solvers.auto import Auto

#: What the columns of a plan's table hold.
LEGEND = (
    "moving: numbers that are integrated; frozen: those held fixed; kernels: the work of those at "
    "the start, and of those recorded along a run; right-hand side: the work of one, of which a "
    "step takes several; in gradients: the same in gradients of the loss; "
    "k, M, G, T, P: 10^3 to 10^15"
)


class Estimate(eqx.Module):
    """What one dynamics takes: numbers that move and that are frozen, bytes at the peak, flops.

    `kernels` is the work of its kernels before the start (for exact flow, of those recorded along
    it), `side` that of one right-hand side, and `gradient` that of one gradient of the loss.
    `choice` is the road that a truncation takes and the reason for it.
    """

    name: str
    moving: int
    frozen: int
    peak: int
    kernels: int
    side: int
    gradient: int
    choice: Choice | None = None

    def row(self) -> list[str]:
        """Its cells in the table."""
        numbers = [self.moving, self.frozen, self.peak, self.kernels, self.side]
        gradients = Decimal(self.side) / Decimal(max(1, self.gradient))
        method = "" if self.choice is None else self.choice.method
        return [self.name, method, *map(short, numbers), short(gradients)]


class Plan(eqx.Module):
    """What exact flow and each order will take, and what of it does not fit into `memory` bytes.

    `together` is the peak in bytes of all of them in one `compare`; `parameters` is what trains,
    array by array.
    """

    size: Size
    precision: str
    memory: int
    orders: tuple[int, ...]
    degrees: tuple[int, ...]
    method: str
    estimates: tuple[Estimate, ...]
    together: int
    parameters: Parameters

    @property
    def fits(self) -> bool:
        """Whether all of it fits into memory, in one comparison."""
        return self.together <= self.memory

    def __str__(self) -> str:
        """A table for people, and what to change if something does not fit."""
        s = self.size
        about = (
            f"n = {s.n} training and {s.kernel.n_test} test points, k = {s.kernel.k} "
            f"output{'s' if s.kernel.k > 1 else ''}, P = {s.parameters} parameters, "
            f"{self.precision}, {s.save_times} save times"
        )
        heads = ["", "", "moving", "frozen", "peak", "kernels", "right-hand side", "in gradients"]
        units = ["", "", "numbers", "numbers", "bytes", "flops", "flops", ""]
        rows = [heads, units, *(estimate.row() for estimate in self.estimates)]
        total = f"all in one comparison: {readable(self.together)} at the peak"
        free = f"{readable(self.memory)} of memory are available"
        legend = textwrap.fill(LEGEND, COLUMNS)
        chosen = [(e.name, e.choice) for e in self.estimates if e.choice is not None]
        reasons = [wrapped(f"{name}: {choice}") for name, choice in chosen]
        verdict = [f"{total}; {free}", self._verdict()]
        lines = [about, "", table(rows), "", legend, "", *reasons, "", *verdict]
        return "\n".join(lines)

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
        certified, orders = self.precision == "float64", orders_to(top, self.orders)
        sized = self.size.with_n(n)
        with memory_limit(self.memory):
            needed = compared_bytes(sized, orders, self.degrees, self.method, certified=certified)
        return needed <= self.memory


def plan(
    model: PyTree,
    data: Dataset,
    orders: Sequence[int] | Int[np.ndarray, " orders"],
    ts: ArrayLike,
    *,
    taylor: Sequence[int] | Int[np.ndarray, " degrees"] = (),
    loss: Loss = squared_error,
    method: str = "auto",
    record_kernel: Recorded = True,
    memory: int | None = None,
) -> Plan:
    """Estimate what `compare` would take, before anything is allocated.

    Peaks assume the eighth-order method, and came within a factor of 1.5 of what was measured on a
    CPU for peaks from 0.2 to 1.7 GB; small ones are mostly the 0.1 GB of one chunk and of
    compilation, more for several programs. The work of kernels came within a factor of 2 of XLA's
    own count for orders 2 to 5 of FCN and ResNet by nested derivatives.

    Args:
        model: Any Equinox module that maps one input to a scalar or a vector.
        data: Training data and, perhaps, test points.
        orders: The truncation orders p, each at least 2.
        ts: Save times; only their number counts here.
        taylor: Degrees q of Taylor models, each at least 1.
        loss: Differentiable function of one output and one target.
        method: As in `hierarchy`, for every order.
        record_kernel: As in `compare`.
        memory: The bytes to stay within; None means what is free on the device.

    Raises:
        ValueError: When an argument is not as above.
    """
    chosen = checked_integers("orders", orders, 2)
    degrees = checked_integers("taylor", taylor, 1, empty=True)
    choice("method", method, METHODS)
    course = schedule(ts, Auto(), record_kernel)
    problem = pose(model, data, loss)
    size = problem_size(problem, course)
    precision, free = problem.x.dtype.name, available(memory)
    with memory_limit(free):
        estimates = (
            _flow_estimate(size),
            *(_hierarchy_estimate(size, p, method) for p in chosen),
            *(_taylor_estimate(size, q) for q in degrees),
        )
        check_roads(problem, {p: choose(size, p, method) for p in chosen}, degrees)
        certified = precision == "float64"
        together = compared_bytes(size, chosen, degrees, method, certified=certified)
    listed = parameters(model)
    return Plan(size, precision, free, chosen, degrees, method, estimates, together, listed)


def _flow_estimate(size: Size) -> Estimate:
    return Estimate(
        name="exact flow",
        moving=size.parameters,
        frozen=0,
        peak=flow_bytes(size),
        kernels=size.recorded * kernel_flops(size, 2),
        side=gradient_flops(size),
        gradient=gradient_flops(size),
    )


def _hierarchy_estimate(size: Size, order: int, method: str) -> Estimate:
    road = choose(size, order, method)
    dense = road.method == "dense"
    terms = min(order, ENDLESS) - 1
    return Estimate(
        name=f"order {order}",
        moving=size.moving(order) if dense else terms * size.parameters,
        frozen=size.entries(order) if dense else size.parameters,
        peak=hierarchy_bytes(size, order, road.method),
        kernels=(kernels_flops if dense else recorded_flops)(size, order),
        side=(dense_side_flops if dense else series_side_flops)(size, order),
        gradient=gradient_flops(size),
        choice=road,
    )


def _taylor_estimate(size: Size, degree: int) -> Estimate:
    return Estimate(
        name=f"Taylor {degree}",
        moving=size.parameters,
        frozen=size.parameters,
        peak=taylor_bytes(size, degree),
        kernels=size.recorded * size.kernel.work.nested(size.points, size.n * size.kernel.k, 2),
        side=taylor_side_flops(size, degree),
        gradient=gradient_flops(size),
    )
