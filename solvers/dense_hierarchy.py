"""The Neural Tangent Hierarchy truncated at order p, as coupled tensors."""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Bool, Float

from nthsim.solvers.driven_system import AbstractDrivenSystem

#: A truncation of which this part still exceeds its start has blown up; float16 has no number as
#: large as the inverse.
ESCAPE = 1e-8


class DenseHierarchy(AbstractDrivenSystem):
    r"""Order-p truncation of the hierarchy (Huang & Yau 2019, arXiv 1909.08156).

    $\partial_t \tilde K^{(r)}_{a_1 \dots a_r} = -\sum_b \tilde K^{(r+1)}_{a_1 \dots a_r b}\,
    \tilde c_b$ for $r = 1, \dots, p-1$ with $\tilde K^{(1)} = \tilde f$ and $\tilde K^{(p)}$ frozen
    at its start; the residual $\tilde c = c(\tilde f)$ is the truncation's own.

    `kernels` holds $f, K^{(2)}, \dots, K^{(p)}$ at $t = 0$ with one axis per slot, of length N
    (samples times outputs). The first slot is longer where there are test points: training points
    come first, test points follow, are carried along and never enter the residual. The state is
    all of these but the last. `samples` is n, `quadratic` says whether the loss is, and `rough`
    what keeps the field from being smooth.

    What is added to the loss stands, as the last of the others, in every slot but the first: one
    more output, whose residual is constant. `constant` holds such residuals, if there are any.
    """

    kernels: tuple[Array, ...]
    residual: Callable[[Array], Array]
    risk: Callable[[Array], Float[Array, ""]]
    samples: int = eqx.field(static=True)
    quadratic: bool = eqx.field(static=True)
    rough: str = eqx.field(static=True, default="")
    constant: Float[Array, " further"] | None = None

    def initial(self) -> tuple[Array, ...]:
        """All levels below the frozen one."""
        return self.kernels[:-1]

    def field(self, state: tuple[Array, ...]) -> tuple[Array, ...]:
        """Each level moves by the level above it, contracted with the residual."""
        residual = self.residual(self.predictions(state)).reshape(-1)
        constant = residual[:0] if self.constant is None else self.constant
        return self._moved(state, -jnp.concatenate([residual, constant]))

    def predictions(self, state: tuple[Array, ...]) -> Float[Array, "n k"]:
        r"""$\tilde f$ on the training samples."""
        return self._train(state[0]).reshape(self.samples, -1)

    def pull(self, state: tuple[Array, ...], cotangent: Float[Array, " N"]) -> tuple[Array, ...]:
        """Each level moves by the level above it."""
        return self._moved(state, jnp.pad(cotangent, (0, self._further)))

    def push(self, state: tuple[Array, ...], direction: tuple[Array, ...]) -> Float[Array, " N"]:
        """The first level's part among the training points."""
        del state
        return self._train(direction[0])

    def tangent_kernel(self, state: tuple[Array, ...]) -> Float[Array, "N N"]:
        r"""$\tilde K^{(2)}$ among the training points."""
        return self._train(self.kernel_shown(state))

    @property
    def linear(self) -> bool:
        """At order 2, where the kernel is frozen."""
        return self.quadratic and len(self.kernels) == 2

    def roughness(self) -> str:
        """As told."""
        return self.rough

    def sizes(self, state: tuple[Array, ...]) -> Float[Array, " levels"]:
        """The root mean square of each level."""
        return jnp.stack([optx.rms_norm(level) for level in state])

    def scales(self) -> Float[Array, " levels"]:
        """The sizes at the start."""
        return self.sizes(self.initial())

    def outputs(self, state: tuple[Array, ...]) -> dict[str, Array]:
        """`f`; test points follow the training points."""
        return {"f": state[0]}

    def kernel_shown(self, state: tuple[Array, ...]) -> Float[Array, "N_first N"]:
        r"""$\tilde K^{(2)}$ with test points, which is frozen at order 2."""
        return (*state, self.kernels[-1])[1][:, : self._outputs]

    def escaped(self, state: tuple[Array, ...]) -> Bool[Array, ""]:
        r"""Whether $\tilde f$ has grown beyond all reason, or is no number any more."""
        now, start = (jnp.max(jnp.abs(self._train(f))) for f in (state[0], self.kernels[0]))
        return ~(ESCAPE * now < 1 + start)

    def _moved(
        self, state: tuple[Array, ...], cotangent: Float[Array, " N_and_further"]
    ) -> tuple[Array, ...]:
        return tuple(above @ cotangent for above in (*state[1:], self.kernels[-1]))

    @property
    def _further(self) -> int:
        return 0 if self.constant is None else len(self.constant)

    @property
    def _outputs(self) -> int:
        return self.kernels[-1].shape[-1] - self._further

    def _train(self, level: Float[Array, "N_first ..."]) -> Float[Array, "N ..."]:
        return level[: self._outputs]
