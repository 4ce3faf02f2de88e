"""Layer inputs and back-propagated signals of any module built from linear and conv layers."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from nthsim.network.layers import (
    Layer,
    layers_of,
    matrix_shape,
    rows,
    vectors,
    way_back,
)
from nthsim.network.network import AbstractNetwork, Network, precision
from nthsim.network.tapes import Call, recorded, rest_of


class Signals(eqx.Module):
    r"""What K^(2) is made of, for a batch of inputs.

    For each layer, the vectors `h` (n, T, in) at the T positions of all its calls, times what its
    weight is scaled by, and the signals
    `delta` (n, k, T, out), the derivatives of the k outputs by what the layer made of them; for all
    other parameters, biases too, the gradients `rest` (n, k, ...).
    """

    h: tuple[Float[Array, "..."], ...]
    delta: tuple[Float[Array, "..."], ...]
    rest: PyTree[Array]


class Motion(eqx.Module):
    """What makes signals move, for a batch of inputs.

    `additions` (n, ...) to what each call returns, `received` (n, k, ...) besides what flows back
    into its input, and the parameters outside of layers, the same for all inputs.
    """

    additions: tuple[Float[Array, "..."], ...]
    received: tuple[Float[Array, "..."], ...]
    rest: PyTree[Array]


class TappedNetwork(eqx.Module):
    """A network that shows its signals. `calls` are those of its layers, in their order.

    `positions` counts the vectors that each layer's matrix is applied to, in all its calls, and
    `formed` tells whether its weight gradients are smaller than products over pairs of positions.
    """

    network: Network
    outputs: int = eqx.field(static=True)
    calls: tuple[Call, ...] = eqx.field(static=True)
    positions: tuple[int, ...] = eqx.field(static=True)
    formed: tuple[bool, ...] = eqx.field(static=True)

    def at_rest(self, theta: PyTree[Array], x: Array) -> Motion:
        """Nothing moves."""
        n, k, dtype = len(x), self.outputs, precision(theta)
        additions = tuple(jnp.zeros((n, *call.returned), dtype) for call in self.calls)
        received = tuple(jnp.zeros((n, k, *call.taken), dtype) for call in self.calls)
        return Motion(additions, received, rest_of(theta))

    def signals(self, theta: PyTree[Array], motion: Motion, x: Array) -> Signals:
        """The signals on a batch of inputs."""

        def one(additions: tuple[Array, ...], received: tuple[Array, ...], x: Array) -> Signals:
            return self._signals(theta, Motion(additions, received, motion.rest), x)

        return jax.vmap(one)(motion.additions, motion.received, x)

    def pushed(
        self, theta: PyTree[Array], D: tuple[Array, ...], H: tuple[Array, ...], signals: Signals
    ) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        r"""What each call returns more, and its input receives more, once the weights move.

        Each moves by $D^\top H$ of rank R, given as D (R, out) and H (R, in), that acts as
        $D^\top (H h)$ forward and as $H^\top (D \delta)$ backward and is seldom formed.
        """
        layers, used = layers_of(theta), [0] * len(self.positions)
        scales = self.network.weight_scales(theta)
        additions, received = [], []
        for i, taken, returned in self.calls:
            T = Call(i, taken, returned).positions
            h = signals.h[i][:, used[i] : used[i] + T]
            delta = signals.delta[i][:, :, used[i] : used[i] + T]
            used[i] += T
            if self.formed[i]:
                W = D[i].T @ H[i]
                z, g = h @ W.T, delta @ W
            else:
                z, g = (h @ H[i].T) @ D[i], (delta @ D[i].T) @ H[i]
            g = _times(scales[i], g)
            additions.append(z.mT.reshape(len(h), *returned))
            back = lambda g, layer=layers[i], taken=taken: way_back(layer, taken, g)  # noqa: E731
            received.append(jax.vmap(jax.vmap(back))(g))
        return tuple(additions), tuple(received)

    def numbers(self, theta: PyTree[Array]) -> int:
        """About how many numbers the signals of one sample are, and gradients that are formed."""
        total = self.outputs * sum(a.size for a in jax.tree.leaves(rest_of(theta)))
        for layer, T, formed in zip(layers_of(theta), self.positions, self.formed, strict=True):
            out, inner = matrix_shape(layer)
            total += T * (inner + self.outputs * out) + self.outputs * out * inner * formed
        return total

    @property
    def pairs(self) -> int:
        """The most pairs of positions that products are held for, for a pair of samples."""
        factored = [T for T, formed in zip(self.positions, self.formed, strict=True) if not formed]
        return max(factored, default=1) ** 2

    def _signals(self, theta: PyTree[Array], motion: Motion, x: Array) -> Signals:
        """Those of one input."""

        def evaluate(additions: tuple[Array, ...], rest: PyTree[Array]) -> tuple:
            out, inputs = recorded(self.network, theta, rest, x, additions)
            return out.reshape(-1), tuple(inputs)

        (out, inputs), pull = jax.vjp(evaluate, motion.additions, motion.rest)
        units = jnp.eye(self.outputs, dtype=out.dtype)
        derivatives, rest = jax.vmap(lambda unit, g: pull((unit, g)))(units, motion.received)
        layers, scales = self.network.layers(theta), self.network.weight_scales(theta)
        h: list[list[Array]] = [[] for _ in layers]
        delta: list[list[Array]] = [[] for _ in layers]
        for call, taken, derivative in zip(self.calls, inputs, derivatives, strict=True):
            h[call.layer].append(_times(scales[call.layer], vectors(layers[call.layer], taken)))
            delta[call.layer].append(jax.vmap(rows)(derivative))
        return Signals(
            tuple(map(jnp.concatenate, h)),
            tuple(jnp.concatenate(parts, axis=1) for parts in delta),
            rest,
        )


def tapped(
    network: AbstractNetwork, theta: PyTree[Array], calls: tuple[Call, ...], outputs: int
) -> TappedNetwork:
    """Take a network apart at its calls."""
    layers = layers_of(theta)
    assert isinstance(network, Network)  # no other has calls
    positions = [sum(c.positions for c in calls if c.layer == i) for i in range(len(layers))]
    formed = map(_smaller_formed, layers, positions)
    return TappedNetwork(network, outputs, calls, tuple(positions), tuple(formed))


def _times(scale: float, array: Array) -> Array:
    """The product, which costs nothing where it changes nothing."""
    return array if scale == 1.0 else scale * array


def _smaller_formed(layer: Layer, T: int) -> bool:
    out, inner = matrix_shape(layer)
    return T**2 * (out + inner) > 2 * out * inner
