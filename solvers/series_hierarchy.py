"""The Neural Tangent Hierarchy truncated at order p, as a Taylor series of parameters."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Bool, Float, PyTree

from nthsim.solvers.driven_system import AbstractDrivenSystem

ThetaPath = tuple[PyTree[Array], ...]

#: A truncation whose parameters moved so far that this part exceeds their length has blown up.
ESCAPE = 1e-8


class SeriesHierarchy(AbstractDrivenSystem):
    r"""Order-p truncation of the hierarchy without its tensors.

    The truncation is the Chen-Fliess expansion of f along gradient flow, cut at p terms. With the
    flow's field scaled by a formal $\epsilon$ and $\theta(\epsilon) = \theta_0 + \sum_{j \ge 1}
    \epsilon^j \theta_j$, it is

    $$\tilde f = \sum_{j=0}^{p-1} [\epsilon^j] f(\theta(\epsilon)), \qquad
    \theta_j' = -[\epsilon^{j-1}] \sum_b \tilde c_b \nabla f_b(\theta(\epsilon)), \quad
    \theta_j(0) = 0,$$

    with the truncation's own residual $\tilde c = c(\tilde f)$. The state is
    $\theta_1, \dots, \theta_{p-1}$; what is recorded elsewhere than at the training inputs costs
    nothing until it is shown. Errors of each $\theta_j$ are held against its own Euclidean norm.

    `outputs_along(path, x)` is $[\epsilon^j] f$ on a batch, shape (p, N) for a path of p terms;
    `gradients_along(path, x, residual)` is $[\epsilon^j] \sum_b \tilde c_b \nabla f_b$ for
    j = 0..p-2, where the residual belongs to the sum of the outputs along the whole path.
    `kernel(path)` is $\tilde K^{(2)}$ on the training inputs for a path of p-1 terms, for
    integrators that ask for it; `quadratic` says whether the loss is, and `rough` what keeps the
    field from being smooth. `penalties_along(path)` is $[\epsilon^j] \nabla R$ of what is added to
    the loss, if anything is.
    """

    outputs_along: Callable[[ThetaPath, Array], Float[Array, "p N"]]
    gradients_along: Callable[[ThetaPath, Array, Callable], ThetaPath]
    residual: Callable[..., Array]
    risk: Callable[[Array], Float[Array, ""]]
    kernel: Callable[[ThetaPath], Float[Array, "N N"]]
    theta: PyTree[Array]
    x: Array
    x_shown: Array
    order: int = eqx.field(static=True)
    quadratic: bool = eqx.field(static=True)
    rough: str = eqx.field(static=True, default="")
    penalties_along: Callable[[ThetaPath], ThetaPath] | None = None

    def initial(self) -> ThetaPath:
        """No term has moved."""
        return tuple(jax.tree.map(jnp.zeros_like, self.theta) for _ in range(self.order - 1))

    def field(self, state: ThetaPath) -> ThetaPath:
        """Minus the gradient's Taylor coefficients, one for each term."""
        path = self.path(state)
        gradients = self.gradients_along(path, self.x, self.residual)
        if self.penalties_along is not None:
            gradients = jax.tree.map(jnp.add, gradients, self.penalties_along(path[:-1]))
        return jax.tree.map(jnp.negative, gradients)

    def predictions(self, state: ThetaPath) -> Float[Array, "n k"]:
        r"""$\tilde f$, the sum of the outputs along the path."""
        f = jnp.sum(self.outputs_along(self.path(state), self.x), axis=0)
        return f.reshape(len(self.x), -1)

    def pull(self, state: ThetaPath, cotangent: Float[Array, " N"]) -> ThetaPath:
        """The gradient's Taylor coefficients for a residual that is given."""
        rows = cotangent.reshape(len(self.x), -1)
        given = lambda f, samples: rows[samples].reshape(f.shape)  # noqa: E731
        return self.gradients_along(self.path(state), self.x, given)

    def push(self, state: ThetaPath, direction: ThetaPath) -> Float[Array, " N"]:
        """The derivative of the sum of the outputs along the path."""
        return jax.jvp(self.predictions, (state,), (direction,))[1].reshape(-1)

    def tangent_kernel(self, state: ThetaPath) -> Float[Array, "N N"]:
        r"""$\tilde K^{(2)}$ of the path without its last term."""
        return self.kernel(self.path(state)[:-1])

    @property
    def linear(self) -> bool:
        """At order 2, where the kernel is frozen."""
        return self.quadratic and self.order == 2

    def roughness(self) -> str:
        """As told."""
        return self.rough

    def sizes(self, state: ThetaPath) -> Float[Array, " terms"]:
        r"""The Euclidean norm of each $\theta_j$ over all parameters."""
        return jnp.stack([optx.two_norm(theta) for theta in state])

    def scales(self) -> Float[Array, " terms"]:
        """The Euclidean norm of the parameters, for each term."""
        return jnp.full((self.order - 1,), optx.two_norm(self.theta))

    def outputs(self, state: ThetaPath) -> dict[str, Array]:
        r"""`f` at the inputs shown, and the contributions $[\epsilon^j] f$ that make it up."""
        contributions = self.outputs_along(self.path(state), self.x_shown)
        return {"f": jnp.sum(contributions, axis=0), "contributions": contributions}

    def escaped(self, state: ThetaPath) -> Bool[Array, ""]:
        """Whether a term has grown beyond all reason, or is no number any more."""
        return ~(ESCAPE * jnp.max(self.sizes(state)) < 1 + optx.two_norm(self.theta))

    def path(self, state: ThetaPath) -> ThetaPath:
        r"""$\theta_0, \theta_1, \dots, \theta_{p-1}$."""
        return (self.theta, *state)
