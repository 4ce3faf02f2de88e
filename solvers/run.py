"""One integration in progress."""

import dataclasses
import time
from collections.abc import Iterator

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from nthsim.solvers.abstract_run import AbstractRun
from nthsim.solvers.bracket import closed
from nthsim.solvers.calls import Carry, Outcome, Scheme, advance, start
from nthsim.solvers.solution import Stats
from nthsim.solvers.solver import AbstractSolver, Fallback
from nthsim.solvers.stop import Stop
from nthsim.solvers.system import AbstractSystem
from nthsim.solvers.until import Until

#: A level that grew by this factor before the step size ran out has blown up.
GROWN = 1e3

#: What is said of a run whose state was always so small that `atol` alone held its errors.
UNHELD = "; where all that moved was smaller than atol / rtol, errors exceed rtol: lower atol"


class Integration(AbstractRun):
    """One integration: adaptive steps of a method that was resolved for the system."""

    def __init__(
        self, system: AbstractSystem, horizon: float, solver: AbstractSolver, until: Until
    ) -> None:
        """Resolve the method and its tolerances for the system."""
        super().__init__(system, horizon, until)
        self.solver, self.max_steps = solver, solver.max_steps
        self.method = solver.resolve(system, horizon, self.dtype)
        self.choice = self.method.choice
        if system.roughness():
            self.choice += f"; as {system.roughness()}, errors may exceed the tolerance"
        self.carry = Carry(self._number(0.0), system.initial(), None, None)
        self.usual_step = 0.0

    def restore(
        self, counts: dict[str, int | float], choice: str, *, horizon: float, fell_back: bool
    ) -> None:
        """Take over the method that was chosen as well."""
        if horizon != self.horizon:
            self.method = self.solver.resolve(self.system, horizon, self.dtype)
        super().restore(counts, choice, horizon=horizon, fell_back=False)
        if fell_back and self.method.fallback is not None:
            self._take(self.method.fallback)

    def watch_anew(self) -> None:
        """No bracket is open."""
        if self.started:
            state = dataclasses.replace(self.carry.controller_state, bracket=closed(self.dtype))
            self.carry = dataclasses.replace(self.carry, controller_state=state)

    @property
    def whole(self) -> bool:
        """Whether one step goes to the end; of such a one an end in between would not be seen."""
        return self.method.whole and not self.until.watched

    def blank(self) -> Carry:
        """The shapes of a carry once started."""
        return eqx.filter_eval_shape(self._started)[0]

    def advance(self, t: float) -> Iterator[float]:
        """Integrate until `t` exactly, yielding the time reached after each compiled call."""
        target = self._number(t)
        while self.stop is None and self.carry.t < target:
            if not self.started:
                self._begin()
                continue
            if not self.looked:
                self._look()
                continue
            if self.steps >= self.max_steps:
                self.stop = self._spent()
                continue
            fallback, most = self.method.fallback, self.max_steps
            if fallback is not None:
                most = min(most, fallback.most(self.horizon))
                if self.steps >= most:
                    self._fall_back(fallback)
                    continue
            clock, before = time.perf_counter(), self.carry
            limit = min(self.limit, most - self.steps)
            self.carry, outcome = jax.block_until_ready(
                advance(self.system, self._scheme(), self.carry, target, jnp.array(limit))
            )
            self._account(outcome, time.perf_counter() - clock, _told(before, self.carry, outcome))
            yield float(self.carry.t)

    def state_at(self, t: float) -> PyTree[Array]:
        """The one that the run is at: each time that is advanced to is the end of a step."""
        del t
        return self.carry.state

    def part(self, ts: Float[np.ndarray, " T"]) -> float:
        """As there.

        Explicit steps are of about one length. Others become longer as the solution comes to rest,
        so that each save time is as far from the next one, however they are spaced. On the way to
        a loss, it is the loss's logarithm that falls evenly.
        """
        t = float(self.carry.t)
        knots = np.concatenate([[0.0], ts[ts > 0]])
        if isinstance(self.method.solver, dfx.AbstractERK):
            knots = knots[[0, -1]]
        return max(float(np.interp(t, knots, np.linspace(0, 1, len(knots)))), self._fallen())

    def stats(self) -> Stats:
        """A closed form takes no steps."""
        found = super().stats()
        return dataclasses.replace(found, steps=0, rejected=0, forced=0) if self.whole else found

    def _begin(self) -> None:
        self.carry, finite = self._started()
        if self.usual_step:
            # What kinks are measured by, near one of which this may begin.
            largest = self._number(self.usual_step)
            state = dataclasses.replace(self.carry.controller_state, largest=largest)
            self.carry = dataclasses.replace(self.carry, controller_state=state)
        self.started = True
        self.evaluations += 3
        if not finite:
            t = float(self.carry.t)
            self.stop = Stop("non-finite", t, f"the right-hand side is not finite at t = {t:g}")

    def _started(self) -> tuple[Carry, Bool[Array, ""]]:
        horizon = self._number(self.horizon)
        first_end = horizon if self.whole else None
        return start(self.system, self._scheme(), self.carry, horizon, first_end)

    def _scheme(self) -> Scheme:
        tolerances = self.method.tolerances
        rtol, atol = self._number(tolerances.rtol), self._number(tolerances.atol)
        return Scheme(self.method.solver, rtol, atol, self.until.limits(self.dtype))

    def _account(self, outcome: Outcome, seconds: float, told: int | None) -> None:
        taken = int(outcome.steps)
        self.steps += taken
        self.rejected += int(outcome.rejected)
        self.forced += int(outcome.forced)
        self.evaluations += taken * self.method.stages if told is None else told
        self.unheld += int(outcome.unheld)
        self._paced(taken, seconds)
        self.stop = self._reason(outcome)
        fallback = self.method.fallback
        if self.stop is not None and self.stop.reason == "step size" and fallback is not None:
            self._fall_back(fallback)

    def _fall_back(self, fallback: Fallback) -> None:
        self.choice += f"; from t = {float(self.carry.t):.6g} on {fallback.method.choice}"
        self.carry = Carry(self.carry.t, self.carry.state, None, None)
        self.started, self.stop = False, None
        self._take(fallback)

    def _take(self, fallback: Fallback) -> None:
        self.method, self.usual_step, self.fell_back = fallback.method, fallback.step, True

    def _reason(self, outcome: Outcome) -> Stop | None:
        t, carry = float(self.carry.t), self.carry
        if outcome.escaped:
            sudden = float(carry.controller_state.planned) < 1e-3 * t
            growth = "blow-up at" if sudden else "diverged (exponentially) by"
            return Stop("blow-up", t, f"{growth} t = {t:.6g}: the solution has left every bound")
        if outcome.found:
            return self.until.stop(self._furthest()[0], t)
        if outcome.exhausted and _growth(self.system, carry.state) > GROWN:
            # In float32 the step size reaches the rounding of t before `escaped` can see it.
            words = "the solution grows faster than steps in t can follow"
            return Stop("blow-up", t, f"blow-up at t = {t:.6g}: {words}")
        if outcome.exhausted:
            words = f"the step size fell to the rounding of t at t = {t:.6g}"
            return Stop("step size", t, words)
        if t >= float(self._number(self.horizon)):
            return None
        return self._out_of_time()

    def _spent(self) -> Stop:
        t, limit = float(self.carry.t), self.max_steps
        words = f"step limit of {limit} reached at t = {t:.6g} of {self.horizon:g}"
        return Stop("step limit", t, words)


def _told(before: Carry, after: Carry, outcome: Outcome) -> int | None:
    """The right-hand sides of a call where a solver counts them; of refused steps as of others."""
    counts = [getattr(carry.solver_state, "evaluations", None) for carry in (before, after)]
    taken, kept = int(outcome.steps), int(outcome.steps - outcome.rejected)
    if None in counts or not kept:
        return None
    return round((int(counts[1]) - int(counts[0])) * taken / kept)


def _growth(system: AbstractSystem, state: PyTree[Array]) -> float:
    """The largest factor by which a level is beyond its scale; one without a scale has none."""
    scale, now = np.asarray(system.scales()), np.asarray(system.sizes(state))
    return float(np.max(now[scale > 0] / scale[scale > 0], initial=0.0))
