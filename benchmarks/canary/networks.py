"""Random networks of layers, each as a user would write it and once more in NumPy series."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.random as jr
import numpy as np

from canary import functions
from canary.functions import ACTIVATIONS
from canary.jets import Node, apply, einsum, total
from nthsim.models import FCN, ResNet

#: Parameters and inputs (n, d) to outputs, (n,) or (n, k).
Twin = Callable[[list[Node], Node], Node]
Sizes = tuple[int, int, int | str]


class Convolutional(eqx.Module):
    """Two convolutions over a row of pixels and a readout."""

    first: eqx.nn.Conv1d
    second: eqx.nn.Conv1d
    readout: eqx.nn.Linear
    activation: Callable[..., jax.Array] = eqx.field(static=True)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Evaluate at one input."""
        h = self.activation(self.first(x[None]))
        return self.readout(self.activation(self.second(h)).reshape(-1))


class Normed(eqx.Module):
    """A residual block behind a layer norm."""

    first: eqx.nn.Linear
    norm: eqx.nn.LayerNorm
    second: eqx.nn.Linear
    readout: eqx.nn.Linear
    activation: Callable[..., jax.Array] = eqx.field(static=True)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Evaluate at one input."""
        h = self.first(x)
        return self.readout(h + self.activation(self.second(self.norm(h))))


def plain(kind: str, name: str, sizes: Sizes, rng: np.random.Generator, key: jax.Array):
    """One of nthsim's own, or Equinox's, of a random depth."""
    d, m, k = sizes
    sigma = ACTIVATIONS[name][0]
    depth, biases = int(rng.integers(1, 4)), kind == "mlp" and bool(rng.integers(2))
    if kind == "mlp":
        wanted = {"use_bias": biases, "use_final_bias": biases}
        model = eqx.nn.MLP(d, k, m, depth, sigma, **wanted, key=key)
    elif kind == "fcn":
        model = FCN(d, m, depth, out_size=k, activation=sigma, key=key)
    else:
        model = ResNet(d, m, depth, out_size=k, activation=sigma, c_sigma=1.0, key=key)

    return model, layered(kind, name, sizes, depth, biases=biases)


def layered(kind: str, name: str, sizes: Sizes, depth: int, *, biases: bool = False) -> Twin:
    """Layer upon layer, as `kind` joins them."""
    _, m, k = sizes
    derivatives = ACTIVATIONS[name][1]

    def twin(theta: list[Node], x: Node) -> Node:
        layers = [theta[i : i + 1 + biases] for i in range(0, len(theta), 1 + biases)]
        for i, layer in enumerate(layers[:-1]):
            h = apply(derivatives, _linear(layer, x))
            if kind == "resnet" and i:
                x = x + h * (1 / (depth * np.sqrt(m)))
            else:
                x = h if kind == "mlp" else h * (1 / np.sqrt(m))
        return _out(_linear(layers[-1], x), k)

    return twin


def convolutional(name: str, sizes: Sizes, key: jax.Array):
    """Kernels of three pixels, then two with stride two."""
    d, m, k = sizes
    sigma, derivatives = ACTIVATIONS[name]
    keys, channels, length = jr.split(key, 3), min(m, 5), (d - 2) // 2 + 1
    model = Convolutional(
        eqx.nn.Conv1d(1, channels, 3, padding=1, key=keys[0]),
        eqx.nn.Conv1d(channels, 2, 2, stride=2, key=keys[1]),
        eqx.nn.Linear(2 * length, k, key=keys[2]),
        sigma,
    )
    padded = np.arange(d)[:, None] + np.arange(3)[None]
    strided = 2 * np.arange(length)[:, None] + np.arange(2)[None]

    def twin(theta: list[Node], x: Node) -> Node:
        assert x.jet[0] is not None
        wide = x.tape.constant(np.pad(x.jet[0], ((0, 0), (1, 1)))[:, None])
        h = apply(derivatives, einsum("ncls,ocs->nol", wide[padded], theta[0]) + theta[1])
        h = apply(derivatives, einsum("ncls,ocs->nol", h[strided], theta[2]) + theta[3])
        return _out(_linear(theta[4:], h.reshaped(2 * length)), k)

    return model, twin


def normed(name: str, sizes: Sizes, key: jax.Array):
    """Mean and variance over a hidden layer."""
    d, m, k = sizes
    sigma, derivatives = ACTIVATIONS[name]
    keys = jr.split(key, 3)
    first, second = (eqx.nn.Linear(a, m, key=one) for a, one in ((d, keys[0]), (m, keys[1])))
    model = Normed(first, eqx.nn.LayerNorm(m), second, eqx.nn.Linear(m, k, key=keys[2]), sigma)

    def twin(theta: list[Node], x: Node) -> Node:
        h = _linear(theta[:2], x)
        centred = h + total("nj->n", h).reshaped(1) * (-1 / m)
        spread = total("nj->n", apply(functions.square, centred)) * (1 / m)
        rate = apply(functions.power(-0.5), spread + x.tape.constant(np.array([1e-5])))
        scaled = einsum("nj,j->nj", einsum("nj,n->nj", centred, rate), theta[2]) + theta[3]
        return _out(_linear(theta[6:], h + apply(derivatives, _linear(theta[4:6], scaled))), k)

    return model, twin


def _linear(layer: list[Node], x: Node) -> Node:
    h = einsum("ni,oi->no", x, layer[0])
    return h + layer[1] if len(layer) > 1 else h


def _out(f: Node, k: int | str) -> Node:
    return f[np.array(0)] if k == "scalar" else f
