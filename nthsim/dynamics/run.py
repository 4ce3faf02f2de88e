"""When to look at a run, how to step, when to stop, what to record, and where to keep it."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import equinox as eqx
import numpy as np
from jaxtyping import Array, DTypeLike, Float, PyTree
from numpy.typing import ArrayLike

from nthsim.budget.size import Size, size_of
from nthsim.dynamics.checkpoint import LONGEST, Checkpoint, cut, folder, subject_of
from nthsim.dynamics.kernel_observables import Alignment, EffectiveRank, Spectrum
from nthsim.dynamics.margin import Margin
from nthsim.dynamics.named_observables import observables
from nthsim.dynamics.network_observables import Blocks
from nthsim.dynamics.observable import Observable, TangentKernel
from nthsim.dynamics.parameter_observables import GradientCovariance, Movement, Sharpness
from nthsim.dynamics.problem import Problem
from nthsim.dynamics.recorder import Recorder, labels_of
from nthsim.dynamics.trajectory import Trajectory, trajectory
from nthsim.inputs.arrays import times
from nthsim.inputs.integers import check_truths, shown
from nthsim.results.moment import Moment
from nthsim.results.terminal import Progress
from nthsim.results.whole_file import made_folder
from nthsim.solvers.auto import Auto
from nthsim.solvers.integration import follow
from nthsim.solvers.run import Integration
from nthsim.solvers.solution import Solution, Stats
from nthsim.solvers.solver import AbstractSolver, checked_solver
from nthsim.solvers.stepped_run import AbstractSteps
from nthsim.solvers.stop import Stop
from nthsim.solvers.system import AbstractSystem
from nthsim.solvers.until import Until, checked_until

#: What makes the observables that there are, by the words that ask for them; by these files know
#: them.
OBSERVABLES: Mapping[str, Callable[..., Observable]] = MappingProxyType(
    {
        "kernel": TangentKernel,
        "spectrum": Spectrum,
        "alignment": Alignment,
        "centred_alignment": functools.partial(Alignment, centred=True),
        "effective_rank": EffectiveRank,
        "movement": Movement,
        "sharpness": Sharpness,
        "gradient_covariance": GradientCovariance,
        "margin": Margin,
        "blocks": Blocks,
    }
)


class Run(eqx.Module):
    r"""When to look at a dynamics, how to step, when to stop, what to record, where to keep it.

    Wherever one is asked for, an array of times stands for `Run(times)`.

    Args:
        ts: Save times, shape (T,), non-negative and strictly increasing; time starts at 0, and its
            unit is set by the factor 1/n in the loss.
        solver: Method, tolerances and step limit.
        until: When to stop before the last save time: an `Until` with a loss, a gradient's norm, a
            rate of the loss or seconds. The state there is recorded as one more save time. In a
            comparison it is for exact flow, and the others run to the same time.
        record: What to record besides outputs. Of all dynamics "kernel", the tangent kernel
            $K^{(2)}$, and its "spectrum" (the five largest: "spectrum:5"), "alignment",
            "centred_alignment" and "effective_rank", and the "margin" of classes; of what moves the
            network's own parameters (exact flow, descent, the modified flow) "movement",
            "sharpness" ("sharpness:3"), "gradient_covariance", the "blocks" of a residual network,
            `Features` and observables of your own (`Observable.of`).
            Left out, comparisons record the kernel, and single runs nothing.
        record_ts: At which of `ts` to record that, shape (S,); at all if left out.
        checkpoint: A folder that every run is kept in as it goes, made if need be. The same call
            again goes on from there; `until`, the step limit and save times later than where it is
            may change in between.
        label: A word for the names of the files there.
        throw: Whether a run that ends early raises, or returns what it has with the reason.

    Raises:
        ValueError: When an argument is not as above.
    """

    ts: Float[np.ndarray, " T"] = eqx.field(converter=times)
    _: dataclasses.KW_ONLY
    solver: AbstractSolver = eqx.field(default=Auto(), converter=checked_solver)
    until: Until = eqx.field(default=Until(), converter=checked_until)
    record: tuple[Observable, ...] | None = eqx.field(
        default=None, converter=lambda record: observables(record, OBSERVABLES)
    )
    record_ts: Float[np.ndarray, " S"] | None = eqx.field(
        default=None, converter=lambda ts: None if ts is None else times(ts, "record_ts")
    )
    checkpoint: Path | None = eqx.field(static=True, default=None, converter=folder)
    label: str = eqx.field(static=True, default="")
    throw: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        """Check what a user said."""
        check_truths(throw=self.throw)
        label = self.label
        word = isinstance(label, str) and label.isprintable() and "/" not in label
        if not (word and cut(label, LONGEST) == label):
            raise ValueError(
                f"`label` must be a word of at most {LONGEST} bytes for names of files, but is "
                f"{shown(self.label)}."
            )
        if self.record_ts is None:
            return
        others = np.setdiff1d(self.record_ts, self.ts)
        if len(others):
            raise ValueError(f"`record_ts` must be some of `ts`, but holds {others[0]!s}.")

    @property
    def recorded_ts(self) -> Float[np.ndarray, " S"]:
        """The save times at which something is recorded besides outputs."""
        if not self.record:
            return self.ts[:0]
        return self.ts if self.record_ts is None else self.record_ts

    @property
    def kernel_ts(self) -> Float[np.ndarray, " S"]:
        """The save times at which the tangent kernel is recorded."""
        recorded = any(isinstance(each, TangentKernel) for each in self.record or ())
        return self.recorded_ts if recorded else self.ts[:0]

    def audit(self, dtype: DTypeLike) -> "Run":
        """The same times at tolerances ten times as tight, with nothing else recorded."""
        return Run(self.ts, solver=self.solver.tightened(dtype), record=())

    def after(self, exact: Trajectory) -> "Run":
        """That of what is compared with an exact flow: to where that was told to stop."""
        if not exact.stop.asked:
            return dataclasses.replace(self, until=Until())
        tail = f" to {exact.stop.t:.10g}"  # the call may later come further
        label = f"{cut(self.label, LONGEST - len(tail))}{tail}".strip()
        ended = {"ts": exact.ts, "until": Until(), "label": label, "record_ts": exact.record_ts}
        if exact.record_ts is None:
            ended["record"] = ()
        return dataclasses.replace(self, **ended)

    def integrated(
        self,
        problem: Problem,
        system: AbstractSystem,
        kernel: Callable[[], Callable[[PyTree[Array]], Array | np.ndarray]],
        name: str,
        *,
        parameters: Callable[[PyTree[Array]], PyTree[Array]] | None = None,
        method: str | None = None,
        why: str | None = None,
        steps: AbstractSteps | None = None,
        progress: bool,
    ) -> Trajectory:
        """Integrate a dynamics of a problem; `parameters` are those at a state, if it has any.

        `kernel` makes what evaluates its kernel at a state. It is asked for only where an
        observable asks, as it takes time to make. `method` tells the files of one dynamics apart,
        and `why` is what a user is told of it. Where it goes by `steps`, no solver takes part.
        """
        problem.check_until(self.until)
        chosen = self._chosen(parameters is not None)
        make = functools.cache(kernel)

        def moment(t: float, state: PyTree[Array], shown: dict[str, np.ndarray]) -> Moment:
            theta = None if parameters is None else parameters(state)
            return Moment(t, problem, theta, lambda: make()(state), shown["f"])

        always = len(self.recorded_ts) == len(self.ts)
        observe = Recorder(self.recorded_ts, always, chosen, moment) if chosen else None
        with Progress(name, progress) as bar:
            horizon = float(self.ts[-1])
            solution = follow(
                Integration(system, horizon, self.solver, self.until)
                if steps is None
                else steps.begun(system, horizon, self.until),
                self.ts,
                observe=observe,
                report=bar.to if bar.shown else None,
                keeper=self._checkpoint(problem, name, method, chosen, steps or self.solver),
            )
        model = None
        if parameters is not None:
            model = problem.network.model(parameters(solution.state))
        labels, solution = labels_of(chosen, problem), problem.told(system, solution)
        return trajectory(name, problem, solution, model=model, method=why, labels=labels)

    def evaluated(
        self,
        problem: Problem,
        f: Float[Array, "T N_first"],
        kernel: Callable[[], Float[Array, "S N_first N"]],
        name: str,
        *,
        why: str,
        clock: float,
    ) -> Trajectory:
        """What is known in closed form: outputs at all save times, and what makes the kernels.

        Those are at `recorded_ts`, and are asked for only where an observable asks; `clock` is when
        the evaluation began.
        """
        chosen, records = self._chosen(False), {"f": np.asarray(f)}
        make = functools.cache(lambda: np.asarray(kernel()))
        if chosen and len(self.recorded_ts):
            record = Recorder(
                self.recorded_ts,
                True,
                chosen,
                lambda t, i, shown: Moment(t, problem, None, lambda: make()[i], shown["f"]),
            )
            known = records["f"][np.searchsorted(self.ts, self.recorded_ts)]
            pairs = zip(self.recorded_ts, known, strict=True)
            rows = [record(float(t), i, {"f": now}) for i, (t, now) in enumerate(pairs)]
            records |= {key: np.stack([row[key] for row in rows]) for key in rows[0]}
        horizon = float(self.ts[-1])
        solution = Solution(
            ts=self.ts,
            records=records,
            state=None,
            stop=Stop("horizon", horizon, f"reached t = {horizon:g}"),
            stats=Stats(0, 0, 0, 0, time.perf_counter() - clock),
            choice="closed form",
        )
        return trajectory(name, problem, solution, method=why, labels=labels_of(chosen, problem))

    def _chosen(self, has_parameters: bool) -> tuple[Observable, ...]:
        """The observables that a dynamics has."""
        return tuple(o for o in self.record or () if has_parameters or not o.of_parameters)

    def _checkpoint(
        self,
        problem: Problem,
        name: str,
        method: str | None,
        chosen: tuple[Observable, ...],
        by: AbstractSolver | AbstractSteps,
    ) -> Checkpoint | None:
        """The file of one dynamics of a problem, if files are wanted."""
        if self.checkpoint is None:
            return None
        subject = subject_of(problem, by) | {"dynamics": name, "method": method}
        subject |= {"record": [each.mark(problem) for each in chosen]}
        times = {"save times": self.ts.tolist(), "record times": self.recorded_ts.tolist()}
        words = " ".join(word for word in (name, method, self.label) if word)
        return Checkpoint(self.checkpoint / f"{words.replace(' ', '-')}.ckpt", subject, times)


def checked_run(run: Run | ArrayLike, usual: tuple[str, ...] = (), *, begins: bool = True) -> Run:
    """What a user handed in as a run: `usual` is recorded where nothing was said.

    Its folder is made if it `begins`.

    Raises:
        ValueError: When it is neither a `Run` nor save times, or its folder cannot be made.
    """
    found = run if isinstance(run, Run) else Run(run)
    if begins and found.checkpoint is not None:
        made_folder("checkpoint", found.checkpoint)
    if found.record is not None:
        return found
    return dataclasses.replace(found, record=usual)


def problem_size(problem: Problem, run: Run | None = None) -> Size:
    """The numbers of a problem, and of its runs if they are known."""
    size = size_of(
        problem.network,
        problem.theta,
        problem.slots,
        problem.method,
        further=problem.penalty is not None,
    )
    size = dataclasses.replace(size, forward=problem.forward, momentum=problem.momentum is not None)
    if run is None:
        return size
    others = [each for each in run.record or () if not isinstance(each, TangentKernel)]
    noted = labels_of(others, problem)
    return dataclasses.replace(
        size,
        save_times=len(run.ts),
        recorded=len(run.kernel_ts),
        noted=len(run.recorded_ts) * sum(int(np.prod(label.shape)) for label in noted.values()),
        stages=run.solver.stages(problem.dtype),
        basis=run.solver.basis(size.n * size.kernel.k),
    )
