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
        """Coefficients of one backward pass, after those of the outputs are known."""
        del samples
        c = residual(jnp.sum(self.batch_outputs(path, x), axis=0))
        pulled = lambda at: jax.vjp(lambda t: self.network(t, x), at)[1](c)[0]  # noqa: E731
        return tuple(coefficients(pulled, path[:-1], nested=self._nested(path)))

    def _nested(self, path: Path) -> bool:
        # Two terms take one derivative, whose evaluation XLA merges with that of the gradient.
        return self.obstacle is not None or len(path) == 2


def taylor_obstacle(network: AbstractNetwork, theta: PyTree[Array], x: Array) -> str | None:
    """What keeps Taylor arithmetic from a network and its gradient; nothing is computed."""
    network, one = network.expandable(), x[:1]

    def both(at: PyTree[Array]) -> tuple[PyTree, PyTree]:
        f = network(at, one)  # by itself too: differentiated, it is made of other operations
        return f, jax.vjp(lambda theta: network(theta, one), at)[1](f)

    return obstacle(both, theta)


def expanded_numbers(written: int, terms: int, *, nested: bool) -> int:
    """How many numbers one input takes, when an evaluation writes `written`."""
    return written * (2 ** min(terms + 1, MOST_NESTED) if nested else terms)
