"""Exact gradient flow, in the space of all parameters."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Bool, Float, PyTree

from nthsim.solvers.system import AbstractSystem


class ParameterFlow(AbstractSystem):
    r"""Gradient flow $\theta' = -\sum_b c_b\, \nabla f_b(\theta)$ with residual $c = c(f(\theta))$.

    The state is the displacement $u = \theta - \theta_0$. A wide network learns by moving each
    parameter very little, so errors are held against $\|u\|_2$, not against $\theta$:
    a tolerance relative to $\theta$ would be met by not moving at all.

    `network(theta, x)` evaluates a batch; `residual(f)` is $\partial \ell / \partial f$ divided by
    the number of samples; `x` are training inputs, `x_shown` those at which outputs are recorded.
    """

    network: Callable[[PyTree[Array], Array], Array]
    residual: Callable[[Array], Array]
    theta: PyTree[Array]
    x: Array
    x_shown: Array

    def initial(self) -> PyTree[Array]:
        """No displacement."""
        return jax.tree.map(jnp.zeros_like, self.theta)

    def field(self, state: PyTree[Array]) -> PyTree[Array]:
        """Minus the gradient of the mean loss, by one forward and one backward pass."""
        f, pullback = jax.vjp(lambda theta: self.network(theta, self.x), self.moved(state))
        (gradient,) = pullback(self.residual(f))
        return jax.tree.map(jnp.negative, gradient)

    def sizes(self, state: PyTree[Array]) -> Float[Array, " 1"]:
        r"""The Euclidean norm over all parameters, $\|u\|_2$."""
        return optx.two_norm(state)[None]

    def scales(self) -> Float[Array, " 1"]:
        """Nothing: a displacement of any size is no blow-up."""
        return jnp.zeros(1)

    def outputs(self, state: PyTree[Array]) -> dict[str, Array]:
        """`f` at the inputs shown."""
        return {"f": self.network(self.moved(state), self.x_shown)}

    def escaped(self, state: PyTree[Array]) -> Bool[Array, ""]:
        """Never: the loss falls along its own gradient flow."""
        del state
        return jnp.array(False)

    def moved(self, state: PyTree[Array]) -> PyTree[Array]:
        """The parameters at this displacement."""
        return jax.tree.map(jnp.add, self.theta, state)
