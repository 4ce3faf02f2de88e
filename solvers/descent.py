"""Descent in steps, by whatever makes a step of a gradient."""

import dataclasses
import time
from collections.abc import Callable, Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from nthsim.solvers.abstract_run import AbstractRun
from nthsim.solvers.compiled import compiled
from nthsim.solvers.parameter_flow import AbstractParameterFlow
from nthsim.solvers.stop import Stop
from nthsim.solvers.system import AbstractSystem
from nthsim.solvers.until import Numbers, Until, largest_gap

#: Times are on a step if they are off by less than this part of it, or of themselves.
ON_STEP = 1e-6


class SteppedParameters(AbstractParameterFlow):
    """The parameters themselves as the state, as steps add to them and to nothing else."""

    def initial(self) -> PyTree[Array]:
        """The parameters at the start."""
        return self.theta

    def moved(self, state: PyTree[Array]) -> PyTree[Array]:
        """They are the state."""
        return state

    def field(self, state: PyTree[Array]) -> PyTree[Array]:
        """Minus the gradient of the objective, by which a rate of it is told."""
        return jax.tree.map(jnp.negative, self.gradient(state))


class Update(eqx.Module):
    r"""What makes a step of the gradient: $\theta_{s+1} = \theta_s + u(\nabla L_S(\theta_s))$.

    `init(theta)` is the state of `update(gradient, state, theta, value, objective)`, which returns
    the step and its state after it. The `objective` is the mean loss L_S on these samples as a
    function of theta, and `value` is its value there. All n samples are taken where `batch_size` is
    None; else those of each epoch come in an order drawn by `key`, in batches of that many, and the
    rest that makes no batch is left out.
    """

    init: Callable[[PyTree[Array]], PyTree]
    update: Callable[..., tuple[PyTree[Array], PyTree]]
    objective: Callable[[PyTree[Array], Int[Array, " S"] | None], Float[Array, ""]]
    samples: int = eqx.field(static=True)
    batch_size: int | None = eqx.field(static=True, default=None)
    key: Key[Array, ""] | None = None

    @property
    def batches(self) -> int:
        """How many there are in an epoch."""
        return 1 if self.batch_size is None else self.samples // self.batch_size

    def batch(
        self, step: Int[Array, ""], order: Int[Array, " n"]
    ) -> tuple[Int[Array, " S"] | None, Int[Array, " n"]]:
        """The samples of a step, and the order that those of its epoch come in."""
        if self.batch_size is None or self.key is None:
            return None, order
        epoch, place = step // self.batches, step % self.batches
        drawn = lambda: jr.permutation(jr.fold_in(self.key, epoch), self.samples)  # noqa: E731
        order = jax.lax.cond(place == 0, drawn, lambda: order)
        return jax.lax.dynamic_slice(order, [place * self.batch_size], [self.batch_size]), order


class DescentCarry(eqx.Module):
    """Everything that one compiled call hands to the next.

    `loss` is that of the last step's batch before the step; `t` is set after each call.
    """

    t: Float[Array, ""]
    step: Int[Array, ""]
    state: PyTree[Array]
    memory: PyTree
    order: Int[Array, " n"]
    loss: Float[Array, ""]


@compiled
def descend(
    system: SteppedParameters,
    update: Update,
    carry: DescentCarry,
    limits: Numbers,
    target: Int[Array, ""],
) -> tuple[DescentCarry, Bool[Array, ""]]:
    """Up to that step, or to where the loss is no number or a limit is met; whether one is."""

    def going(pair: tuple[DescentCarry, Array]) -> Bool[Array, ""]:
        return (pair[0].step < target) & jnp.isfinite(pair[0].loss) & ~pair[1]

    def step(pair: tuple[DescentCarry, Array]) -> tuple[DescentCarry, Bool[Array, ""]]:
        at = pair[0]
        samples, order = update.batch(at.step, at.order)
        objective = lambda theta: update.objective(theta, samples)  # noqa: E731
        loss, gradient = jax.value_and_grad(objective)(at.state)
        move, memory = update.update(gradient, at.memory, at.state, loss, objective)
        state = jax.tree.map(lambda a, b: jnp.asarray(a + b, a.dtype), at.state, move)
        found = largest_gap(limits, system, state) > 0 if limits else jnp.array(False)
        return DescentCarry(at.t, at.step + 1, state, memory, order, loss), found

    with jax.default_matmul_precision("highest"):
        return jax.lax.while_loop(going, step, (carry, jnp.array(False)))


class SteppedRun(AbstractRun):
    """Steps of descent on their way; between two steps parameters are on the line between."""

    carry: DescentCarry

    def __init__(
        self,
        system: SteppedParameters,
        horizon: float,
        until: Until,
        steps: "Steps",
    ) -> None:
        """No step is taken yet."""
        super().__init__(system, horizon, until)
        self.update, self.rate, self.choice = steps.update, steps.rate, steps.choice
        self.carry, self.started = self._first(), True

    def advance(self, t: float) -> Iterator[float]:
        """To the last step that is not after `t`."""
        target, part = self._steps(t)
        if t > 0 and not self.looked:
            self._look()
        while self.stop is None and int(self.carry.step) < target:
            clock, before = time.perf_counter(), int(self.carry.step)
            end = min(target, before + self.limit)
            self.carry, found = jax.block_until_ready(self._descended(self.carry, end))
            taken = int(self.carry.step) - before
            self.steps += taken
            self.evaluations += taken
            if int(self.carry.step) == target and not part:
                self.carry = dataclasses.replace(self.carry, t=self._number(t))
            self._paced(max(1, taken), time.perf_counter() - clock)
            self.stop = self._reason(bool(found))
            yield float(self.carry.t)

    def beyond(self) -> bool:
        """By steps, as their times are rounded."""
        return int(self.carry.step) > self._steps(self.horizon)[0]

    def state_at(self, t: float) -> PyTree[Array]:
        """After the last step that is not after `t`, and a part of the next one."""
        step, part = self._steps(t)
        if not part or step != int(self.carry.step) or t == float(self.carry.t):
            return self.carry.state
        after, _ = self._descended(self.carry, step + 1)
        between = lambda a, b: a + jnp.asarray(part, a.dtype) * (b - a)  # noqa: E731
        return jax.tree.map(between, self.carry.state, after.state)

    def blank(self) -> DescentCarry:
        """They are known before the first step."""
        return eqx.filter_eval_shape(self._first)

    def part(self, ts: Float[np.ndarray, " T"]) -> float:
        """All steps take as long."""
        return max(float(self.carry.t) / float(ts[-1]), self._fallen())

    def watch_anew(self) -> None:
        """Nothing is located but between steps."""

    def _first(self) -> DescentCarry:
        state, update = self.system.initial(), self.update
        order = jnp.arange(0 if update.batch_size is None else update.samples)
        memory = jax.tree.map(jnp.asarray, update.init(state))
        return DescentCarry(
            self._number(0.0), jnp.array(0), state, memory, order, self._number(0.0)
        )

    def _descended(self, carry: DescentCarry, end: int) -> tuple[DescentCarry, Bool[Array, ""]]:
        limits = self.until.limits(self.dtype)
        after, found = descend(self.system, self.update, carry, limits, jnp.array(end))
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


class Steps(eqx.Module):
    """What is to be descended by: an update, the time that a step takes, and words for both.

    `mark` tells it from every other one.
    """

    update: Update
    rate: float
    choice: str
    mark: str

    def begun(self, system: AbstractSystem, horizon: float, until: Until) -> SteppedRun:
        """Such a descent, at its start."""
        assert isinstance(system, SteppedParameters)  # nothing else is descended
        return SteppedRun(system, horizon, until, self)
