"""What is to be compared: a training and the curves beside it, checked and settled together."""

import dataclasses
from collections.abc import Iterable, Sequence

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import DTypeLike, PyTree

from nthsim.budget.choice import Choice, check_flow, check_perturbation, check_points
from nthsim.budget.size import Size, comparison_bytes
from nthsim.dynamics.curve import Curve
from nthsim.dynamics.hierarchy import Order
from nthsim.dynamics.problem import Problem
from nthsim.dynamics.run import Run, problem_size
from nthsim.inputs.dataset import Dataset
from nthsim.inputs.integers import orders_to
from nthsim.inputs.loss import Loss, check_quadratic
from nthsim.inputs.memory import available, check_fits
from nthsim.network.regulariser import Regulariser, check_without
from nthsim.solvers.momentum import Momentum


class Asked(eqx.Module):
    """All that a comparison follows from, so that it can be done again.

    `curves` are those beside exact flow. `bounds`, `certify` and `audit` are as in `compare`;
    `rates` are those of all floating arrays of the model, in their order, None if all are one. In
    one that was loaded, what the file alone cannot restore is None (`model`), a name (`loss`,
    `regulariser`) or a solver that tells what it was.
    """

    model: PyTree
    data: Dataset
    loss: Loss | str
    curves: tuple[Curve, ...]
    run: Run
    rates: tuple[float, ...] | None = None
    regulariser: Regulariser | str | None = None
    momentum: Momentum | None = None
    bounds: bool = False
    certify: bool | None = None
    audit: bool = False

    def settled(self, problem: Problem) -> tuple[Curve, ...]:
        """The curves with the methods that they take beside each other.

        Raises:
            ValueError: When a curve or the bounds are not defined for the problem, or something
                does not fit into memory.
        """
        if self.audit:
            _check_audit(self.run, problem.dtype)
        size, certified = problem_size(problem, self.run), self.certified(problem.dtype)
        if self.bounds:
            check_quadratic(problem.residual.loss, "bounds")
            check_without(problem.penalty, "bounds")
            problem.check_unmoved("bounds")
            check_perturbation(size)
            problem.check_kernel(4)
            problem.check_single("bounds")
        for curve in self.curves:
            if not isinstance(curve, Order):  # which are checked together
                curve.check(problem)
                curve.check_memory(size)
        _check_together(self.curves, size, certified=certified)
        chosen = settled(self.curves, size, certified=certified)
        for curve in chosen:
            curve.check(problem)
        return chosen

    def certified(self, dtype: DTypeLike) -> bool:
        """Whether small-time slopes are fitted, which rounding hides in float32."""
        return self.certify is not False and dtype == jnp.float64


def settled(curves: Iterable[Curve], size: Size, *, certified: bool) -> tuple[Curve, ...]:
    """Each with its method; "auto" leaves dense, from the top, what does not fit together."""
    chosen = [curve.settled(size) for curve in curves]
    for i, curve in reversed(list(enumerate(chosen))):
        if not isinstance(curve, Order) or curve.method != "auto" or not size.forward:
            continue
        if compared_bytes(chosen, size, certified=certified) <= available():
            break
        choice = Choice("series", "dense does not fit beside the rest")
        chosen[i] = dataclasses.replace(curve, choice=choice)
    return tuple(chosen)


def compared_bytes(curves: Sequence[Curve], size: Size, *, certified: bool) -> int:
    """The peak of a comparison of curves that have their methods."""
    bare = dataclasses.replace(size, recorded=0, noted=0)
    needs = [curve.needs(bare) for curve in curves]
    return comparison_bytes(size, [(n.peak, n.held) for n in needs], certified=certified)


def lowered(curves: Sequence[Curve], top: int) -> list[Curve]:
    """The same when the highest order is to be `top`."""
    orders = {curve.p: curve for curve in curves if isinstance(curve, Order)}
    highest = orders[max(orders)]
    kept = {top: dataclasses.replace(highest, p=top)} | orders
    others = [curve for curve in curves if not isinstance(curve, Order)]
    return [*(kept[p] for p in orders_to(top, list(orders))), *others]


def _check_together(curves: Sequence[Curve], size: Size, *, certified: bool) -> None:
    """Refuse a comparison that does not fit into memory."""
    check_flow(size)

    def need(curves: Sequence[Curve], n: int) -> int:
        sized = size.with_n(n)
        chosen = settled(curves, sized, certified=certified)
        return compared_bytes(chosen, sized, certified=certified)

    orders = [curve.p for curve in curves if isinstance(curve, Order)]
    if orders:
        check_fits("orders", max(orders), size.n, lambda top, n: need(lowered(curves, top), n))
    else:
        check_points(size, lambda sized: need(curves, sized.n), "the comparison")


def _check_audit(run: Run, dtype: DTypeLike) -> None:
    try:
        run.solver.tightened(dtype)
    except ValueError as error:
        raise ValueError(f"`audit` must find tolerances to tighten, but: {error}") from error
