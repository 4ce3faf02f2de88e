"""Exact training beside its truncated hierarchies: the main job."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from functools import partial

import jax.numpy as jnp
import numpy as np
from jaxtyping import DTypeLike, Int, PyTree
from numpy.typing import ArrayLike

from nthsim.budget.fits import METHODS, check_comparison, compared_choices
from nthsim.comparison.asked import THEORIES, check_theories, checked_theories, predicting
from nthsim.comparison.bounds import bounded
from nthsim.comparison.certificate import certified
from nthsim.comparison.comparison import Comparison
from nthsim.dynamics.errors import audited
from nthsim.dynamics.gradient_flow import exact
from nthsim.dynamics.problem import pose
from nthsim.dynamics.run import Recorded, Schedule, problem_size, schedule
from nthsim.dynamics.taylor import taylorised
from nthsim.dynamics.trajectory import SolveError, Trajectory, heard
from nthsim.dynamics.truncations import FOURTH, Truncations, check_roads, truncations, with_fourth
from nthsim.inputs.arrays import choice, concrete
from nthsim.inputs.dataset import Dataset
from nthsim.inputs.integers import checked_integers
from nthsim.inputs.loss import Loss, squared_error
from nthsim.solvers.auto import Auto
from nthsim.solvers.solver import AbstractSolver
from nthsim.solvers.until import Until


class CompareError(SolveError):
    """A comparison without its whole exact flow; what was computed is in `.comparison`."""

    def __init__(self, comparison: Comparison) -> None:
        """Say why and where it ended."""
        super().__init__(comparison.exact)
        self.comparison = comparison


def compare(
    model: PyTree,
    data: Dataset,
    orders: Sequence[int] | Int[np.ndarray, " orders"],
    ts: ArrayLike,
    *,
    taylor: Sequence[int] | Int[np.ndarray, " degrees"] = (),
    theories: Sequence[str] = (),
    bounds: bool = False,
    loss: Loss = squared_error,
    solver: AbstractSolver = Auto(),
    until: Until = Until(),
    checkpoint: str | os.PathLike[str] | None = None,
    method: str = "auto",
    record_kernel: Recorded = True,
    certify: bool | None = None,
    audit: bool = False,
    progress: bool = True,
    throw: bool = True,
) -> Comparison:
    r"""Train `model` exactly and by the hierarchy truncated at each of `orders`, side by side.

    A truncation that blows up is part of the result.

    Args:
        model: Any Equinox module that maps one input to a scalar or a vector.
        data: Training data and, perhaps, passive test points.
        orders: The truncation orders p, each at least 2.
        ts: Save times, shape (T,), non-negative and strictly increasing; time starts at 0.
        taylor: Degrees q of Taylor models to train too, each at least 1.
        theories: Predictions to draw too: "limit" trains with the kernel of infinite width
            (`limit_flow`), "perturbation" is the first order in 1/m (`perturbation`).
        bounds: Whether to evaluate a-priori bounds on the error of order 2 and on the movement of
            the kernel, which takes $K^{(4)}$ before and after training (`Bounds`).
        loss: Differentiable function of one output and one target.
        solver: Method, tolerances and step limit, for all dynamics.
        until: When exact flow is to stop before the last save time: an `Until` with a loss, a
            gradient's norm, a rate of the loss or seconds. The others then run to the same time.
        method: As in `hierarchy`, for every order.
        record_kernel: Whether each trajectory records its tangent kernel at each save time; or at
            which of `ts`.
        certify: Whether to fit the small-time slopes, which is only done in float64; None fits
            those of the orders that are integrated dense.
        checkpoint: A folder that every run is kept in as it goes, made if need be. The same call
            again goes on from there; `until` and the step limit may change in between.
        audit: Whether to solve everything once more, ten times as tightly, so that table and
            figure mark what lies below the error of solving.
        progress: Whether to show progress bars when on a terminal.
        throw: Whether an exact flow that ends early raises, once everything else is done.

    Raises:
        ValueError: When an argument is not as above, or something does not fit into memory.
        CompareError: When the exact flow ends early and `throw`, or at Ctrl-C; its `.comparison`
            holds what was computed.
    """
    concrete("compare", model, data, ts)
    orders = checked_integers("orders", orders, 2)
    degrees = checked_integers("taylor", taylor, 1, empty=True)
    words = checked_theories(theories)
    choice("method", method, METHODS)
    course = schedule(ts, solver, record_kernel, until, checkpoint)
    problem = pose(model, data, loss)
    if audit:
        _check_audit(solver, problem.x.dtype)
    slopes = certify is not False and problem.x.dtype == jnp.float64
    size = problem_size(problem, course)
    check_theories(words, model, loss, size, bounded=bounds)
    check_comparison(size, orders, degrees, method, certified=slopes)
    roads = compared_choices(size, orders, degrees, method, certified=slopes)
    check_roads(problem, roads, degrees)
    if bounds or "perturbation" in words:
        check_roads(problem, FOURTH)
    bench = _Bench(
        Comparison(
            model=model,
            data=data,
            loss=loss,
            solver=solver,
            orders=(),
            ts=course.ts,
            exact=exact(problem, course, progress=progress),
            audit=audit,
            truncations=(),
            certificate=None,
            wanted=orders,
            wanted_degrees=degrees,
            wanted_theories=words,
            wanted_bounds=bounds,
            certify=certify,
            until=until,
            kernel_ts=tuple(course.kernel_ts.tolist()),
            method=method,
        )
    )
    try:
        heard(bench.study.exact)
        course = course.after(bench.study.exact)
        if audit:
            bench.audit(partial(exact, problem, progress=progress), course)
        prepared = truncations(problem, roads, progress=progress)
        bench.add_start(prepared)
        bench.add_all(prepared, course, progress=progress)
        if slopes:
            bench.certify(prepared, progress=progress)
    except KeyboardInterrupt as interrupt:
        raise CompareError(bench.study) from interrupt
    if bench.study.exact.stop.failed and throw:
        raise CompareError(bench.study)
    return bench.study


def _check_audit(solver: AbstractSolver, dtype: DTypeLike) -> None:
    try:
        solver.tightened(dtype)
    except ValueError as error:
        raise ValueError(f"`audit` must find tolerances to tighten, but: {error}") from error


class _Bench:
    """A comparison in the making, of which nothing is lost at Ctrl-C."""

    def __init__(self, study: Comparison) -> None:
        self.study = study

    def add_start(self, prepared: Truncations) -> None:
        """What the truncations start from."""
        self.study = dataclasses.replace(self.study, kernel_seconds=prepared.seconds)
        if len(self.study.kernel_ts):
            self.study = dataclasses.replace(self.study, initial_kernel=prepared.initial_kernel())

    def audit(self, flow: Callable[[Schedule], Trajectory], course: Schedule) -> None:
        """The solver error of exact flow."""
        checked = audited(self.study.exact, flow, course)
        self.study = dataclasses.replace(self.study, exact=checked)

    def add_all(self, prepared: Truncations, course: Schedule, *, progress: bool) -> None:
        """All that was asked for beside exact flow: orders, Taylor models, theories and bounds."""
        study, problem = self.study, prepared.problem
        for p in study.wanted:
            self.add_order(p, partial(prepared.integrate, p, progress=progress), course)
        for q in study.wanted_degrees:
            degree = partial(taylorised, problem, q, progress=progress)
            self.add(f"Taylor {q}", degree, course)
        known = prepared
        if study.wanted_bounds or "perturbation" in study.wanted_theories:
            known = with_fourth(prepared, progress=progress)
            self.add_start(known)
        for word in study.wanted_theories:
            theory = predicting(word, problem, study.model, known, progress=progress)
            self.add(THEORIES[word], theory, course, audit=False)
        if study.wanted_bounds:
            found = bounded(problem, study.model, study.exact, known.kernels[:4])
            self.study = dataclasses.replace(self.study, bounds=found)

    def add_order(
        self, order: int, integrate: Callable[[Schedule], Trajectory], course: Schedule
    ) -> None:
        """The truncation at one more order."""
        study = self.study

        def put(run: Trajectory) -> None:
            longer = {"orders": (*study.orders, order), "truncations": (*study.truncations, run)}
            self.study = dataclasses.replace(study, **longer)

        self._run(put, integrate, course, audit=study.audit)

    def add(
        self,
        name: str,
        integrate: Callable[[Schedule], Trajectory],
        course: Schedule,
        *,
        audit: bool = True,
    ) -> None:
        """One more run by its name, audited if all are and it can be."""
        study = self.study

        def put(run: Trajectory) -> None:
            self.study = dataclasses.replace(study, further=study.further | {name: run})

        self._run(put, integrate, course, audit=audit and study.audit)

    def certify(self, prepared: Truncations, *, progress: bool) -> None:
        """The slopes that were wanted, if any can be had."""
        orders = prepared.orders(None if self.study.certify else "dense")
        if orders:
            fits = certified(prepared, orders, progress=progress)
            self.study = dataclasses.replace(self.study, certificate=fits)

    def _run(
        self,
        put: Callable[[Trajectory], None],
        integrate: Callable[[Schedule], Trajectory],
        course: Schedule,
        *,
        audit: bool,
    ) -> None:
        """Keep a run, and keep it again once its solver error is known."""
        run = integrate(course)
        put(run)
        heard(run)
        if audit:
            put(audited(run, integrate, course))


def rerun(study: Comparison, *, progress: bool = True) -> Comparison:
    """Compute all of a comparison again, from the initial parameters.

    Raises:
        ValueError: When the file that it was loaded from could not restore all that it takes.
    """
    loss, solver = study.loss, study.solver
    if study.model is None:
        raise ValueError(
            "`model` must be known to compute this again, but is None: load the file with "
            "`model=`, a module of the same structure."
        )
    if isinstance(loss, str):
        raise ValueError(
            f"`loss` must be a function to compute this again, but only its name is known: "
            f"load the file with `loss=`, the function {loss}."
        )
    if isinstance(solver, str):
        raise ValueError(
            f"`solver` must be one of nthsim's to compute this again, but is {solver}."
        )
    return compare(
        study.model,
        study.data,
        study.wanted,
        study.ts,
        taylor=study.wanted_degrees,
        theories=study.wanted_theories,
        bounds=study.wanted_bounds,
        loss=loss,
        solver=solver,
        method=study.method,
        record_kernel=study.kernel_ts or False,
        certify=study.certify,
        until=study.until,
        audit=study.audit,
        progress=progress,
        throw=False,
    )
