"""Exact gradient flow, in the space of all parameters."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Bool, Float, PyTree

from nthsim.solvers.curvature import largest_curvature
from nthsim.solvers.driven_system import AbstractDrivenSystem
from nthsim.solvers.velocities import velocity


class AbstractParameterFlow(AbstractDrivenSystem):
    r"""A flow of the parameters that goes down the loss, with residual $c = c(f(\theta))$.

    `network(theta, x)` evaluates a batch; `residual(f)` is $\partial \ell / \partial f$ divided by
    the number of samples; `x` are training inputs, `x_shown` those at which outputs are recorded.
    `kernel(theta)` is the tangent kernel on the training inputs, for integrators that ask for it.
    `forward` says whether the network has derivatives in forward mode, `rough` what keeps the field
    from being smooth; `penalty(theta)` is what is added to the loss, if anything is.
    """

    network: Callable[[PyTree[Array], Array], Array]
    residual: Callable[[Array], Array]
    risk: Callable[[Array], Float[Array, ""]]
    kernel: Callable[[PyTree[Array]], Float[Array, "N N"]]
    theta: PyTree[Array]
    x: Array
    x_shown: Array
    forward: bool = eqx.field(static=True, default=True)
    rough: str = eqx.field(static=True, default="")
    penalty: Callable[[PyTree[Array]], Float[Array, ""]] | None = None

    def gradient(self, state: PyTree[Array]) -> PyTree[Array]:
        r"""That of the objective, $\sum_b c_b\, \nabla f_b + \nabla R$, by two passes."""
        f, pullback = jax.vjp(self.predictions, state)
        gradient = pullback(self.residual(f))[0]
        if self.penalty is None:
            return gradient
        return jax.tree.map(jnp.add, gradient, jax.grad(self._penalty)(state))

    def objective(self, state: PyTree[Array]) -> Float[Array, ""]:
        """The mean loss and the penalty."""
        loss = self.loss(state)
        return loss if self.penalty is None else loss + self._penalty(state)

    def fall(self, state: PyTree[Array]) -> Float[Array, ""]:
        """By the gradient of the penalty too, if there is one."""
        if self.penalty is None:
            return super().fall(state)
        parts = jax.tree.map(jnp.vdot, self.gradient(state), self.field(state))
        return -jax.tree.reduce(jnp.add, parts)

    def further_rate(self) -> float:
        """The largest curvature of the penalty."""
        if self.penalty is None:
            return 0.0
        return float(largest_curvature(self.penalty, self.moved(self.initial())))

    def _penalty(self, state: PyTree[Array]) -> Float[Array, ""]:
        assert self.penalty is not None
        return self.penalty(self.moved(state))

    def predictions(self, state: PyTree[Array]) -> Float[Array, "n k"]:
        """The network's outputs."""
        return self.network(self.moved(state), self.x).reshape(len(self.x), -1)

    def pull(self, state: PyTree[Array], cotangent: Float[Array, " N"]) -> PyTree[Array]:
        """By one backward pass."""
        f, pullback = jax.vjp(self.predictions, state)
        return pullback(cotangent.reshape(f.shape))[0]

    def push(self, state: PyTree[Array], direction: PyTree[Array]) -> Float[Array, " N"]:
        """By one forward pass of derivatives, or by gradients."""
        network = lambda state, x: self.network(self.moved(state), x)  # noqa: E731
        return velocity(network, state, direction, self.x, forward=self.forward)

    def tangent_kernel(self, state: PyTree[Array]) -> Float[Array, "N N"]:
        r"""$K^{(2)}$ of the network."""
        return self.kernel(self.moved(state))

    @property
    def linear(self) -> bool:
        """No: what is not known to be linear is not said to be."""
        return False

    def roughness(self) -> str:
        """As told."""
        return self.rough

    def sizes(self, state: PyTree[Array]) -> Float[Array, " 1"]:
        r"""The Euclidean norm over all numbers of the state."""
        return optx.two_norm(state)[None]

    def scales(self) -> Float[Array, " 1"]:
        """Nothing: a displacement of any size is no blow-up."""
        return jnp.zeros(1)

    def outputs(self, state: PyTree[Array]) -> dict[str, Array]:
        """`f` at the inputs shown."""
        return {"f": self.network(self.moved(state), self.x_shown)}

    def escaped(self, state: PyTree[Array]) -> Bool[Array, ""]:
        """Never: the loss falls along its own gradient flow, and steps tell by their loss."""
        del state
        return jnp.array(False)

    @abc.abstractmethod
    def moved(self, state: PyTree[Array]) -> PyTree[Array]:
        """The parameters at this state."""


class AbstractDisplacement(AbstractParameterFlow):
    r"""The state is the displacement $u = \theta - \theta_0$.

    A wide network learns by moving each parameter very little, so errors are held against
    $\|u\|_2$, not against $\theta$: a tolerance relative to $\theta$ would be met by not moving at
    all.
    """

    def initial(self) -> PyTree[Array]:
        """No displacement."""
        return jax.tree.map(jnp.zeros_like, self.theta)

    def moved(self, state: PyTree[Array]) -> PyTree[Array]:
        """The parameters at this displacement."""
        return jax.tree.map(jnp.add, self.theta, state)


class ParameterFlow(AbstractDisplacement):
    r"""Gradient flow, $\theta' = -\sum_b c_b\, \nabla f_b(\theta)$."""

    def field(self, state: PyTree[Array]) -> PyTree[Array]:
        """Minus the gradient of the objective."""
        return jax.tree.map(jnp.negative, self.gradient(state))


class ModifiedFlow(AbstractDisplacement):
    r"""The flow that descent at a rate h follows up to $h^2$, $\theta' = -\nabla \tilde L(\theta)$.

    $\tilde L = L + \tfrac{h}{4} |\nabla L|^2$ (Barrett & Dherin 2020, arXiv 2009.11162, eq. 5).
    """

    rate: Float[Array, ""] = eqx.field(kw_only=True)

    def field(self, state: PyTree[Array]) -> PyTree[Array]:
        """By a gradient through that of the loss."""

        def modified(state: PyTree[Array]) -> Float[Array, ""]:
            squares = optx.two_norm(self.gradient(state)) ** 2
            return self.objective(state) + self.rate / 4 * squares

        return jax.tree.map(jnp.negative, jax.grad(modified)(state))
