"""One integration in progress."""

import dataclasses
import functools
import time
from collections.abc import Iterator

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from nthsim.solvers.bracket import closed
from nthsim.solvers.calls import Carry, Outcome, Scheme, advance, start
from nthsim.solvers.solution import Stats
from nthsim.solvers.solver import AbstractSolver, Fallback
from nthsim.solvers.stop import Reason, Stop
from nthsim.solvers.system import AbstractSystem
from nthsim.solvers.until import Until, gaps

#: A compiled call is kept near this long, so that progress shows and Ctrl-C is heard.
CALL_SECONDS = 0.5

#: A level that grew by this factor before the step size ran out has blown up.
GROWN = 1e3

#: What is said of a run whose state was always so small that `atol` alone held its errors.
UNHELD = "; where all that moved was smaller than atol / rtol, errors exceed rtol: lower atol"


class Integration:
    """The carry, the work done so far, and the reason to stop."""

    def __init__(
        self, system: AbstractSystem, horizon: float, solver: AbstractSolver, until: Until
    ) -> None:
        """Resolve the method and its tolerances for the system."""
        self.clock = time.perf_counter()
        state = system.initial()
        self.dtype = jnp.result_type(*jax.tree.leaves(state))
        self.system, self.horizon, self.until, self.solver = system, horizon, until, solver
        self.max_steps = solver.max_steps
        self.method = solver.resolve(system, horizon, self.dtype)
        self.choice = self.method.choice
        if system.roughness():
            self.choice += f"; as {system.roughness()}, errors may exceed the tolerance"
        self.carry = Carry(self._number(0.0), state, None, None)
        self.started = self.fell_back = self.looked = False
        self.usual_step = 0.0
        self.earlier = 0.0
        self.steps = self.rejected = self.forced = self.unheld = self.evaluations = 0
        self.limit = 4
        self.stop: Stop | None = None

    @property
    def seconds(self) -> float:
        """Wall time so far."""
        return self.earlier + time.perf_counter() - self.clock

    def counts(self) -> dict[str, int | float]:
        """The work so far, as numbers that `restore` takes."""
        names = ("steps", "rejected", "forced", "unheld", "evaluations", "seconds")
        return {name: getattr(self, name) for name in names}

    def restore(
        self, counts: dict[str, int | float], choice: str, *, horizon: float, fell_back: bool
    ) -> None:
        """Take over the work of an earlier run of the same system, and the method it chose."""
        if horizon != self.horizon:
            self.method = self.solver.resolve(self.system, horizon, self.dtype)
        self.steps, self.rejected = int(counts["steps"]), int(counts["rejected"])
        self.forced, self.unheld = int(counts["forced"]), int(counts["unheld"])
        self.evaluations = int(counts["evaluations"])
        self.earlier, self.choice = counts["seconds"], choice
        if fell_back and self.method.fallback is not None:
            self._take(self.method.fallback)

    def watch_anew(self) -> None:
        """Nothing is being located: what an earlier run began to has another limit."""
        if self.started:
            state = dataclasses.replace(self.carry.controller_state, bracket=closed(self.dtype))
            self.carry = dataclasses.replace(self.carry, controller_state=state)

    @property
    def whole(self) -> bool:
        """Whether one step goes to the end; of such a one an end in between would not be seen."""
        return self.method.whole and not self.until.watched

    def at(self, t: float) -> bool:
        """Whether the run is at a time, told in its own precision."""
        return bool(self.carry.t == self._number(t))

    def beyond(self) -> bool:
        """Whether the run has come further than it is asked to."""
        return bool(self.carry.t > self._number(self.horizon))

    def met(self) -> list[Reason]:
        """The limits that the state is below."""
        found = self._gaps(self.carry.state) if self.until.watched else {}
        return [reason for reason, gap in found.items() if gap > 0]

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
            clock = time.perf_counter()
            limit = min(self.limit, most - self.steps)
            self.carry, outcome = jax.block_until_ready(
                advance(self.system, self._scheme(), self.carry, target, jnp.array(limit))
            )
            self._account(outcome, time.perf_counter() - clock)
            yield float(self.carry.t)

    def part(self, ts: Float[np.ndarray, " T"]) -> float:
        """About how much of the work is done on the way to the last of `ts`, from 0 to 1.

        Explicit steps are of about one length. Others become longer as the solution comes to rest,
        so that each save time is as far from the next one, however they are spaced. On the way to
        a loss, it is the loss's logarithm that falls evenly.
        """
        t = float(self.carry.t)
        knots = np.concatenate([[0.0], ts[ts > 0]])
        if isinstance(self.method.solver, dfx.AbstractERK):
            knots = knots[[0, -1]]
        parts = [float(np.interp(t, knots, np.linspace(0, 1, len(knots))))]
        if self.until.loss is not None:
            parts.append(self._fallen())
        return max(parts)

    def stats(self) -> Stats:
        """The work so far."""
        steps = (0, 0, 0) if self.whole else (self.steps, self.rejected, self.forced)
        return Stats(*steps, self.evaluations, self.seconds)

    def _fallen(self) -> float:
        """How far the loss has come on its way down to its limit."""
        first, now = self._first_gap, self._loss_gap(self.carry.state)
        return float(np.clip(1 - now / first, 0, 1)) if first < 0 else 1.0

    @functools.cached_property
    def _first_gap(self) -> float:
        return self._loss_gap(self.system.initial())

    def _loss_gap(self, state: PyTree[Array]) -> float:
        """How far below its limit the loss is; nothing else is computed."""
        limits = self.until.limits(self.dtype)
        return float(gaps({"loss": limits["loss"]}, self.system, state)["loss"])

    def _gaps(self, state: PyTree[Array]) -> dict[Reason, float]:
        """How far below each limit a state is."""
        found = gaps(self.until.limits(self.dtype), self.system, state)
        return {name: float(gap) for name, gap in found.items()}

    def _look(self) -> None:
        """End a run that is below a limit where it starts, or goes on from."""
        self.looked = True
        if self.until.watched:
            reason, gap = self._furthest()
            if gap > 0:
                self.stop = self.until.stop(reason, float(self.carry.t))

    def _furthest(self) -> tuple[Reason, float]:
        """The limit that the state is furthest below, and how far."""
        return max(self._gaps(self.carry.state).items(), key=lambda item: item[1])

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

    def _account(self, outcome: Outcome, seconds: float) -> None:
        taken = int(outcome.steps)
        self.steps += taken
        self.rejected += int(outcome.rejected)
        self.forced += int(outcome.forced)
        self.evaluations += taken * self.method.stages
        self.unheld += int(outcome.unheld)
        # Twice as long at most: the first call's time is mostly compilation.
        self.limit = int(min(2 * self.limit, max(1, CALL_SECONDS * taken / seconds)))
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
        spent = self.seconds - self.earlier
        if self.until.seconds is not None and spent > self.until.seconds:
            return self.until.stop("seconds", t)
        return None

    def _spent(self) -> Stop:
        t, limit = float(self.carry.t), self.max_steps
        words = f"step limit of {limit} reached at t = {t:.6g} of {self.horizon:g}"
        return Stop("step limit", t, words)

    def _number(self, value: float) -> Float[Array, ""]:
        return jnp.asarray(value, self.dtype)


def _growth(system: AbstractSystem, state: PyTree[Array]) -> float:
    """The largest factor by which a level is beyond its scale; one without a scale has none."""
    scale, now = np.asarray(system.scales()), np.asarray(system.sizes(state))
    return float(np.max(now[scale > 0] / scale[scale > 0], initial=0.0))
