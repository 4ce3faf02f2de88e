"""What the parameters do along a run: how far they have come, and how curved the loss is there."""

import abc
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from nthsim.dynamics.eigenvalues import AbstractOperator, largest
from nthsim.dynamics.observable import Observable
from nthsim.dynamics.problem import Problem
from nthsim.inputs.integers import count
from nthsim.inputs.true_gradient import has_true_gradient
from nthsim.network.network import Network, parameter_count
from nthsim.results.moment import Moment
from nthsim.results.record import Label
from nthsim.solvers.compiled import compiled
from nthsim.solvers.velocities import velocity


class Movement(Observable):
    r"""Of each array w that trains its `norm`, its `distance` from the start, and its `speed`.

    Frobenius norms of $w$, $w - w_0$ and $w'$, that of gradient flow, each (T, arrays); arrays are
    named by their paths in the module.
    """

    name: str = eqx.field(default="movement", init=False)
    of_parameters: bool = eqx.field(default=True, init=False)

    def evaluate(self, moment: Moment) -> dict[str, np.ndarray]:
        """Of the arrays as the module has them, whatever they are in the flow."""
        assert moment.theta is not None
        names, found = ("norm", "distance", "speed"), _movement(moment.problem, moment.theta)
        return {name: np.asarray(values) for name, values in zip(names, found, strict=True)}

    def labels(self, problem: Problem) -> dict[str, Label]:
        """Along the arrays."""
        paths = [path for path, _ in jax.tree.leaves_with_path(problem.theta)]
        places = {"array": np.array([jax.tree_util.keystr(path)[1:] for path in paths])}
        units = {"norm": "1", "distance": "1", "speed": "1 / time"}
        return {name: Label(("array",), unit, places) for name, unit in units.items()}


class AbstractLargest(Observable):
    """The largest eigenvalues of an operator that depends on the parameters, `top` of them."""

    top: eqx.AbstractVar[int]
    unit: ClassVar[str] = "1 / time"

    @abc.abstractmethod
    def operator(self, problem: Problem, theta: PyTree[Array]) -> AbstractOperator:
        """At these parameters."""

    def lacks(self, problem: Problem) -> str:
        """What of a problem it cannot be had of, in words; "" if nothing."""
        del problem
        return ""

    @property
    def number(self) -> int | None:
        """How many, if several."""
        return None if self.top == 1 else self.top

    def evaluate(self, moment: Moment) -> dict[str, np.ndarray]:
        """By Lanczos' iteration.

        Raises:
            ValueError: When the problem lacks what it takes.
        """
        assert moment.theta is not None
        if lacking := self.lacks(moment.problem):
            raise ValueError(lacking)
        operator = self.operator(moment.problem, moment.theta)
        found = largest(operator, min(self.top, operator.size))
        return {self.name: np.asarray(found[0]) if self.top == 1 else found}

    def labels(self, problem: Problem) -> dict[str, Label]:
        """Along the eigenvalues, from 1 on."""
        if self.top == 1:
            return {self.name: Label((), self.unit, {})}
        top = min(self.top, self.operator(problem, problem.theta).size)
        places = {"direction": np.arange(1, top + 1)}
        return {self.name: Label(("direction",), self.unit, places)}


class Sharpness(AbstractLargest):
    r"""The largest eigenvalues of the Hessian of the training loss and regulariser.

    In descending order, as `sharpness` (T,) if it is one and (T, top) if there are several; where
    arrays train at rates D other than one, those of $\sqrt D\, H \sqrt D$. Gradient descent at a
    step above 2 / sharpness is unstable (Cohen et al. 2021, arXiv 2103.00065). Without the Hessian,
    from its products with vectors, one or two gradients each; of networks with kinks it is that of
    the smooth piece.

    Args:
        top: How many.

    Raises:
        ValueError: When `top` is not an integer of at least 1.
    """

    top: int = eqx.field(default=1, converter=lambda top: count("top", top, 1))
    name: str = eqx.field(default="sharpness", init=False)
    of_parameters: bool = eqx.field(default=True, init=False)

    def operator(self, problem: Problem, theta: PyTree[Array]) -> "Hessian":
        """The Hessian."""
        return Hessian(problem, theta)

    def lacks(self, problem: Problem) -> str:
        """A Hessian."""
        true = has_true_gradient(problem.residual)
        return "" if true else "the loss has no Hessian, as its gradient is not that of its value"


class GradientCovariance(AbstractLargest):
    r"""The largest eigenvalues of the covariance of the gradients of single training points.

    $C = \frac1n \sum_b (g_b - \bar g)(g_b - \bar g)^\top$, a regulariser aside, whose part h/S is
    that of the noise of batches (`Noisy`). In descending order, as `gradient_covariance` (T,) if it
    is one and (T, top) if there are several; where arrays train at rates D other than one, those of
    $\sqrt D\, C \sqrt D$. Neither C nor all gradients are formed: from products with vectors of n
    numbers, a backward and a forward pass each.

    Args:
        top: How many.

    Raises:
        ValueError: When `top` is not an integer of at least 1.
    """

    top: int = eqx.field(default=1, converter=lambda top: count("top", top, 1))
    name: str = eqx.field(default="gradient_covariance", init=False)
    of_parameters: bool = eqx.field(default=True, init=False)
    unit: ClassVar[str] = "1 / time^2"

    def operator(self, problem: Problem, theta: PyTree[Array]) -> "GradientGram":
        """The matrix of their products, which has the same eigenvalues."""
        return GradientGram(problem, theta)

    def lacks(self, problem: Problem) -> str:
        """A backward pass that is linear."""
        return "" if problem.linear_backward else "the model's backward pass is not linear"


class GradientGram(AbstractOperator):
    r"""$v \mapsto \frac1n G (G^\top v)$, where rows of G are gradients less their mean."""

    problem: Problem
    theta: PyTree[Array]

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.problem.x)

    @property
    def dtype(self) -> jnp.dtype:
        """That of the parameters."""
        return self.problem.dtype

    def __call__(self, v: Float[Array, " n"]) -> Float[Array, " n"]:
        """By one backward and one forward pass."""
        problem, n = self.problem, jnp.asarray(self.size, v.dtype)
        outputs = lambda theta, x: problem.network(theta, x).reshape(len(x), -1)  # noqa: E731
        f, pull = jax.vjp(lambda theta: outputs(theta, problem.x), self.theta)
        c = n * problem.residual(f)
        (direction,) = pull((v - jnp.mean(v))[:, None] * c)
        moved = velocity(outputs, self.theta, direction, problem.x, forward=problem.forward)
        along = jnp.sum(c * moved.reshape(c.shape), axis=1)
        return (along - jnp.mean(along)) / n


class Hessian(AbstractOperator):
    """That of the training loss and regulariser by all parameters, in one row."""

    problem: Problem
    theta: PyTree[Array]

    @property
    def size(self) -> int:
        """P."""
        return parameter_count(self.theta)

    @property
    def dtype(self) -> jnp.dtype:
        """That of the parameters."""
        return self.problem.dtype

    def __call__(self, v: Float[Array, " P"]) -> Float[Array, " P"]:
        """The derivative of the gradient in a direction, or of the gradient's part along it."""
        flat, gradient = self.flat(), self.gradient
        if self.problem.forward:
            return jax.jvp(gradient, (flat,), (v,))[1]
        return jax.grad(lambda row: gradient(row) @ v)(flat)

    def ready(self) -> AbstractOperator:
        """With the gradient taken, so that a product costs one or two."""
        return Linearized(self, _linearized(self)) if self.problem.forward else self

    def flat(self) -> Float[Array, " P"]:
        """All parameters in one row."""
        return ravel_pytree(self.theta)[0]

    def gradient(self, row: Float[Array, " P"]) -> Float[Array, " P"]:
        """That of the objective."""
        back = ravel_pytree(self.theta)[1]
        return jax.grad(lambda row: self.problem.objective(back(row)))(row)


class Linearized(AbstractOperator):
    """A Hessian as the derivative of a gradient that is taken already."""

    of: Hessian
    derivative: Callable[[Float[Array, " P"]], Float[Array, " P"]]

    @property
    def size(self) -> int:
        """P."""
        return self.of.size

    @property
    def dtype(self) -> jnp.dtype:
        """That of the parameters."""
        return self.of.dtype

    def __call__(self, v: Float[Array, " P"]) -> Float[Array, " P"]:
        """Its value in a direction."""
        return self.derivative(v)


@compiled
def _linearized(hessian: Hessian) -> Callable[[Float[Array, " P"]], Float[Array, " P"]]:
    return jax.linearize(hessian.gradient, hessian.flat())[1]


@compiled
def _movement(problem: Problem, theta: PyTree[Array]) -> tuple[Array, Array, Array]:
    """The norms of all arrays, of what they have moved by, and of how fast they move."""
    network = problem.network
    assert isinstance(network, Network)
    with jax.default_matmul_precision("highest"):
        velocity = network.by_parameters(jax.grad(problem.objective)(theta))
    now, start = network.scaled(theta), network.scaled(problem.theta)
    away = jax.tree.map(lambda a, b: a - b, now, start)
    norms = lambda tree: jnp.stack([jnp.linalg.norm(a.ravel()) for a in jax.tree.leaves(tree)])  # noqa: E731
    return norms(now), norms(away), norms(velocity)
