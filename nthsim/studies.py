"""Exact training beside its truncated hierarchies: the main job."""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, PyTree
from numpy.typing import ArrayLike

from nthsim.certificates import certified
from nthsim.checks import checked_orders, choice
from nthsim.choices import METHODS
from nthsim.comparison import Comparison
from nthsim.datasets import Dataset
from nthsim.flow import exact
from nthsim.footprints import problem_size
from nthsim.losses import Loss, squared_error
from nthsim.problem import pose
from nthsim.recorders import Recorded
from nthsim.refusals import check_comparison, compared_choices
from nthsim.schedules import schedule
from nthsim.solvers.auto import Auto
from nthsim.solvers.explicit import Explicit
from nthsim.taylor import taylorised
from nthsim.trajectories import SolveError, Trajectory, heard
from nthsim.truncations import Truncations, truncations


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
    loss: Loss = squared_error,
    solver: Explicit | Auto = Auto(),
    method: str = "auto",
    record_kernel: Recorded = True,
    certify: bool | None = None,
    progress: bool = True,
    throw: bool = True,
) -> Comparison:
    """Train `model` exactly and by the hierarchy truncated at each of `orders`, side by side.

    A truncation that blows up is part of the result.

    Args:
        model: Any Equinox module that maps one input to a scalar or a vector.
        data: Training data and, perhaps, passive test points.
        orders: The truncation orders p, each at least 2.
        ts: Save times, shape (T,), non-negative and strictly increasing; time starts at 0.
        taylor: Degrees q of Taylor models to train too, each at least 1.
        loss: Differentiable function of one output and one target.
        solver: Method, tolerances and step limit, for all dynamics.
        method: As in `hierarchy`, for every order.
        record_kernel: Whether each trajectory records its tangent kernel at each save time; or at
            which of `ts`.
        certify: Whether to fit the small-time slopes, which is only done in float64; None fits
            those of the orders that are integrated dense.
        progress: Whether to show progress bars when on a terminal.
        throw: Whether an exact flow that ends early raises, once everything else is done.

    Raises:
        ValueError: When an argument is not as above, or something does not fit into memory.
        CompareError: When the exact flow ends early and `throw`, or at Ctrl-C; its `.comparison`
            holds what was computed.
    """
    orders = checked_orders(orders)
    degrees = checked_orders(taylor, name="taylor", least=1, empty=True)
    choice("method", method, METHODS)
    course = schedule(ts, solver, record_kernel)
    problem = pose(model, data, loss)
    slopes = certify is not False and problem.x.dtype == jnp.float64
    size = problem_size(problem, course)
    check_comparison(size, orders, degrees, method, certified=slopes)
    roads = compared_choices(size, orders, degrees, method, certified=slopes)
    bench = _Bench(
        Comparison(
            model=model,
            data=data,
            loss=loss,
            solver=solver,
            orders=(),
            ts=course.ts,
            exact=exact(problem, course, progress=progress),
            truncations=(),
            certificate=None,
            wanted=orders,
            wanted_degrees=degrees,
            certify=certify,
            kernel_ts=tuple(course.kernel_ts.tolist()),
            method=method,
        )
    )
    try:
        heard(bench.study.exact)
        prepared = truncations(problem, roads, progress=progress)
        bench.add_start(prepared)
        for p in orders:
            bench.add("orders", "truncations", p, prepared.integrate(p, course, progress=progress))
        for q in degrees:
            bench.add("degrees", "taylorised", q, taylorised(problem, q, course, progress=progress))
        if slopes:
            bench.certify(prepared, progress=progress)
    except KeyboardInterrupt as interrupt:
        raise CompareError(bench.study) from interrupt
    if bench.study.exact.stop.failed and throw:
        raise CompareError(bench.study)
    return bench.study


class _Bench:
    """A comparison in the making, of which nothing is lost at Ctrl-C."""

    def __init__(self, study: Comparison) -> None:
        self.study = study

    def add_start(self, prepared: Truncations) -> None:
        """What the truncations start from."""
        self.study = dataclasses.replace(self.study, kernel_seconds=prepared.seconds)
        if len(self.study.kernel_ts):
            self.study = dataclasses.replace(self.study, initial_kernel=prepared.initial_kernel())

    def add(self, kinds: str, runs: str, kind: int, run: Trajectory) -> None:
        """One more run."""
        more = ((kinds, kind), (runs, run))
        longer = {name: (*getattr(self.study, name), one) for name, one in more}
        self.study = dataclasses.replace(self.study, **longer)
        heard(run)

    def certify(self, prepared: Truncations, *, progress: bool) -> None:
        """The slopes that were wanted, if any can be had."""
        orders = prepared.orders(None if self.study.certify else "dense")
        if orders:
            fits = certified(prepared, orders, progress=progress)
            self.study = dataclasses.replace(self.study, certificate=fits)


def again(study: Comparison, *, progress: bool) -> Comparison:
    """Compute a comparison again, as `Comparison.rerun` documents it."""
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
        loss=loss,
        solver=solver,
        method=study.method,
        record_kernel=study.kernel_ts or False,
        certify=study.certify,
        progress=progress,
        throw=False,
    )
