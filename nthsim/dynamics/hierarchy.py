"""Truncated training: the Neural Tangent Hierarchy up to order p."""

import dataclasses
import math
import os

import numpy as np
from jaxtyping import PyTree
from numpy.typing import ArrayLike

from nthsim.budget.fits import METHODS, check_hierarchy, choose
from nthsim.budget.size import Size
from nthsim.dynamics.errors import rms
from nthsim.dynamics.problem import Problem, pose
from nthsim.dynamics.run import Recorded, Schedule, problem_size, schedule
from nthsim.dynamics.trajectory import Ladder, SolveError, Trajectory
from nthsim.dynamics.truncations import check_roads, truncations
from nthsim.inputs.arrays import choice, concrete, real
from nthsim.inputs.dataset import Dataset
from nthsim.inputs.integers import count
from nthsim.inputs.loss import Loss, squared_error
from nthsim.solvers.auto import Auto
from nthsim.solvers.solver import AbstractSolver
from nthsim.solvers.until import Until


def hierarchy(
    model: PyTree,
    data: Dataset,
    order: int | str,
    ts: ArrayLike,
    *,
    tol: float = 1e-3,
    max_order: int = 8,
    method: str = "auto",
    loss: Loss = squared_error,
    solver: AbstractSolver = Auto(),
    until: Until = Until(),
    checkpoint: str | os.PathLike[str] | None = None,
    record_kernel: Recorded = False,
    progress: bool = True,
    throw: bool = True,
) -> Trajectory:
    r"""Integrate the hierarchy truncated at order p: $\tilde f, \tilde K^{(2)}, \dots$ over time.

    $\tilde K^{(p)}$ stays at its value at t = 0, so that order 2 is training with the frozen
    tangent kernel; the residual is its own (Huang & Yau 2019, arXiv 1909.08156). The error
    against exact flow is $O(t^p)$. A truncation may run to infinity in finite time, odd orders
    first: that ends the run with reason "blow-up".

    Args:
        model: Any Equinox module that maps one input to a scalar or a vector.
        data: Training data and, perhaps, test points, which are carried along passively.
        order: The order p, at least 2; or "auto" for the first that differs from the one before it
            by at most `tol` all along.
        ts: Save times, shape (T,), non-negative and strictly increasing; time starts at 0.
        tol: The root mean square difference of f that "auto" is content with, on training and on
            test points.
        max_order: The highest order that "auto" tries.
        method: "dense" integrates the tensors themselves, (n·k)^p numbers; "series" integrates
            p - 1 copies of the parameters, whose Taylor coefficients give the same truncation
            without any tensor; "auto" takes the one that should be quicker, and says why in
            `method`.
        loss: Differentiable function of one output and one target.
        solver: Method, tolerances and step limit.
        until: When to stop before the last save time: an `Until` with a loss, a gradient's norm, a
            rate of the loss or seconds. The state there is recorded as one more save time.
        record_kernel: Whether to record $\tilde K^{(2)}$ at each save time; or at which of `ts`.
        checkpoint: A folder that every run is kept in as it goes, made if need be. The same call
            again goes on from there; `until` and the step limit may change in between.
        progress: Whether to show progress bars when on a terminal.
        throw: Whether a run that ends early raises, or returns what it has with the reason.

    Returns:
        The trajectory; that of a series has its `contributions`, and that of order "auto" a
        `ladder`, which says how the order was found.

    Raises:
        ValueError: When an argument is not as above, or the tensors do not fit into memory.
        SolveError: When the run ends early (step limit, blow-up, not finite, interrupted), or no
            order up to `max_order` is within `tol`, and `throw`; its `.trajectory` holds what was
            computed.
    """
    concrete("hierarchy", model, data, ts)
    choice("method", method, METHODS)
    course = schedule(ts, solver, record_kernel, until, checkpoint)
    found = isinstance(order, str)
    if found:
        choice("order", order, ("auto",))
        if until != Until():
            raise ValueError('`until` must be left out where `order` is "auto", but is given.')
        tol, max_order = _tolerance(tol), count("max_order", max_order, 3)
    problem = pose(model, data, loss)
    size = problem_size(problem, course)
    if found:
        run = _climbed(problem, size, course, tol, max_order, method, progress=progress)
    else:
        order = count("order", order, 2)
        check_hierarchy(size, order, method)
        roads = {order: choose(size, order, method)}
        check_roads(problem, roads)
        run = truncations(problem, roads, progress=progress).integrate(
            order, course, progress=progress
        )
    missed = run.ladder is not None and not run.ladder.reached
    if (run.stop.failed or missed) and throw:
        raise SolveError(run)
    return run


def _climbed(
    problem: Problem,
    size: Size,
    course: Schedule,
    tol: float,
    max_order: int,
    method: str,
    *,
    progress: bool,
) -> Trajectory:
    """The first order that is within `tol` of the one before it, or the last that was tried."""
    check_hierarchy(size, 3, method, name="max_order")
    runs: list[Trajectory] = []
    differences: list[float] = []
    prepared, ended = None, ""
    for p in range(2, max_order + 1):
        try:
            check_hierarchy(size, p, method, name="max_order")
            roads = {p: choose(size, p, method)}
            check_roads(problem, roads)
            prepared = truncations(problem, roads, known=prepared, progress=progress)
            run = prepared.integrate(p, course, progress=progress)
        except (ValueError, KeyboardInterrupt) as error:
            if len(runs) < 2:
                raise
            ended = str(error) or "interrupted"
            break
        if run.stop.reason in ("interrupt", "step limit") and len(runs) > 1:
            ended = f"order {p}: {run.stop}"
            break
        runs.append(run)
        if len(runs) > 1:
            differences.append(_difference(runs[-2], runs[-1], course))
        if run.stop.reason == "interrupt" or (differences and differences[-1] <= tol):
            break
    orders = tuple(range(2, 2 + len(runs)))
    reached = bool(differences) and differences[-1] <= tol
    ladder = Ladder(orders, tuple(differences), tol, reached, ended)
    return dataclasses.replace(runs[-1], ladder=ladder)


def _difference(one: Trajectory, other: Trajectory, course: Schedule) -> float:
    """The largest over time; infinite where either did not get to the end."""
    if not len(one.ts) == len(other.ts) == len(course.ts):
        return math.inf
    pairs = ((one.f, other.f), (one.f_test, other.f_test))
    return max(float(rms(a - b).max()) for a, b in pairs if a is not None and b is not None)


def _tolerance(tol: object) -> float:
    value = real("tol", tol)
    if value.ndim or not (np.isfinite(value) and value > 0):
        raise ValueError(f"`tol` must be a positive number, but is {tol!r}.")
    return float(value)
