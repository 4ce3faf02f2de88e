"""A run in steps that all take as long, whatever makes them."""

import abc
import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from nthsim.solvers.abstract_run import AbstractRun
from nthsim.solvers.stop import Stop
from nthsim.solvers.system import AbstractSystem
from nthsim.solvers.until import Numbers, Until

#: Times are on a step if they are off by less than this part of it, or of themselves.
ON_STEP = 1e-6


class SteppedCarry(eqx.Module):
    """Everything that one compiled call hands to the next.

    `memory` is what the steps keep beside the state. `loss` is that before the last step; `t` is
    set after each call.
    """

    t: Float[Array, ""]
    step: Int[Array, ""]
    state: PyTree[Array]
    memory: PyTree
    loss: Float[Array, ""]


class AbstractSteps(eqx.Module):
    """What makes steps, the time `rate` that each takes, and words for both.

    `mark` tells it from every other one of its `noun`.
    """

    noun: eqx.AbstractClassVar[str]
    rate: eqx.AbstractVar[float]
    choice: eqx.AbstractVar[str]
    mark: eqx.AbstractVar[str]

    @abc.abstractmethod
    def remembered(self, state: PyTree[Array]) -> PyTree:
        """What is kept beside the state before the first step."""

    @abc.abstractmethod
    def take(
        self, system: Any, carry: SteppedCarry, limits: Numbers, target: Int[Array, ""]
    ) -> tuple[SteppedCarry, Bool[Array, ""]]:
        """To that step, or to where the loss is no number or a limit is met; whether one is."""

    def doubt(self, system: Any, carry: SteppedCarry) -> str:
        """What is to be said of the steps where a save time is reached; "" if nothing."""
        del system, carry
        return ""

    def first(self, system: AbstractSystem) -> SteppedCarry:
        """No step is taken yet."""
        state = system.initial()
        zero = jnp.zeros((), jnp.result_type(*jax.tree.leaves(state)))
        memory = jax.tree.map(jnp.asarray, self.remembered(state))
        return SteppedCarry(zero, jnp.array(0), state, memory, zero)

    def begun(self, system: AbstractSystem, horizon: float, until: Until) -> "SteppedRun":
        """A run by these steps, at its start."""
        return SteppedRun(system, horizon, until, self)


class SteppedRun(AbstractRun):
    """Steps on their way; between two of them the state is on the line between."""

    carry: SteppedCarry

    def __init__(
        self, system: AbstractSystem, horizon: float, until: Until, by: AbstractSteps
    ) -> None:
        """No step is taken yet."""
        super().__init__(system, horizon, until)
        self.by, self.rate, self.choice = by, by.rate, by.choice
        self.carry, self.started = by.first(system), True

    def advance(self, t: float) -> Iterator[float]:
        """To the last step that is not after `t`."""
        target, part = self._steps(t)
        if t > 0 and not self.looked:
            self._look()
        while self.stop is None and int(self.carry.step) < target:
            clock, before = time.perf_counter(), int(self.carry.step)
            end = min(target, before + self.limit)
            self.carry, found = jax.block_until_ready(self._taken(self.carry, end))
            taken = int(self.carry.step) - before
            self.steps += taken
            self.evaluations += taken
            if int(self.carry.step) == target and not part:
                self.carry = dataclasses.replace(self.carry, t=self._number(t))
            self._paced(max(1, taken), time.perf_counter() - clock)
            self.stop = self._reason(bool(found))
            if int(self.carry.step) == target and self.choice == self.by.choice:
                self.choice += self.by.doubt(self.system, self.carry)
            yield float(self.carry.t)

    def beyond(self) -> bool:
        """By steps, as their times are rounded."""
        return int(self.carry.step) > self._steps(self.horizon)[0]

    def state_at(self, t: float) -> PyTree[Array]:
        """After the last step that is not after `t`, and a part of the next one."""
        step, part = self._steps(t)
        if not part or step != int(self.carry.step) or t == float(self.carry.t):
            return self.carry.state
        after, _ = self._taken(self.carry, step + 1)
        between = lambda a, b: a + jnp.asarray(part, a.dtype) * (b - a)  # noqa: E731
        return jax.tree.map(between, self.carry.state, after.state)

    def blank(self) -> SteppedCarry:
        """They are known before the first step."""
        return eqx.filter_eval_shape(self.by.first, self.system)

    def part(self, ts: Float[np.ndarray, " T"]) -> float:
        """All steps take as long."""
        return max(float(self.carry.t) / float(ts[-1]), self._fallen())

    def watch_anew(self) -> None:
        """Nothing is located but between steps."""

    def _taken(self, carry: SteppedCarry, end: int) -> tuple[SteppedCarry, Bool[Array, ""]]:
        limits = self.until.limits(self.dtype)
        after, found = self.by.take(self.system, carry, limits, jnp.array(end))
        # By the number of steps, so that nothing is lost of a time that is a sum of many.
        return dataclasses.replace(after, t=self._number(int(after.step) * self.rate)), found

    def _steps(self, t: float) -> tuple[int, float]:
        """How many whole steps there are to `t`, and which part of the next one."""
        steps = t / self.rate
        nearest = round(steps)
        if abs(steps - nearest) <= min(0.01, ON_STEP * max(1.0, steps)):
            return nearest, 0.0
        return int(steps), steps - int(steps)

    def _reason(self, found: bool) -> Stop | None:
        t = float(self.carry.t)
        if not np.isfinite(self.carry.loss):
            return Stop("blow-up", t, f"diverged by t = {t:.6g}: the loss is no finite number")
        if found:
            return self.until.stop(self._furthest()[0], t)
        return None if self._at_end else self._out_of_time()

    @property
    def _at_end(self) -> bool:
        return int(self.carry.step) >= self._steps(self.horizon)[0]
