"""A network's outputs and gradients along a path of parameters, all through the network."""

import abc
from collections.abc import Callable
from math import ceil

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree, Real

from nthsim.network.coefficients import coefficients, obstacle
from nthsim.network.network import AbstractNetwork

ThetaPath = tuple[PyTree[Array], ...]


class AbstractExpansion(eqx.Module):
    r"""Outputs and gradients along $\theta(\epsilon) = \sum_j \epsilon^j \theta_j$.

    Built for one $\theta_0$ and one set of training inputs, of which it may keep what does not
    change; outputs are those of any inputs. At most `chunk` inputs are evaluated together, so that
    memory does not grow with their number.
    """

    chunk: eqx.AbstractVar[int]

    @abc.abstractmethod
    def batch_outputs(self, path: ThetaPath, x: Real[Array, "s ..."]) -> Float[Array, "p s ..."]:
        r"""$[\epsilon^j] f$ for j = 0..p-1 on a batch."""

    @abc.abstractmethod
    def batch_gradients(
        self,
        path: ThetaPath,
        x: Real[Array, "s ..."],
        samples: Int[Array, " s"],
        residual: Callable[[Array], Array],
    ) -> ThetaPath:
        r"""$[\epsilon^j] \sum_b c_b \nabla f_b$ for j = 0..p-2, over a batch of training inputs.

        They stand side by side at the indices `samples`. Their residual c is that of the summed
        outputs, of shape (s, ...).
        """

    def outputs(self, path: ThetaPath, x: Real[Array, "n ..."]) -> Float[Array, "p N"]:
        r"""$[\epsilon^j] f$ for j = 0..p-1, outputs of a sample side by side."""
        each = lambda one: self.batch_outputs(path, one[None])[:, 0]  # noqa: E731
        found = jax.lax.map(each, x, batch_size=min(self.chunk, len(x)))
        return jnp.moveaxis(found, 1, 0).reshape(len(path), -1)

    def gradients(
        self, path: ThetaPath, x: Real[Array, "n ..."], residual: Callable[..., Array]
    ) -> ThetaPath:
        r"""$[\epsilon^j] \sum_b c_b \nabla f_b$ for j = 0..p-2, with c that of the summed outputs.

        x are the training inputs, all of them. A sample's residual is known from its own outputs,
        so every sample is visited once.
        """
        n = len(x)
        calls = ceil(n / self.chunk)
        size = ceil(n / calls)

        def part(call: Array) -> ThetaPath:
            start = jnp.minimum(call * size, n - size)
            samples = start + jnp.arange(size)
            fresh = samples >= call * size  # the last chunk is moved back to fit

            def of_fresh(f: Array) -> Array:
                c = residual(f, samples)
                return jnp.where(fresh.reshape(-1, *(1,) * (f.ndim - 1)), c, jnp.zeros_like(c))

            batch = jax.lax.dynamic_slice_in_dim(x, start, size)
            return self.batch_gradients(path, batch, samples, of_fresh)

        def add(total: ThetaPath, call: Array) -> tuple[ThetaPath, None]:
            return jax.tree.map(jnp.add, total, part(call)), None

        if calls == 1:
            return part(jnp.array(0))
        none = jax.tree.map(jnp.zeros_like, path[:-1])
        return jax.lax.scan(add, none, jnp.arange(calls))[0]


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

    def batch_outputs(self, path: ThetaPath, x: Real[Array, "s ..."]) -> Float[Array, "p s ..."]:
        """Coefficients of the network."""
        network = lambda at: self.network(at, x)  # noqa: E731
        return jnp.stack(coefficients(network, path, nested=self._nested(path)))

    def batch_gradients(
        self,
        path: ThetaPath,
        x: Real[Array, "s ..."],
        samples: Int[Array, " s"],
        residual: Callable[[Array], Array],
    ) -> ThetaPath:
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

    def _nested(self, path: ThetaPath) -> bool:
        # Two terms take one derivative, whose evaluation XLA merges with that of the gradient.
        return self.obstacle is not None or len(path) == 2


def taylor_obstacle(network: AbstractNetwork, theta: PyTree[Array], x: Array) -> str | None:
    """What keeps Taylor arithmetic from a network, on batches too; nothing is computed."""
    network, two = network.expandable(theta, x), jnp.repeat(x[:1], 2, axis=0)
    return obstacle(lambda at: network(at, two), theta)


def expanded_numbers(written: int, terms: int, *, nested: bool) -> int:
    """How many numbers one input takes, when an evaluation writes `written`."""
    return written * (2 ** min(terms + 1, MOST_NESTED) if nested else terms)
