"""From a system and save times to a solution, in calls short enough to watch and to interrupt."""

import abc
import re
from collections.abc import Callable

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, PyTree

from nthsim.solvers.abstract_run import AbstractRun
from nthsim.solvers.calls import outputs
from nthsim.solvers.history import History
from nthsim.solvers.run import UNHELD, Integration
from nthsim.solvers.solution import Solution
from nthsim.solvers.solver import AbstractSolver
from nthsim.solvers.stop import Stop
from nthsim.solvers.system import AbstractSystem
from nthsim.solvers.until import Until

Observer = Callable[[float, PyTree[Array], dict[str, np.ndarray]], dict[str, np.ndarray]]


class Unrecorded(Exception):
    """Something to be recorded cannot be had; says what and why."""


class AbstractKeeper(abc.ABC):
    """Keeps runs somewhere, so that they can be gone on with."""

    @abc.abstractmethod
    def restore(self, run: AbstractRun) -> History:
        """Bring a run to where an earlier one was, and return what that had recorded."""

    @abc.abstractmethod
    def keep(self, run: AbstractRun, history: History, *, now: bool = False) -> None:
        """Keep where a run is; `now` or when it is time again."""


def integrate(
    system: AbstractSystem,
    ts: Float[np.ndarray, " T"],
    solver: AbstractSolver,
    *,
    until: Until = Until(),
    observe: Observer | None = None,
    report: Callable[[float], None] | None = None,
    keeper: AbstractKeeper | None = None,
) -> Solution:
    """Integrate `system` from t = 0 and record its outputs at each of `ts`.

    Every save time, and that of a stop, is the end of a step, so nothing recorded is interpolated.
    A second call with a system of the same shapes compiles nothing: times, tolerances and limits
    are data.

    Args:
        system: What to integrate.
        ts: Save times, non-negative and strictly increasing.
        solver: Method, tolerances and step limit.
        until: When to stop before the last save time; the time of that is recorded too.
        observe: Maps a save time, the state and the outputs there to further named arrays to
            record; they need not be the same at all times. Where it raises `Unrecorded` the run
            ends.
        report: Told after each compiled call which part of the work is about done, from 0 to 1.
        keeper: Brings the run to where an earlier one was, and keeps where it is.

    Returns:
        A `Solution`, cut at the last save time that was reached. Failure, Ctrl-C included, is not
        raised: `stop` tells.
    """
    run = Integration(system, float(ts[-1]), solver, until)
    return follow(run, ts, observe=observe, report=report, keeper=keeper)


def follow(
    run: AbstractRun,
    ts: Float[np.ndarray, " T"],
    *,
    observe: Observer | None = None,
    report: Callable[[float], None] | None = None,
    keeper: AbstractKeeper | None = None,
) -> Solution:
    """Bring what is on its way to each of `ts`, the last of which is its horizon, as `integrate`.

    There `observe`, `report` and `keeper` are explained, and what is returned.
    """
    horizon = run.horizon
    history = History() if keeper is None else keeper.restore(run)

    def record(t: float) -> None:
        state = run.state_at(t)
        shown = {k: np.asarray(v) for k, v in outputs(run.system, state).items()}
        history.add(t, shown if observe is None else shown | observe(t, state, shown))

    try:
        for t in ts[len(history.reached) :] if run.stop is None else ():
            for _ in run.advance(float(t)):
                if report is not None:
                    report(run.part(ts))
                if keeper is not None:
                    keeper.keep(run, history)
            if run.stop is not None:
                break
            record(float(t))
        else:
            run.stop = run.stop or Stop("horizon", horizon, f"reached t = {horizon:g}")
        if run.stop.asked and not any(run.at(t) for t in history.reached[-1:]):
            record(run.stop.t)
    except Unrecorded as error:
        t = float(run.carry.t)
        run.stop = Stop("recording", t, f"{error} at t = {t:.6g}")
    except eqx.EquinoxRuntimeError as error:
        t, found = float(run.carry.t), re.search(r"EquinoxRuntimeError: (.*)", str(error))
        words = found.group(1) if found else "an error of its own"
        run.stop = Stop("raised", t, f"the model or the loss raises after t = {t:.6g}: {words}")
    except KeyboardInterrupt:
        t = float(run.carry.t)
        run.stop = Stop("interrupt", t, f"interrupted at t = {t:.6g} of {horizon:g}")
    if keeper is not None:
        keeper.keep(run, history, now=True)
    return Solution(
        ts=np.array(history.reached),
        records=history.stacked(),
        state=run.state_at(run.stop.t),
        stop=run.stop,
        stats=run.stats(),
        choice=run.choice + (UNHELD if run.unheld else ""),
    )
