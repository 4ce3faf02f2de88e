"""Gradient flow that is driven by noise, many paths of it at once."""

import abc
import functools
from typing import ClassVar

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from nthsim.solvers.compiled import compiled
from nthsim.solvers.curvature import largest_curvature
from nthsim.solvers.parameter_flow import AbstractParameterFlow
from nthsim.solvers.stepped_run import AbstractSteps, SteppedCarry
from nthsim.solvers.system import AbstractSystem
from nthsim.solvers.until import Numbers

#: What takes each step, where the noise stays as it is drawn.
STEPPER = dfx.Heun()

#: A step times the largest curvature, by whose square moments are off: that of a step chosen here
#: at most, and that of which a user is told.
SHORT, LONG = 0.2, 0.5


class AbstractNoise(eqx.Module):
    """Random directions of a flow's state, the same at all states if `steady`."""

    steady: eqx.AbstractClassVar[bool]

    @abc.abstractmethod
    def draw(
        self, flow: AbstractParameterFlow, state: PyTree[Array], key: Key[Array, ""]
    ) -> PyTree:
        """One direction of mean zero, at a state."""


class GradientNoise(AbstractNoise):
    r"""Covariance C, that of the gradients $g_b$ of single samples: $C^{1/2} \xi$.

    As $n^{-1/2} \sum_b (g_b - \bar g)\, \xi_b$ with n normal numbers, by one backward pass.
    """

    steady: ClassVar[bool] = False

    def draw(
        self, flow: AbstractParameterFlow, state: PyTree[Array], key: Key[Array, ""]
    ) -> PyTree:
        """By the residual of each sample, times a number."""
        f, pullback = jax.vjp(flow.predictions, state)
        c = flow.residual(f)
        drawn = jr.normal(key, (len(c), 1), c.dtype)
        n = jnp.asarray(len(c), c.dtype)
        return pullback(jnp.sqrt(n) * (drawn - jnp.mean(drawn)) * c)[0]


class IsotropicNoise(AbstractNoise):
    r"""Independent normal numbers times $\sigma$, and times `scales` of the state's arrays."""

    steady: ClassVar[bool] = True
    sigma: Float[Array, ""]
    scales: PyTree[Float[Array, ""]]

    def draw(
        self, flow: AbstractParameterFlow, state: PyTree[Array], key: Key[Array, ""]
    ) -> PyTree:
        """The same at all states."""
        del flow
        leaves, structure = jax.tree.flatten(state)
        keys = jr.split(key, len(leaves))
        drawn = [jr.normal(k, a.shape, a.dtype) for k, a in zip(keys, leaves, strict=True)]
        scaled = lambda a, scale: self.sigma * scale * a  # noqa: E731
        return jax.tree.map(scaled, jax.tree.unflatten(structure, drawn), self.scales)


class NoisyPaths(AbstractSystem):
    """So many paths of one flow, of which each begins where that does."""

    flow: AbstractParameterFlow
    paths: int = eqx.field(static=True)

    def initial(self) -> PyTree[Array]:
        """The same for all."""
        return jax.tree.map(lambda a: jnp.repeat(a[None], self.paths, 0), self.flow.initial())

    def field(self, state: PyTree[Array]) -> PyTree[Array]:
        """That of each, without noise."""
        return jax.vmap(self.flow.field)(state)

    def sizes(self, state: PyTree[Array]) -> Float[Array, "paths 1"]:
        """Of each."""
        return jax.vmap(self.flow.sizes)(state)

    def scales(self) -> Float[Array, "paths 1"]:
        """Nothing is known."""
        return jnp.repeat(self.flow.scales()[None], self.paths, 0)

    def outputs(self, state: PyTree[Array]) -> dict[str, Array]:
        """`path_f` of each, and `f`, their mean."""
        f = jax.vmap(lambda state: self.flow.outputs(state)["f"])(state)
        return {"f": jnp.mean(f, axis=0), "path_f": f}

    def roughness(self) -> str:
        """That of the flow."""
        return self.flow.roughness()

    def escaped(self, state: PyTree[Array]) -> Bool[Array, ""]:
        """Never: steps tell by their loss."""
        del state
        return jnp.array(False)


@compiled
def walk(
    system: NoisyPaths,
    noise: AbstractNoise,
    amplitude: Float[Array, ""],
    key: Key[Array, ""],
    carry: SteppedCarry,
    step: Float[Array, ""],
    target: Int[Array, ""],
) -> SteppedCarry:
    r"""Up to that step of $d\theta = F\, dt + a\, dW$, or to where some loss is no number.

    In Itô's sense. The noise of a step is drawn where half a step with noise of its own leads to,
    so that its covariance is the mean over the step to second order, and so are mean and covariance
    of paths where F and the noise are linear in them; moments beyond these are of first order.
    Without noise steps are of second order.
    """
    flow = system.flow
    keys = jax.vmap(functools.partial(jr.fold_in, key))(jnp.arange(system.paths))

    def going(carry: SteppedCarry) -> Bool[Array, ""]:
        return (carry.step < target) & jnp.isfinite(carry.loss)

    def halfway(state: PyTree[Array], key: Key[Array, ""]) -> PyTree[Array]:
        if noise.steady:
            return state
        drawn, half = noise.draw(flow, state, jr.fold_in(key, 1)), step / 2
        forth = lambda y, f, a: y + half * f + amplitude * jnp.sqrt(half) * a  # noqa: E731
        return jax.tree.map(forth, state, flow.field(state), drawn)

    def moved(state: PyTree[Array], key: Key[Array, ""]) -> tuple[PyTree[Array], Array]:
        drawn = noise.draw(flow, halfway(state, key), key)
        push = jax.tree.map(lambda a: amplitude / jnp.sqrt(step) * a, drawn)
        term = dfx.ODETerm(lambda t, y, push: jax.tree.map(jnp.add, flow.field(y), push))
        start = jnp.zeros_like(step)
        memory = STEPPER.init(term, start, step, state, push)
        after, *_ = STEPPER.step(term, start, step, state, push, memory, made_jump=False)
        return after, flow.loss(state)

    def one(carry: SteppedCarry) -> SteppedCarry:
        now = jax.vmap(jr.fold_in, (0, None))(keys, carry.step)
        state, losses = jax.vmap(moved)(carry.state, now)
        return SteppedCarry(carry.t, carry.step + 1, state, carry.memory, jnp.mean(losses))

    with jax.default_matmul_precision("highest"):
        return jax.lax.while_loop(going, one, carry)


@compiled
def _largest(system: NoisyPaths, state: PyTree[Array]) -> Float[Array, ""]:
    """The largest curvature of the objective at any path."""
    curvature = lambda one: largest_curvature(system.flow.objective, one)  # noqa: E731
    with jax.default_matmul_precision("highest"):
        return jnp.max(jax.vmap(curvature)(state))


class NoisySteps(AbstractSteps):
    """Those of a walk, whose noise is `amplitude` times what is drawn by `key`."""

    noun: ClassVar[str] = "noise"
    noise: AbstractNoise
    amplitude: float
    key: Key[Array, ""]
    rate: float
    choice: str
    mark: str

    def remembered(self, state: PyTree[Array]) -> PyTree:
        """Nothing: what is drawn follows from the number of the step."""
        del state

    def take(
        self, system: NoisyPaths, carry: SteppedCarry, limits: Numbers, target: Int[Array, ""]
    ) -> tuple[SteppedCarry, Bool[Array, ""]]:
        """By one compiled loop; no limit is known of a path."""
        assert not limits
        number = lambda value: jnp.asarray(value, carry.loss.dtype)  # noqa: E731
        amplitude, step = number(self.amplitude), number(self.rate)
        after = walk(system, self.noise, amplitude, self.key, carry, step, target)
        return after, jnp.array(False)

    def doubt(self, system: NoisyPaths, carry: SteppedCarry) -> str:
        """Whether steps are long beside the curvature that some path has come to."""
        found = self.rate * float(_largest(system, carry.state))
        if not found > LONG:
            return ""
        return (
            f"; at t = {float(carry.t):g} a step times the largest curvature is {found:.2g}: take "
            "a smaller `step`"
        )
