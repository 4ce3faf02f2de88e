"""From a system and save times to a solution, in calls short enough to watch and to interrupt."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from nthsim.solvers.auto import Auto
from nthsim.solvers.explicit import Explicit
from nthsim.solvers.level_controller import LevelController, restarted
from nthsim.solvers.solution import Solution, Stats
from nthsim.solvers.stop import Stop
from nthsim.solvers.system import AbstractSystem

Observer = Callable[[float, PyTree[Array]], dict[str, np.ndarray]]

#: A compiled call is kept near this long, so that progress shows and Ctrl-C is heard.
CALL_SECONDS = 0.5

#: A level that grew by this factor before the step size ran out has blown up.
GROWN = 1e3

Tolerances = tuple[Float[Array, ""], Float[Array, ""]]


class Carry(eqx.Module):
    """Everything that one compiled call hands to the next."""

    t: Float[Array, ""]
    state: PyTree[Array]
    solver_state: PyTree
    controller_state: Any


class Outcome(eqx.Module):
    """How a compiled call ended, in numbers."""

    steps: Int[Array, ""]
    rejected: Int[Array, ""]
    forced: Int[Array, ""]
    escaped: Bool[Array, ""]
    exhausted: Bool[Array, ""]


class Run:
    """One integration in progress: the carry, the work done so far, and the reason to stop."""

    def __init__(self, system: AbstractSystem, horizon: float, solver: Explicit | Auto) -> None:
        """Compile nothing yet; resolve the method and its tolerances for the state's precision."""
        state = system.initial()
        self.dtype = jnp.result_type(*jax.tree.leaves(state))
        self.method, tolerances, self.choice = solver.resolve(self.dtype)
        self.tolerances = (self._number(tolerances.rtol), self._number(tolerances.atol))
        self.system, self.horizon, self.max_steps = system, horizon, solver.max_steps
        self.carry = Carry(self._number(0.0), state, None, None)
        self.started = False
        self.steps = self.rejected = self.forced = 0
        self.limit = 4
        self.stop: Stop | None = None

    def advance(self, t: float) -> Iterator[float]:
        """Integrate until `t` exactly, yielding the time reached after each compiled call."""
        target = self._number(t)
        if not self.started and t > 0:
            self._begin()
        while self.stop is None and self.carry.t < target:
            clock = time.perf_counter()
            limit = max(1, min(self.limit, self.max_steps - self.steps))
            self.carry, outcome = jax.block_until_ready(
                _advance(
                    self.system, self.method, self.tolerances, self.carry, target, jnp.array(limit)
                )
            )
            self._account(outcome, time.perf_counter() - clock)
            yield float(self.carry.t)

    def _begin(self) -> None:
        self.started = True
        self.carry, finite = _start(
            self.system, self.method, self.tolerances, self.carry, self._number(self.horizon)
        )
        if not finite:
            self.stop = Stop("non-finite", 0.0, "the right-hand side is not finite at t = 0")

    def _account(self, outcome: Outcome, seconds: float) -> None:
        taken = int(outcome.steps)
        self.steps += taken
        self.rejected += int(outcome.rejected)
        self.forced += int(outcome.forced)
        # Twice as long at most: the first call's time is mostly compilation.
        self.limit = int(min(2 * self.limit, max(1, CALL_SECONDS * taken / seconds)))
        t = float(self.carry.t)
        if outcome.escaped:
            sudden = float(self.carry.controller_state.planned) < 1e-3 * t
            growth = "blow-up at" if sudden else "diverged (exponentially) by"
            self.stop = Stop(
                "blow-up", t, f"{growth} t = {t:.6g}: the solution has left every bound"
            )
        elif outcome.exhausted and _growth(self.system, self.carry.state) > GROWN:
            # In float32 the step size reaches the rounding of t before `escaped` can see it.
            self.stop = Stop(
                "blow-up",
                t,
                f"blow-up at t = {t:.6g}: the solution grows faster than steps in t can follow",
            )
        elif outcome.exhausted:
            self.stop = Stop(
                "step size", t, f"the step size fell to the rounding of t at t = {t:.6g}"
            )
        elif self.steps >= self.max_steps and t < self.horizon:
            self.stop = Stop(
                "step limit",
                t,
                f"step limit of {self.max_steps} reached at t = {t:.6g} of {self.horizon:g}",
            )

    def stats(self, seconds: float) -> Stats:
        """The work so far; starting takes three right-hand sides."""
        tableau = self.method.tableau
        stages = tableau.num_stages - int(tableau.fsal)
        evaluations = self.steps * stages + 3 * int(self.started)
        return Stats(self.steps, self.rejected, self.forced, evaluations, seconds)

    def _number(self, value: float) -> Float[Array, ""]:
        return jnp.asarray(value, self.dtype)


def integrate(
    system: AbstractSystem,
    ts: Float[np.ndarray, " T"],
    solver: Explicit | Auto,
    *,
    observe: Observer | None = None,
    report: Callable[[float], None] | None = None,
) -> Solution:
    """Integrate `system` from t = 0 and record its outputs at each of `ts`.

    Every save time is the end of a step, so nothing recorded is interpolated. A second call with a
    system of the same shapes compiles nothing: times, tolerances and step limits are data.

    Args:
        system: What to integrate.
        ts: Save times, non-negative and strictly increasing.
        solver: Method, tolerances and step limit.
        observe: Maps a save time and the state there to further named arrays to record; they need
            not be the same at all times.
        report: Told the time reached after each compiled call.

    Returns:
        A `Solution`, cut at the last save time that was reached. Failure, Ctrl-C included, is not
        raised: `stop` tells.
    """
    clock = time.perf_counter()
    horizon = float(ts[-1])
    run = Run(system, horizon, solver)
    records: list[dict[str, np.ndarray]] = []
    try:
        for t in ts:
            for reached in run.advance(float(t)):
                if report is not None:
                    report(reached)
            if run.stop is not None:
                break
            records.append(_record(run, float(t), observe))
    except KeyboardInterrupt:
        t = float(run.carry.t)
        run.stop = Stop("interrupt", t, f"interrupted at t = {t:.6g} of {horizon:g}")
    stop = run.stop or Stop("horizon", horizon, f"reached t = {horizon:g}")
    return Solution(
        ts=ts[: len(records)],
        records=_stacked(records),
        state=run.carry.state,
        stop=stop,
        stats=run.stats(time.perf_counter() - clock),
        choice=run.choice,
    )


def _record(run: Run, t: float, observe: Observer | None) -> dict[str, np.ndarray]:
    shown = {k: np.asarray(v) for k, v in _outputs(run.system, run.carry.state).items()}
    return shown if observe is None else shown | observe(t, run.carry.state)


def _stacked(records: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    names = dict.fromkeys(name for record in records for name in record)
    return {name: np.stack([r[name] for r in records if name in r]) for name in names}


@eqx.filter_jit
def _outputs(system: AbstractSystem, state: PyTree[Array]) -> dict[str, Array]:
    with jax.default_matmul_precision("highest"):
        return system.outputs(state)


def _growth(system: AbstractSystem, state: PyTree[Array]) -> float:
    """The largest factor by which a level is beyond its scale; one without a scale has none."""
    scale, now = np.asarray(system.scales()), np.asarray(system.sizes(state))
    return float(np.max(now[scale > 0] / scale[scale > 0], initial=0.0))


@eqx.filter_jit
def _start(
    system: AbstractSystem,
    method: dfx.AbstractERK,
    tolerances: Tolerances,
    carry: Carry,
    t1: Float[Array, ""],
) -> tuple[Carry, Bool[Array, ""]]:
    """Initial solver and controller states, and whether the first right-hand side is finite."""
    with jax.default_matmul_precision("highest"):
        term, controller = _term(), _controller(system, tolerances, jnp.array(1))
        tnext, controller_state = controller.init(
            term, carry.t, t1, carry.state, None, system, method.func, method.error_order(term)
        )
        solver_state = method.init(term, carry.t, tnext, carry.state, system)
    # The first step size comes from the size of the first right-hand sides: NaN begets NaN.
    first_step = controller_state.planned
    finite = jnp.isfinite(first_step) & (first_step > 0)
    return Carry(carry.t, carry.state, solver_state, controller_state), finite


@eqx.filter_jit
def _advance(
    system: AbstractSystem,
    method: dfx.AbstractERK,
    tolerances: Tolerances,
    carry: Carry,
    t1: Float[Array, ""],
    limit: Int[Array, ""],
) -> tuple[Carry, Outcome]:
    """At most `limit` steps towards `t1`."""
    controller_state = restarted(carry.controller_state)
    with jax.default_matmul_precision("highest"):
        solution = dfx.diffeqsolve(
            _term(),
            method,
            t0=carry.t,
            t1=t1,
            dt0=controller_state.planned,
            y0=carry.state,
            args=system,
            stepsize_controller=_controller(system, tolerances, limit),
            saveat=dfx.SaveAt(t1=True, solver_state=True, controller_state=True),
            solver_state=carry.solver_state,
            controller_state=controller_state,
            event=dfx.Event(lambda t, y, args, **_: args.escaped(y)),
            max_steps=None,
            throw=False,
        )
    assert solution.ts is not None
    state = jax.tree.map(lambda y: y[-1], solution.ys)
    after = Carry(solution.ts[-1], state, solution.solver_state, solution.controller_state)
    return after, Outcome(
        solution.stats["num_steps"],
        solution.stats["num_rejected_steps"],
        solution.controller_state.forced,
        solution.result == dfx.RESULTS.event_occurred,
        solution.result == dfx.RESULTS.dt_min_reached,
    )


def _term() -> dfx.ODETerm:
    return dfx.ODETerm(lambda t, y, args: args.field(y))


def _controller(
    system: AbstractSystem, tolerances: Tolerances, limit: Int[Array, ""]
) -> LevelController:
    rtol, atol = tolerances
    return LevelController(system.sizes, rtol, atol, limit)
