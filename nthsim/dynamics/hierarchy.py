"""Truncated training: the Neural Tangent Hierarchy up to order p."""

import dataclasses
import math

import equinox as eqx
import numpy as np
from jaxtyping import PyTree
from numpy.typing import ArrayLike

from nthsim.budget.choice import METHODS, Choice, Needs, check_hierarchy, choose
from nthsim.budget.size import Size, hierarchy_bytes
from nthsim.budget.work import (
    dense_side_flops,
    kernels_flops,
    recorded_flops,
    series_side_flops,
)
from nthsim.dynamics.curve import Curve
from nthsim.dynamics.errors import rms
from nthsim.dynamics.ladder import Ladder
from nthsim.dynamics.pose import pose
from nthsim.dynamics.problem import Problem
from nthsim.dynamics.recorder import check_everywhere
from nthsim.dynamics.run import Run, checked_run, problem_size
from nthsim.dynamics.solve_error import SolveError
from nthsim.dynamics.start import Start
from nthsim.dynamics.trajectory import Trajectory
from nthsim.dynamics.truncations import integrated_dense, integrated_series
from nthsim.inputs.arrays import choice, concrete, real
from nthsim.inputs.dataset import Dataset
from nthsim.inputs.integers import count
from nthsim.inputs.loss import Loss, squared_error
from nthsim.kernels.derivatives import check_forward
from nthsim.kernels.work import ENDLESS
from nthsim.network.regulariser import Regulariser, check_without
from nthsim.solvers.momentum import Momentum
from nthsim.solvers.until import Until


class Order(Curve):
    r"""The hierarchy truncated at order p, by `method` as in `hierarchy`.

    Raises:
        ValueError: When p is no integer of at least 2, or there is no such method.
    """

    p: int = eqx.field(converter=lambda p: count("order", p, 2))
    method: str = eqx.field(default="auto", kw_only=True)
    choice: Choice | None = eqx.field(default=None, kw_only=True)

    def __check_init__(self):
        """Check what a user said."""
        choice("method", self.method, METHODS)

    @property
    def key(self) -> str:
        """Such as "order 3"."""
        return f"order {self.p}"

    @property
    def rank(self) -> int:
        """Tensors start from kernels, series from none."""
        assert self.choice is not None
        return self.p if self.choice.method == "dense" else 0

    def settled(self, size: Size) -> "Order":
        """The same with the method that it takes; "auto" is the one that should be quicker."""
        if size.momentum and self.p > 2 and self.method == "auto":
            choice = Choice("series", "momentum has no tensors above order 2")
            return dataclasses.replace(self, choice=choice)
        return dataclasses.replace(self, choice=choose(size, self.p, self.method))

    def check(self, problem: Problem) -> None:
        """Refuse derivatives that the model does not allow."""
        assert self.choice is not None
        if problem.momentum is not None and self.p > 2 and self.choice.method == "dense":
            raise ValueError(
                '`method` must be "series" for momentum above order 2, but is "dense".'
            )
        if self.choice.method == "series":
            check_forward(problem.forward, f"{self.key} as a series")
        else:
            problem.check_kernel(self.p)

    def check_memory(self, size: Size) -> None:
        """By the method that it takes."""
        check_hierarchy(size, self.p, self.method)

    def needs(self, size: Size) -> Needs:
        """By the method that it takes."""
        choice = self.choice or self.settled(size).choice
        assert choice is not None
        dense, terms = choice.method == "dense", min(self.p, ENDLESS) - 1
        return Needs(
            moving=size.moving(self.p) if dense else terms * size.parameters,
            frozen=size.entries(self.p) if dense else size.parameters,
            peak=hierarchy_bytes(size, self.p, choice.method),
            kernels=(kernels_flops if dense else recorded_flops)(size, self.p),
            side=(dense_side_flops if dense else series_side_flops)(size, self.p),
            held=size.itemsize * (size.entries(self.p) + size.moving(self.p)) if dense else 0,
            choice=choice,
        )

    def trajectory(self, run: Run, start: Start, *, progress: bool) -> Trajectory:
        """By the method that it takes."""
        assert self.choice is not None
        words = {"name": f"order-{self.p} truncation", "why": str(self.choice)}
        if self.choice.method == "dense":
            kernels = start.kernels(self.p)
            return integrated_dense(start.problem, kernels, run, **words, progress=progress)
        return integrated_series(start.expandable(self.p), self.p, run, **words, progress=progress)


def hierarchy(
    model: PyTree,
    data: Dataset,
    order: int | str,
    run: Run | ArrayLike,
    *,
    tol: float = 1e-3,
    max_order: int = 8,
    method: str = "auto",
    loss: Loss = squared_error,
    rates: PyTree = None,
    regulariser: Regulariser | None = None,
    momentum: Momentum | None = None,
    progress: bool = True,
) -> Trajectory:
    r"""Integrate the hierarchy truncated at order p: $\tilde f, \tilde K^{(2)}, \dots$ over time.

    $\tilde K^{(p)}$ stays at its value at t = 0, so that order 2 is training with the frozen
    tangent kernel; the residual is its own (Huang & Yau 2019, arXiv 1909.08156). The error
    against exact flow is $O(t^p)$. A truncation may run to infinity in finite time, odd orders
    first: that ends the run with reason "blow-up".

    What is not told here is as in `gradient_flow`; a kernel that is recorded is $\tilde K^{(2)}$.

    Args:
        model: Its kernels are taken at t = 0.
        data: Test points are carried along passively.
        order: The order p, at least 2; or "auto" for the first that differs from the one before it
            by at most `tol` all along, as that does from the one before.
        run: Each order has a file of its own in its checkpoint.
        tol: The root mean square difference of f that "auto" is content with, on training and on
            test points.
        max_order: The highest order that "auto" tries.
        method: "dense" integrates the tensors themselves, (n·k)^p numbers; "series" integrates
            p - 1 copies of the parameters, whose Taylor coefficients give the same truncation
            without any tensor; "auto" takes the one that should be quicker, and says why in
            `method`.
        loss: Any.
        rates: As there: every direction $\nabla f_b$ is $D \nabla f_b$.
        regulariser: As there: one more output R with the constant residual 1, whose direction
            $\nabla R$ takes a place in every slot but the first; derivatives of kernels are nested.
            At order 2 decay towards the start has no effect, as $\nabla R$ is zero there.
        momentum: As there; the error against exact flow is then $O(t^{2p})$, and from order 3 on
            there are no tensors, only series.
        progress: Of kernels and of the integration.

    Returns:
        The trajectory; that of a series has its `contributions`, and that of order "auto" a
        `ladder`, which says how the order was found.

    Raises:
        ValueError: When the tensors do not fit into memory, or the model does not allow the
            derivatives.
        SolveError: As there, at a blow-up too, and when no order up to `max_order` is within `tol`.
    """
    run = checked_run(run)
    concrete("hierarchy", model, data, run.ts, regulariser)
    choice("method", method, METHODS)
    check_everywhere(run.record, "a truncation")
    found = isinstance(order, str)
    if found:
        if order != "auto":
            raise ValueError(
                f'`order` must be an integer of at least 2 or "auto", but is {order!r}.'
            )
        if run.until != Until():
            raise ValueError('`until` must be left out where `order` is "auto", but is given.')
        tol, max_order = _tolerance(tol), count("max_order", max_order, 4)
    problem = pose(model, data, loss, rates, regulariser, momentum)
    if run.until.falling:
        check_without(problem.penalty, "a truncation that is to stop at a gradient or stalled")
    size, start = problem_size(problem, run), Start(problem, progress=progress)
    if found:
        solved = _climbed(start, size, run, tol, max_order, method, progress=progress)
    else:
        asked = Order(order, method=method)
        asked.check_memory(size)
        curve = asked.settled(size)
        curve.check(problem)
        solved = curve.trajectory(run, start, progress=progress)
    missed = solved.ladder is not None and not solved.ladder.reached
    if (solved.stop.failed or missed) and run.throw:
        raise SolveError(solved)
    return solved


def _climbed(
    start: Start,
    size: Size,
    run: Run,
    tol: float,
    max_order: int,
    method: str,
    *,
    progress: bool,
) -> Trajectory:
    """The first order that is within `tol` of the two before it, or the last that was tried."""
    check_hierarchy(size, 3, method, name="max_order")
    found: list[Trajectory] = []
    differences: list[float] = []
    ended = ""
    for p in range(2, max_order + 1):
        try:
            check_hierarchy(size, p, method, name="max_order")
            curve = Order(p, method=method).settled(size)
            curve.check(start.problem)
            solved = curve.trajectory(run, start, progress=progress)
        except (ValueError, KeyboardInterrupt) as error:
            if len(found) < 2:
                raise
            ended = str(error) or "interrupted"
            break
        if solved.stop.reason in ("interrupt", "step limit") and len(found) > 1:
            ended = f"order {p}: {solved.stop}"
            break
        found.append(solved)
        if len(found) > 1:
            differences.append(_difference(found[-2], found[-1], run))
        if solved.stop.reason == "interrupt" or Ladder.found(differences, tol):
            break
    orders = tuple(range(2, 2 + len(found)))
    reached = Ladder.found(differences, tol)
    ladder = Ladder(orders, tuple(differences), tol, reached, ended)
    return dataclasses.replace(found[-1], ladder=ladder)


def _difference(one: Trajectory, other: Trajectory, run: Run) -> float:
    """The largest over time; infinite where either did not get to the end."""
    if not len(one.ts) == len(other.ts) == len(run.ts):
        return math.inf
    pairs = ((one.f, other.f), (one.f_test, other.f_test))
    return max(float(rms(a - b).max()) for a, b in pairs if a is not None and b is not None)


def _tolerance(tol: object) -> float:
    value = real("tol", tol)
    if value.ndim or not (np.isfinite(value) and value > 0):
        raise ValueError(f"`tol` must be a positive number, but is {tol!r}.")
    return float(value)
