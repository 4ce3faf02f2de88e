"""What a comparison will take, in numbers, bytes and operations, before anything is allocated."""

import textwrap
from collections.abc import Sequence
from decimal import Decimal

import equinox as eqx
import numpy as np
from jaxtyping import Int, PyTree
from numpy.typing import ArrayLike

from nthsim.budget.choice import Needs
from nthsim.budget.size import Size
from nthsim.budget.work import gradient_flops
from nthsim.comparison.asked import compared_bytes, lowered, settled
from nthsim.comparison.curves import checked_curves
from nthsim.dynamics.curve import EXACT, Curve
from nthsim.dynamics.gradient_flow import flow_needs
from nthsim.dynamics.hierarchy import Order
from nthsim.dynamics.parameters import Parameters, parameters
from nthsim.dynamics.pose import pose
from nthsim.dynamics.run import Run, checked_run, problem_size
from nthsim.inputs.dataset import Dataset
from nthsim.inputs.loss import Loss, squared_error
from nthsim.inputs.memory import available, largest, memory_limit, readable
from nthsim.network.regulariser import Regulariser
from nthsim.results.terminal import COLUMNS, short, table, wrapped
from nthsim.solvers.momentum import Momentum

#: What the columns of a plan's table hold.
LEGEND = (
    "moving: numbers that are integrated; frozen: those held fixed; kernels: the work of those at "
    "the start, and of those recorded along a run; right-hand side: the work of one, of which a "
    "step takes several; in gradients: the same in gradients of the loss; "
    "k, M, G, T, P: 10^3 to 10^15"
)


class Plan(eqx.Module):
    """What exact flow and each curve will take, and what of it does not fit into `memory` bytes.

    `curves` are those beside exact flow, and `needs` what that and each of them takes alone.
    `together` is the peak in bytes of all of them in one `compare`; `parameters` is what trains,
    array by array.
    """

    size: Size
    precision: str
    memory: int
    curves: tuple[Curve, ...]
    needs: tuple[Needs, ...]
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
        rows = [heads, units, *(self._row(key, needs) for key, needs in self._named())]
        total = f"all in one comparison: {readable(self.together)} at the peak"
        free = f"{readable(self.memory)} of memory are available"
        legend = textwrap.fill(LEGEND, COLUMNS)
        reasons = [wrapped(f"{key}: {each.choice}") for key, each in self._named() if each.choice]
        verdict = [f"{total}; {free}", self._verdict()]
        lines = [about, "", table(rows), "", legend, "", *reasons, "", *verdict]
        return "\n".join(lines)

    def _named(self) -> list[tuple[str, Needs]]:
        keys = [EXACT, *(curve.key for curve in self.curves)]
        return list(zip(keys, self.needs, strict=True))

    def _row(self, key: str, each: Needs) -> list[str]:
        """What one dynamics takes, and how many gradients of the loss its right-hand side is."""
        numbers = [each.moving, each.frozen, each.peak, each.kernels, each.side]
        gradients = Decimal(each.side) / Decimal(max(1, gradient_flops(self.size)))
        method = "" if each.choice is None else each.choice.method
        return [key, method, *map(short, numbers), short(gradients)]

    def _verdict(self) -> str:
        if self.fits:
            return "everything fits"
        orders = [curve.p for curve in self.curves if isinstance(curve, Order)]
        top, here = max(orders, default=0), self.size.n
        n = largest(lambda n: self._fits(self.curves, n), 1, here)
        fewer = "no n fits" if n is None else f"the largest n that fits is {n}"
        if not orders:
            return f"does not fit: {fewer}"
        p = largest(lambda p: self._fits(lowered(self.curves, p), here), 2, top)
        lower = "no order fits" if p is None else f"the largest order that fits is {p}"
        return f"does not fit: at order {top} {fewer}; at n = {here} {lower}"

    def _fits(self, curves: Sequence[Curve], n: int) -> bool:
        certified, sized = self.precision == "float64", self.size.with_n(n)
        with memory_limit(self.memory):
            chosen = settled(curves, sized, certified=certified)
            return compared_bytes(chosen, sized, certified=certified) <= self.memory


def plan(
    model: PyTree,
    data: Dataset,
    curves: Sequence[int | Curve] | Int[np.ndarray, " orders"],
    run: Run | ArrayLike,
    *,
    loss: Loss = squared_error,
    rates: PyTree = None,
    regulariser: Regulariser | None = None,
    momentum: Momentum | None = None,
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
        curves: As in `compare`.
        run: As in `compare`; of save times only the number counts here.
        loss: Differentiable function of one output and one target.
        rates: As in `gradient_flow`.
        regulariser: As there.
        momentum: As there.
        memory: The bytes to stay within; None means what is free on the device.

    Raises:
        ValueError: When an argument is not as above.
    """
    chosen = checked_curves(curves)
    run = checked_run(run, ("kernel",), begins=False)
    problem = pose(model, data, loss, rates, regulariser, momentum)
    size, precision, free = problem_size(problem, run), problem.dtype.name, available(memory)
    certified = precision == "float64"
    with memory_limit(free):
        needs = (flow_needs(size), *(curve.needs(size) for curve in chosen))
        beside = settled(chosen, size, certified=certified)
        for curve in beside:
            curve.check(problem)
        together = compared_bytes(beside, size, certified=certified)
    return Plan(size, precision, free, chosen, needs, together, parameters(model, rates=rates))
