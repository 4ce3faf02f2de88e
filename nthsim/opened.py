"""A network cut open at its layers: what is left once the outputs of their calls are given."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
from jaxtyping import Array, Float, PyTree

from nthsim.layers import is_layer
from nthsim.network import Network
from nthsim.tapes import Call, played_back

#: One array for each of several calls, for a batch of inputs.
Batches = tuple[Float[Array, "s ..."], ...]


class Point(NamedTuple):
    """What the first calls return, and the parameters outside of layers."""

    z: Batches
    elsewhere: PyTree[Array]


class OpenedNetwork(eqx.Module):
    r"""A network as a function of what the calls of its layers return.

    Call c takes $h_c = g_c(z_1, \dots, z_{c-1})$ and returns $z_c = W h_c + b$; the network returns
    $f = g(z_1, \dots, z_C)$. The functions g hold no layer, so that they cost next to nothing.

    All methods act on a batch x of inputs, with one row of outputs each.
    `theta` are the parameters at rest; its layers keep their places, and are not evaluated.
    """

    network: Network
    theta: PyTree[Array]
    calls: tuple[Call, ...] = eqx.field(static=True)

    def taken(self, at: Point, x: Float[Array, "s ..."]) -> Float[Array, "s ..."]:
        """$h_c$ for the call after those that returned z, or f after all of them."""
        inputs, f = self._played(at.z, at.elsewhere, x)
        return inputs[-1] if f is None else f

    def later(
        self, i: int, z: Float[Array, "s ..."], others: Point, x: Float[Array, "s ..."]
    ) -> tuple[Batches, Array]:
        """What the calls after call i take once that returns z, and f."""
        inputs, f = self._played((*others.z[:i], z, *others.z[i + 1 :]), others.elsewhere, x)
        return inputs[i + 1 :], f

    def elsewhere(
        self, elsewhere: PyTree[Array], z: Batches, x: Float[Array, "s ..."]
    ) -> tuple[Batches, Array]:
        """What all calls take, and f, by the parameters outside of layers."""
        return self._played(z, elsewhere, x)

    def _played(self, z: Batches, elsewhere: PyTree[Array], x: Array) -> tuple[Batches, Any]:
        """What is taken by all calls up to the first without an output, and f if there is none."""

        def one(z: tuple[Array, ...], x: Array) -> tuple[tuple[Array, ...], Any]:
            inputs, out = played_back(self.network, self.theta, elsewhere, x, z)
            return tuple(inputs), None if out is None else out.reshape(-1)

        return jax.vmap(one)(z, x)


def elsewhere_of(theta: PyTree[Array]) -> PyTree[Array]:
    """The parameters outside of layers."""

    def emptied(node: Any) -> Any:
        return jax.tree.map(lambda _: None, node) if is_layer(node) else node

    return jax.tree.map(emptied, theta, is_leaf=is_layer)
