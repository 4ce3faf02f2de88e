"""A record of the calls of a model's layers, made while it is evaluated."""

from itertools import count
from math import prod
from typing import Any, NamedTuple

import equinox as eqx
import jax
from jaxtyping import Array, PyTree

from nthsim.layers import Layer, applied, is_layer, layers_of
from nthsim.network import Network


class Call(NamedTuple):
    """Which layer is called, and the shapes of what it takes and returns."""

    layer: int
    taken: tuple[int, ...]
    returned: tuple[int, ...]

    @property
    def positions(self) -> int:
        """How many vectors the layer's matrix is applied to."""
        return prod(self.returned[1:])


class ChangedWeight(Exception):
    """A layer is called with another weight than the model's."""

    def __init__(self, layer: int) -> None:
        super().__init__(layer)
        self.layer = layer


class Tape:
    """Visits the calls of the layers in one evaluation: records inputs, adds to outputs."""

    def __init__(self, weights: list[Array], additions: tuple[Array, ...] | None = None) -> None:
        """Expect layers with these weights, and add `additions`, one per call."""
        self.weights, self.additions = weights, additions
        self.calls: list[Call] = []
        self.inputs: list[Array] = []

    def visit(self, index: int, layer: Layer, x: Array) -> Array:
        """Evaluate one call."""
        if layer.weight is not self.weights[index]:
            raise ChangedWeight(index)
        z = applied(layer, x)
        if self.additions is not None:
            z = z + self.additions[len(self.calls)]
        self.calls.append(Call(index, x.shape, z.shape))
        self.inputs.append(x)
        return z


class Reached(Exception):
    """An evaluation has come to the first call whose output is not given."""


class Playback:
    """Visits the calls of the layers in one evaluation: returns what is given, records inputs."""

    def __init__(self, outputs: tuple[Array, ...]) -> None:
        """Return these, one per call, and stop at the call after them."""
        self.outputs = outputs
        self.inputs: list[Array] = []

    def visit(self, index: int, layer: Layer, x: Array) -> Array:
        """Answer one call, without its layer."""
        del index, layer
        self.inputs.append(x)
        if len(self.inputs) > len(self.outputs):
            raise Reached
        return self.outputs[len(self.inputs) - 1]


class Tapped(eqx.Module):
    """A layer that tells a tape of its calls."""

    layer: Layer
    index: int = eqx.field(static=True)
    tape: Tape | Playback = eqx.field(static=True)

    def __call__(self, x: Array, *, key: Any = None) -> Array:
        """Evaluate by the tape."""
        del key
        return self.tape.visit(self.index, self.layer, x)


def recorded(
    network: Network,
    theta: PyTree[Array],
    rest: PyTree[Array],
    x: Array,
    additions: tuple[Array, ...] | None = None,
) -> tuple[Any, Tape]:
    """The output for one input and its calls, with `rest` for what is no layer's weight."""
    tape = Tape([layer.weight for layer in layers_of(theta)], additions)
    return _tapped(network, theta, rest, tape)(x), tape


def played_back(
    network: Network,
    theta: PyTree[Array],
    elsewhere: PyTree[Array],
    x: Array,
    outputs: tuple[Array, ...],
) -> tuple[list[Array], Any]:
    """What the calls of the layers take and the network returns, once the calls return `outputs`.

    Parameters outside of layers are those `elsewhere`. With fewer outputs than calls, the
    evaluation ends at the first call without: its input is the last of those returned, and the
    network's own output None.
    """
    tape = Playback(outputs)
    try:
        out = _tapped(network, theta, elsewhere, tape)(x)
    except Reached:
        out = None
    return tape.inputs, out


def _tapped(
    network: Network, theta: PyTree[Array], rest: PyTree[Array], tape: Tape | Playback
) -> PyTree:
    index = count()
    tapped = lambda node: Tapped(node, next(index), tape) if is_layer(node) else node  # noqa: E731
    model = network.model(rest, theta)
    return jax.tree.map(tapped, model, is_leaf=is_layer)


def rest_of(theta: PyTree[Array]) -> PyTree[Array]:
    """The parameters that are no layer's weight: biases too."""

    def without_weight(node: Any) -> Any:
        return eqx.tree_at(lambda at: at.weight, node, None) if is_layer(node) else node

    return jax.tree.map(without_weight, theta, is_leaf=is_layer)
