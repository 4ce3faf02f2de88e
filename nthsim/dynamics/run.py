"""When to record what, by which solver to get there, and where to keep it."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import equinox as eqx
import numpy as np
from jaxtyping import Array, DTypeLike, Float, PyTree
from numpy.typing import ArrayLike

from nthsim.budget.size import Size, size_of
from nthsim.dynamics.checkpoint import Checkpoint, checkpoint_folder, subject_of
from nthsim.dynamics.problem import Problem
from nthsim.dynamics.trajectory import Trajectory
from nthsim.inputs.arrays import times
from nthsim.results.terminal import Progress
from nthsim.solvers.integration import integrate
from nthsim.solvers.solution import Solution
from nthsim.solvers.solver import AbstractSolver, check_solver
from nthsim.solvers.system import AbstractSystem
from nthsim.solvers.until import Until

#: All save times, none, or some of them.
Recorded = bool | Sequence[float] | Float[Array | np.ndarray, " S"]


class KernelRecorder(eqx.Module):
    r"""Evaluates $K^{(2)}$ of a state at those save times that were chosen.

    With `always`, also at a time that nobody knew beforehand, where a run was told to stop.
    """

    times: Float[np.ndarray, " chosen"]
    always: bool
    evaluate: Callable[[PyTree[Array]], Array]

    def __call__(self, t: float, state: PyTree[Array]) -> dict[str, np.ndarray]:
        """`kernel` and `kernel_ts`, or nothing at other times."""
        if not self.always and t not in self.times:
            return {}
        return {"kernel": np.asarray(self.evaluate(state)), "kernel_ts": np.array(t)}


def kernel_times(
    record_kernel: Recorded, ts: Float[np.ndarray, " T"]
) -> Float[np.ndarray, " chosen"]:
    """The save times at which the kernel is wanted: all, none, or those named.

    Raises:
        ValueError: When `record_kernel` is neither a bool nor some of `ts`.
    """
    if isinstance(record_kernel, bool | np.bool_):
        return ts if record_kernel else ts[:0]
    try:
        chosen = times(record_kernel)
    except ValueError as error:
        reason = str(error).replace("`ts`", "`record_kernel`").replace("ts[", "record_kernel[")
        raise ValueError(reason) from error
    others = np.setdiff1d(chosen, ts)
    if len(others):
        raise ValueError(
            f"`record_kernel` must be True, False or some of `ts`, but holds {others[0]:g}."
        )
    return chosen


class Schedule(eqx.Module):
    """Save times, solver, when to record kernels, when to stop, and a folder for checkpoints.

    `label` tells apart the files of runs that are compared with exact flow up to different ends.
    """

    ts: Float[np.ndarray, " T"]
    solver: AbstractSolver
    kernel_ts: Float[np.ndarray, " S"]
    until: Until = Until()
    folder: Path | None = eqx.field(static=True, default=None)
    label: str = eqx.field(static=True, default="")

    def checkpoint(
        self, problem: Problem, name: str, method: str | None = None
    ) -> Checkpoint | None:
        """The file of one dynamics of a problem, if files are wanted."""
        if self.folder is None:
            return None
        subject = subject_of(problem, self.solver, self.ts, self.kernel_ts)
        subject |= {"dynamics": name, "method": method}
        words = " ".join(word for word in (name, method, self.label) if word)
        return Checkpoint(self.folder / f"{words.replace(' ', '-')}.ckpt", subject)

    def integrated(
        self,
        problem: Problem,
        system: AbstractSystem,
        kernel: Callable[[], Callable[[PyTree[Array]], Array]],
        name: str,
        *,
        method: str | None = None,
        progress: bool,
    ) -> Solution:
        """Integrate a dynamics of a problem; `kernel` makes what evaluates its kernel at a state.

        It is asked for only where the kernel is to be recorded, as it takes time to make.
        """
        observe = None
        if len(self.kernel_ts):
            observe = KernelRecorder(self.kernel_ts, self.records_all, kernel())
        with Progress(name, progress) as bar:
            return integrate(
                system,
                self.ts,
                self.solver,
                until=self.until,
                observe=observe,
                report=bar.to if bar.shown else None,
                keeper=self.checkpoint(problem, name, method),
            )

    @property
    def records_all(self) -> bool:
        """Whether the kernel is recorded at every save time."""
        return len(self.kernel_ts) == len(self.ts)

    def audit(self, dtype: DTypeLike) -> "Schedule":
        """The same times at tolerances ten times as tight, with nothing else recorded."""
        return Schedule(self.ts, self.solver.tightened(dtype), self.ts[:0])

    def after(self, exact: Trajectory) -> "Schedule":
        """The schedule of what is compared with an exact flow: to where that was told to stop."""
        if not exact.stop.asked:
            return dataclasses.replace(self, until=Until())
        kernel_ts = np.empty(0) if exact.kernel_ts is None else exact.kernel_ts
        label = f"to {exact.stop.t:.10g}"  # the same call may later come further
        return Schedule(exact.ts, self.solver, kernel_ts, folder=self.folder, label=label)


def schedule(
    ts: ArrayLike,
    solver: AbstractSolver,
    record_kernel: Recorded = False,
    until: Until = Until(),
    checkpoint: object = None,
) -> Schedule:
    """Check what a user said.

    Raises:
        ValueError: When an argument is not as `gradient_flow` documents it.
    """
    check_solver(solver)
    if not isinstance(until, Until):
        raise ValueError(f"`until` must be an Until, such as Until(loss=1e-4), but is {until!r}.")
    ts = times(ts)
    kernel_ts = kernel_times(record_kernel, ts)
    return Schedule(ts, solver, kernel_ts, until, checkpoint_folder(checkpoint))


def problem_size(problem: Problem, course: Schedule | None = None) -> Size:
    """The numbers of a problem, and of its runs if they are known."""
    size = size_of(problem.network, problem.theta, problem.slots, problem.road)
    size = dataclasses.replace(size, forward=problem.forward)
    if course is None:
        return size
    return dataclasses.replace(
        size,
        save_times=len(course.ts),
        recorded=len(course.kernel_ts),
        stages=course.solver.stages(problem.x.dtype),
        basis=course.solver.basis(size.n * size.kernel.k),
    )
