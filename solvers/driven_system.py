"""Systems that are driven by the residual of their own outputs."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from nthsim.solvers.system import AbstractSystem


class AbstractDrivenSystem(AbstractSystem):
    r"""A system of the form $y' = -B(y)\, c(f(y)) - b(y)$, as exact flow and all truncations are.

    f are the outputs on the n training samples, k each and N in all; c is their `residual`, of
    which no sample's depends on another's outputs, the derivative of their `risk`, which is a
    number; B is what `pull` does, and C, the derivative of f, what `push` does; b is what a
    regulariser adds.
    """

    residual: eqx.AbstractVar[Callable[..., Array]]
    risk: eqx.AbstractVar[Callable[[Array], Float[Array, ""]]]

    def loss(self, state: PyTree[Array]) -> Float[Array, ""]:
        """The risk of the predictions."""
        return self.risk(self.predictions(state))

    def objective(self, state: PyTree[Array]) -> Float[Array, ""]:
        """What the flow goes down: the loss, and what is added to it where that is known."""
        return self.loss(state)

    def fall(self, state: PyTree[Array]) -> Float[Array, ""]:
        """How fast the objective falls."""
        residual = self.residual(self.predictions(state)).reshape(-1)
        return -jnp.vdot(residual, self.push(state, self.field(state)))

    def further_rate(self) -> float:
        """The fastest rate at the start of what moves by no residual; zero where nothing does."""
        return 0.0

    @abc.abstractmethod
    def predictions(self, state: PyTree[Array]) -> Float[Array, "n k"]:
        """The outputs on the training samples."""

    @abc.abstractmethod
    def pull(self, state: PyTree[Array], cotangent: Float[Array, " N"]) -> PyTree[Array]:
        """B: minus the field, were this the residual."""

    @abc.abstractmethod
    def push(self, state: PyTree[Array], direction: PyTree[Array]) -> Float[Array, " N"]:
        """C: how fast the predictions change when the state moves in this direction."""

    @abc.abstractmethod
    def tangent_kernel(self, state: PyTree[Array]) -> Float[Array, "N N"]:
        """C B: how each prediction answers to each residual."""

    @property
    @abc.abstractmethod
    def linear(self) -> bool:
        """Whether the predictions answer alike in all states, and the loss is quadratic."""
