"""Exact training beside its truncated hierarchies: the main job."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from jaxtyping import Int, PyTree
from numpy.typing import ArrayLike

from nthsim.comparison.asked import Asked
from nthsim.comparison.bounds import bounded
from nthsim.comparison.certificate import certified
from nthsim.comparison.comparison import Comparison
from nthsim.comparison.curves import checked_curves
from nthsim.comparison.fingerprint import Fingerprint, fingerprint
from nthsim.dynamics.curve import EXACT, Curve
from nthsim.dynamics.errors import audited
from nthsim.dynamics.gradient_flow import exact
from nthsim.dynamics.hierarchy import Order
from nthsim.dynamics.pose import pose
from nthsim.dynamics.problem import Problem
from nthsim.dynamics.recipes import UnknownSolver
from nthsim.dynamics.run import Run, checked_run
from nthsim.dynamics.solve_error import SolveError, raise_if_interrupted
from nthsim.dynamics.start import Start
from nthsim.dynamics.trajectory import Trajectory
from nthsim.inputs.arrays import concrete
from nthsim.inputs.dataset import Dataset
from nthsim.inputs.integers import check_truths, shown
from nthsim.inputs.loss import Loss, squared_error
from nthsim.network.failures import kind_and_line
from nthsim.network.rates import listed, placed
from nthsim.network.regulariser import Regulariser
from nthsim.solvers.momentum import Momentum


class CompareError(SolveError):
    """A comparison without its whole exact flow; what was computed is in `.comparison`."""

    def __init__(self, comparison: Comparison, why: str = "") -> None:
        """Say why and where it ended."""
        super().__init__(comparison.exact)
        exact = comparison.exact
        self.comparison, self.why = comparison, why or f"{exact.name}: {exact.stop}"
        if why:
            done = ", ".join([EXACT, *comparison.curves])
            self.args = (f"{why}; {done} are kept in `.comparison`",)


def compare(
    model: PyTree,
    data: Dataset,
    curves: Sequence[int | Curve] | Int[np.ndarray, " orders"],
    run: Run | ArrayLike,
    *,
    loss: Loss = squared_error,
    rates: PyTree = None,
    regulariser: Regulariser | None = None,
    momentum: Momentum | None = None,
    bounds: bool = False,
    certify: bool | None = None,
    audit: bool = False,
    progress: bool = True,
) -> Comparison:
    r"""Train `model` exactly, and set curves beside it: truncations, Taylor models, theories.

    A truncation that blows up is part of the result.

    Args:
        model: Any Equinox module that maps one input to a scalar or a vector.
        data: Training data and, perhaps, passive test points.
        curves: The orders p of truncations, each at least 2, and other curves: `Order(p, method=)`,
            `Taylor(q)`, `LimitKernel()` (`limit_flow`), `Perturbation()` (`perturbation`).
        run: Save times, shape (T,), or a `Run`, which is that of all curves; its `until` is for
            exact flow, and so is its `throw`, once everything else is done. The tangent kernel of
            each is recorded unless the run says otherwise.
        loss: Differentiable function of one output and one target.
        rates: As in `gradient_flow`.
        regulariser: As there; curves of infinite width, perturbation theory and bounds have none.
        momentum: As there, of all curves but steps, which have their own; perturbation theory, the
            modified flow and bounds have none.
        bounds: Whether to evaluate a-priori bounds on the error of order 2 and on the movement of
            the kernel, which takes $K^{(4)}$ before and after training (`Bounds`).
        certify: Whether to fit the small-time slopes, which is only done in float64; None fits
            those of the orders that are integrated dense.
        audit: Whether to solve everything once more, ten times as tightly, so that table and
            figure mark what lies below the error of solving.
        progress: Whether to show progress bars when on a terminal.

    Raises:
        ValueError: When an argument is not as above, or something does not fit into memory.
        CompareError: When the exact flow ends early, at Ctrl-C, or when a curve fails; its
            `.comparison` holds what was computed.
    """
    check_truths(bounds=bounds, certify=certify is None or certify, audit=audit)
    run = checked_run(run, ("kernel",))
    concrete("compare", model, data, run.ts, regulariser)
    chosen = checked_curves(curves)
    asked = Asked(
        model,
        data,
        loss,
        chosen,
        run,
        rates=listed(rates, model),
        regulariser=regulariser,
        momentum=momentum,
        bounds=bounds,
        certify=certify,
        audit=audit,
    )
    return _compared(asked, progress=progress)


def rerun(study: Comparison, *, progress: bool = True) -> Comparison:
    """Compute all of a comparison again, from the initial parameters.

    Raises:
        ValueError: When the file that it was loaded from could not restore all that it takes, or
            model, loss or regulariser compute something else than they did.
    """
    if not isinstance(study, Comparison):
        raise ValueError(f"`study` must be a Comparison, but is {shown(study)}.")
    asked = study.asked
    if asked.model is None:
        raise ValueError(
            "`model` must be known to compute this again, but is None: load the file with "
            "`model=`, a module of the same structure."
        )
    if isinstance(asked.loss, str):
        raise ValueError(
            f"`loss` must be a function to compute this again, but only its name is known: "
            f"load the file with `loss=`, the function {asked.loss}."
        )
    if isinstance(asked.regulariser, str):
        raise ValueError(
            "`regulariser` must be a function to compute this again, but only its name is known: "
            f"load the file with `regulariser=`, the function {asked.regulariser}."
        )
    if isinstance(asked.run.solver, UnknownSolver):
        raise ValueError(
            "`solver` must be one of nthsim's to compute this again, but is "
            f"{asked.run.solver.description}."
        )
    known = {each.name for each in asked.run.record or ()}
    lost = [name for name in study.recorded if name not in known]
    if lost:
        raise ValueError(
            "`record` must hold functions to compute this again, but of "
            f"{', '.join(map(repr, lost))} a file keeps the numbers only: call `compare` with them."
        )
    afresh = dataclasses.replace(asked.run, checkpoint=None, throw=False)
    asked = dataclasses.replace(asked, run=afresh)
    return _compared(asked, progress=progress, known=study.fingerprint)


def _compared(asked: Asked, *, progress: bool, known: Fingerprint | None = None) -> Comparison:
    rates = True if asked.rates is None else placed(asked.rates, asked.model)
    posed = (asked.model, asked.data, asked.loss, rates, asked.regulariser, asked.momentum)
    problem = pose(*posed)  # pyright: ignore[reportArgumentType]
    chosen = asked.settled(problem)
    found = fingerprint(problem)
    for name in [] if known is None else found.changed(known):
        raise ValueError(
            f"`{name}` must compute what it did when the study was made, but does not, as after a "
            "change of something that it reads: call `compare` for another study."
        )
    flow = exact(problem, asked.run, progress=progress)
    recorded = tuple(each.name for each in asked.run.record or ())
    study = Comparison(asked=asked, exact=flow, recorded=recorded, fingerprint=found)
    bench = _Bench(study, problem, progress=progress)
    try:
        bench.prepare(chosen)
        for curve in chosen:
            bench.add(curve)
        bench.finish(chosen)
    except KeyboardInterrupt as interrupt:
        last = [bench.study.exact, *bench.study.curves.values()][-1]
        told = last.stop.reason == "interrupt"
        why = f"{last.name}: {last.stop}" if told else "interrupted"
        raise CompareError(bench.study, why) from interrupt
    except Exception as error:  # whatever a curve meets, those before it are done
        raise CompareError(bench.study, kind_and_line(error)) from error
    if flow.stop.failed and asked.run.throw:
        raise CompareError(bench.study)
    return bench.study


class _Bench:
    """A comparison in the making, of which nothing is lost at Ctrl-C."""

    def __init__(self, study: Comparison, problem: Problem, *, progress: bool) -> None:
        """Begin with exact flow; the others run to where that was told to stop."""
        self.study = study
        self.run, self.progress = study.asked.run.after(study.exact), progress
        self.start = Start(problem, progress=progress)

    def prepare(self, curves: Sequence[Curve]) -> None:
        """The error of exact flow, and the kernels that the others start from."""
        flow, asked = raise_if_interrupted(self.study.exact), self.study.asked
        if asked.audit:
            again = partial(exact, self.start.problem, progress=self.progress)
            self._put(exact=audited(flow, again, self.run))
        self.start.kernels(max(curve.rank for curve in curves))
        ranks = {curve.key: curve.rank for curve in curves if curve.rank}
        self._put(kernel_seconds=tuple(self.start.seconds), ranks=ranks)
        if len(asked.run.kernel_ts):
            self._put(initial_kernel=self.start.tangent_kernel())

    def add(self, curve: Curve) -> None:
        """One more curve; once it is solved it is kept, and then audited if all are."""
        known = self.study.curves
        solve: Callable[[Run], Trajectory] = lambda run: curve.trajectory(  # noqa: E731
            run, self.start, progress=self.progress
        )
        found = solve(self.run)
        self._put(curves=known | {curve.key: found})
        raise_if_interrupted(found)
        if self.study.asked.audit and curve.auditable:
            self._put(curves=known | {curve.key: audited(found, solve, self.run)})

    def finish(self, curves: Sequence[Curve]) -> None:
        """Bounds and slopes, as far as they were asked for."""
        asked, problem = self.study.asked, self.start.problem
        if asked.bounds:
            kernels = self.start.kernels(4)
            self._put(kernel_seconds=tuple(self.start.seconds))
            self._put(bounds=bounded(problem, asked.model, self.study.exact, kernels))
        orders = [curve for curve in curves if isinstance(curve, Order)]
        fitted = [order for order in orders if asked.certify or order.rank]
        if fitted and asked.certified(problem.dtype):
            self._put(certificate=certified(self.start, fitted, progress=self.progress))

    def _put(self, **changes: object) -> None:
        self.study = dataclasses.replace(self.study, **changes)
