"""Stand-ins for a model's layers, which hand their calls to a tape while it is evaluated."""

import abc
import dataclasses
import functools
from math import prod
from typing import Any, NamedTuple

import equinox as eqx
import jax
from jaxtyping import Array, Float, PyTree, Real

from nthsim.network.layers import Layer, applied, is_layer, layer_paths
from nthsim.network.network import Network


class Call(NamedTuple):
    """Which layer is called, and the shapes of what it takes and returns."""

    layer: int
    taken: tuple[int, ...]
    returned: tuple[int, ...]

    @property
    def positions(self) -> int:
        """How many vectors the layer's matrix is applied to."""
        return prod(self.returned[1:])


class ChangedLayer(Exception):
    """A layer is called with another weight or bias than the model's."""

    def __init__(self, layer: int, part: str) -> None:
        super().__init__(layer, part)
        self.layer, self.part = layer, part


class AbstractTape(abc.ABC):
    """Answers the calls of the layers in one evaluation."""

    @abc.abstractmethod
    def visit(self, index: int, layer: Layer, x: Array) -> Array:
        """Answer one call."""


class Listener(AbstractTape):
    """Has each call answered by the layer itself, and keeps which they are and what they take.

    The model holds the arrays `shown` in the place of those of the `layers`: what it does with
    them besides calling the layers can be told from the calls.
    """

    def __init__(self, layers: list[Layer], shown: list[Layer]) -> None:
        """Expect layers that hold what is shown."""
        self.layers, self.shown = layers, shown
        self.calls: tuple[Call, ...] = ()
        self.inputs: list[Array] = []

    def visit(self, index: int, layer: Layer, x: Array) -> Array:
        """Evaluate one call as the layer does."""
        for part in ("weight", "bias"):
            if getattr(layer, part) is not getattr(self.shown[index], part):
                raise ChangedLayer(index, part)
        z = self.layers[index](x)
        self.calls = (*self.calls, Call(index, x.shape, z.shape))
        self.inputs.append(x)
        return z


class Tape(AbstractTape):
    """Adds to the outputs, one of `additions` per call, and records inputs."""

    def __init__(self, layers: list[Layer], additions: tuple[Array, ...]) -> None:
        """Expect as many calls of the layers as there are additions."""
        self.layers, self.additions = layers, additions
        self.inputs: list[Array] = []

    def visit(self, index: int, layer: Layer, x: Array) -> Array:
        """Evaluate one call."""
        del layer
        z = applied(self.layers[index], x) + self.additions[len(self.inputs)]
        self.inputs.append(x)
        return z


class Reached(BaseException):
    """An evaluation has come to the first call whose output is not given.

    No error: a model that goes on after those does not go on after this.
    """


class Playback(AbstractTape):
    """Returns what is given, and records inputs."""

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


@functools.cache
def _stand_ins(kind: type) -> type:
    """The class of the stand-ins for layers of one class, of which they are too.

    A model that asks a stand-in for what it is or has is told what the layer would tell.
    """

    class StandIn(kind):
        tape: AbstractTape = eqx.field(static=True)
        index: int = eqx.field(static=True)

        def __init__(self, layer: Layer, index: int, tape: AbstractTape) -> None:
            for field in dataclasses.fields(layer):
                setattr(self, field.name, getattr(layer, field.name))
            self.tape, self.index = tape, index

        def __call__(self, x: Array, *, key: Any = None) -> Array:
            del key
            return self.tape.visit(self.index, self, x)

    StandIn.__name__, StandIn.__qualname__ = kind.__name__, kind.__qualname__
    return StandIn


def taped(
    network: Network, theta: PyTree[Array], tape: AbstractTape, *, alone: int | None = None
) -> PyTree:
    """The model with stand-ins for all its layers, or for one `alone`."""
    paths = layer_paths(theta)
    index = {path: i for i, path in enumerate(paths) if alone in (None, i)}

    def standing_in(path: tuple[Any, ...], node: Any) -> Any:
        if path not in index:
            return node
        return _stand_ins(type(node))(node, index[path], tape)

    model = network.model(theta)
    return jax.tree.map_with_path(standing_in, model, is_leaf=is_layer)


def recorded(
    network: Network,
    theta: PyTree[Array],
    rest: PyTree[Array],
    x: Array,
    additions: tuple[Array, ...],
) -> tuple[Any, list[Array]]:
    """The output for one input and what the calls take, once they return so much more.

    With `rest` for what is no layer's weight.
    """
    whole = eqx.combine(rest, theta)
    tape = Tape(network.layers(whole), additions)
    out = taped(network, whole, tape)(x)
    return out, tape.inputs


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
    network's own output None. What a model does that goes on all the same does not count.
    """
    tape = Playback(outputs)
    try:
        out = taped(network, eqx.combine(elsewhere, theta), tape)(x)
    except Reached:
        out = None
    except Exception:  # of what a model does that has caught the one before
        if len(tape.inputs) <= len(outputs):
            raise
        out = None
    if len(tape.inputs) > len(outputs):
        return tape.inputs[: len(outputs) + 1], None
    return tape.inputs, out


def rest_of(theta: PyTree[Array]) -> PyTree[Array]:
    """The parameters that are no layer's weight: biases too."""

    def without_weight(node: Any) -> Any:
        return eqx.tree_at(lambda at: at.weight, node, None) if is_layer(node) else node

    return jax.tree.map(without_weight, theta, is_leaf=is_layer)


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

    def taken(self, at: Point, x: Real[Array, "s ..."]) -> Float[Array, "s ..."]:
        """$h_c$ for the call after those that returned z, or f after all of them."""
        inputs, f = self._played(at.z, at.elsewhere, x)
        return inputs[-1] if f is None else f

    def later(
        self, i: int, z: Float[Array, "s ..."], others: Point, x: Real[Array, "s ..."]
    ) -> tuple[Batches, Array]:
        """What the calls after call i take once that returns z, and f."""
        inputs, f = self._played((*others.z[:i], z, *others.z[i + 1 :]), others.elsewhere, x)
        return inputs[i + 1 :], f

    def elsewhere(
        self, elsewhere: PyTree[Array], z: Batches, x: Real[Array, "s ..."]
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
