"""Any network along a path of parameters, by Taylor arithmetic all through it."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from nthsim.expansions import AbstractExpansion, Path
from nthsim.network import AbstractNetwork
from nthsim.series import coefficients, obstacle

#: Beyond this many nested derivatives memory is as good as infinite.
MOST_NESTED = 100


class TaylorExpansion(AbstractExpansion):
    """Outputs and gradients by the Taylor coefficients of the whole evaluation.

    `obstacle` says what kept Taylor arithmetic away, in which case derivatives are nested, else
    None.
    """

    network: AbstractNetwork
    chunk: int = eqx.field(static=True)
    obstacle: str | None = eqx.field(static=True)

    def batch_outputs(self, path: Path, x: Float[Array, "s ..."]) -> Float[Array, "p s ..."]:
        """Coefficients of the network."""
        network = lambda at: self.network(at, x)  # noqa: E731
        return jnp.stack(coefficients(network, path, nested=self._nested(path)))

    def batch_gradients(
        self,
        path: Path,
        x: Float[Array, "s ..."],
        samples: Int[Array, " s"],
        residual: Callable[[Array], Array],
    ) -> Path:
        r"""Coefficients of one backward pass, after those of the outputs are known.

        Taylor arithmetic is transposed: $\partial f_{p-1} / \partial \theta_{p-1-j}$ is coefficient
        j of the derivative of f, as `series.pulled` explains.
        """
        del samples
        if self._nested(path):
            c = residual(jnp.sum(self.batch_outputs(path, x), axis=0))
            back = lambda at: jax.vjp(lambda t: self.network(t, x), at)[1](c)[0]  # noqa: E731
            return tuple(coefficients(back, path[:-1], nested=True))
        along = lambda *later: self.batch_outputs((path[0], *later), x)  # noqa: E731
        parts, pull = jax.vjp(along, *path[1:])
        c = residual(jnp.sum(parts, axis=0))
        return tuple(reversed(pull(jnp.zeros_like(parts).at[-1].set(c))))

    def _nested(self, path: Path) -> bool:
        # Two terms take one derivative, whose evaluation XLA merges with that of the gradient.
        return self.obstacle is not None or len(path) == 2


def taylor_obstacle(network: AbstractNetwork, theta: PyTree[Array], x: Array) -> str | None:
    """What keeps Taylor arithmetic from a network; nothing is computed."""
    network, one = network.expandable(theta, x), x[:1]
    return obstacle(lambda at: network(at, one), theta)


def expanded_numbers(written: int, terms: int, *, nested: bool) -> int:
    """How many numbers one input takes, when an evaluation writes `written`."""
    return written * (2 ** min(terms + 1, MOST_NESTED) if nested else terms)
