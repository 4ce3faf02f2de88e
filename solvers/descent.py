"""Descent in steps, by whatever makes a step of a gradient."""

from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from nthsim.solvers.compiled import compiled
from nthsim.solvers.parameter_flow import AbstractParameterFlow
from nthsim.solvers.stepped_run import AbstractSteps, SteppedCarry
from nthsim.solvers.until import Numbers, largest_gap


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


@compiled
def descend_once(
    system: SteppedParameters, update: Update, at: SteppedCarry, limits: Numbers
) -> tuple[SteppedCarry, Bool[Array, ""]]:
    """One step, and whether a limit is met after it."""
    with jax.default_matmul_precision("highest"):
        memory, order = at.memory
        samples, order = update.batch(at.step, order)
        objective = lambda theta: update.objective(theta, samples)  # noqa: E731
        loss, gradient = jax.value_and_grad(objective)(at.state)
        move, memory = update.update(gradient, memory, at.state, loss, objective)
        state = jax.tree.map(lambda a, b: jnp.asarray(a + b, a.dtype), at.state, move)
        found = largest_gap(limits, system, state) > 0 if limits else jnp.array(False)
        return SteppedCarry(at.t, at.step + 1, state, (memory, order), loss), found


@compiled
def descend(
    system: SteppedParameters,
    update: Update,
    carry: SteppedCarry,
    limits: Numbers,
    target: Int[Array, ""],
) -> tuple[SteppedCarry, Bool[Array, ""]]:
    """Up to that step, or to where the loss is no number or a limit is met; whether one is."""

    def going(pair: tuple[SteppedCarry, Array]) -> Bool[Array, ""]:
        return (pair[0].step < target) & jnp.isfinite(pair[0].loss) & ~pair[1]

    step = lambda pair: descend_once(system, update, pair[0], limits)  # noqa: E731
    return jax.lax.while_loop(going, step, (carry, jnp.array(False)))


class Steps(AbstractSteps):
    """Those of descent by an update.

    `alone` has each step be a call of its own: XLA computes elementwise work within a loop on one
    core, which costs more than calls do where a step is long.
    """

    noun: ClassVar[str] = "optimiser"
    update: Update
    rate: float
    choice: str
    mark: str
    alone: bool = False

    def remembered(self, state: PyTree[Array]) -> PyTree:
        """What the update does, and the order of the samples."""
        update = self.update
        order = jnp.arange(0 if update.batch_size is None else update.samples)
        return update.init(state), order

    def take(
        self,
        system: SteppedParameters,
        carry: SteppedCarry,
        limits: Numbers,
        target: Int[Array, ""],
    ) -> tuple[SteppedCarry, Bool[Array, ""]]:
        """By one compiled loop, or step by step."""
        if not self.alone:
            return descend(system, self.update, carry, limits, target)
        found = jnp.array(False)
        while carry.step < target and jnp.isfinite(carry.loss) and not found:
            carry, found = descend_once(system, self.update, carry, limits)
        return carry, found
