"""One network in many guises: it asks its layers questions, or calls them in odd ways.

Answered truthfully, each is the network of two layers that `plain` writes out in arrays.
"""

import copy
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from equinox.nn import Lambda, LayerNorm, Linear, Sequential
from jaxtyping import Array


class Asking(eqx.Module):
    """Is linear between its layers unless `question` about itself is answered truthfully."""

    first: Linear
    last: Linear
    question: Callable[[Any], bool] = eqx.field(static=True)

    def __call__(self, x: Array) -> Array:
        h = self.first(x)
        return self.last(jnp.tanh(h) if self.question(self) else h)


class Calling(eqx.Module):
    """Calls its first layer by `way`."""

    first: Linear
    last: Linear
    way: Callable[[Linear, Array], Array] = eqx.field(static=True)

    def __call__(self, x: Array) -> Array:
        return self.last(jnp.tanh(self.way(self.first, x)))


def layers() -> tuple[Linear, Linear]:
    """The two layers of all these networks."""
    first_key, last_key = jr.split(jr.key(0))
    return Linear(3, 4, key=first_key), Linear(4, "scalar", key=last_key)


def plain(first: tuple[Array, Array], last: tuple[Array, Array], x: Array) -> Array:
    """What all of them are, for weights and biases by themselves."""
    return (last[0] @ jnp.tanh(first[0] @ x + first[1]) + last[1])[0]


def _matches(layer: Any) -> bool:
    match layer:
        case Linear(in_features=3, out_features=4):
            return True
    return False


@functools.singledispatch
def _is_linear(layer: Any) -> bool:
    return False


@_is_linear.register
def _(layer: Linear) -> bool:
    return True


def _lacks(layer: Any, name: str) -> bool:
    try:
        getattr(layer, name)
    except AttributeError:
        return True
    return False


def _linear_layers(tree: Any) -> int:
    leaves = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, Linear))
    return sum(isinstance(leaf, Linear) for leaf in leaves)


#: Each is true of the network.
QUESTIONS: dict[str, Callable[[Any], bool]] = {
    "isinstance": lambda net: isinstance(net.first, Linear),
    "isinstance of several": lambda net: isinstance(net.first, LayerNorm | Linear),
    "isinstance of Module": lambda net: isinstance(net.first, eqx.Module),
    "type is": lambda net: type(net.first) is Linear,
    "__class__": lambda net: net.first.__class__ is Linear,
    "issubclass": lambda net: issubclass(type(net.first), Linear),
    "name of the type": lambda net: type(net.first).__name__ == "Linear",
    "match": lambda net: _matches(net.first),
    "singledispatch": lambda net: _is_linear(net.first),
    "hasattr": lambda net: hasattr(net.first, "weight"),
    "hasattr of what is not there": lambda net: not hasattr(net.first, "layer"),
    "AttributeError": lambda net: _lacks(net.first, "index"),
    "getattr with a default": lambda net: getattr(net.first, "out_features", 0) == 4,
    "in_features": lambda net: net.first.in_features == 3,
    "use_bias": lambda net: net.first.use_bias,
    "bias is None": lambda net: net.first.bias is not None,
    "shape of the weight": lambda net: net.first.weight.shape == (4, 3),
    "vars": lambda net: "weight" in vars(net.first),
    "fields": lambda net: "in_features" in net.first.__dataclass_fields__,
    "repr": lambda net: repr(net.first).startswith("Linear("),
    "str": lambda net: "use_bias=True" in str(net.first),
    "callable": lambda net: callable(net.first),
    "identity": lambda net: net.first is net.first and net.first in (net.last, net.first),
    "leaves": lambda net: len(jax.tree.leaves(net.first)) == 2,
    "leaves with paths": lambda net: (
        [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(net.first)]
        == [".weight", ".bias"]
    ),
    "structure": lambda net: jax.tree.structure(net.first) == jax.tree.structure(layers()[0]),
    "arrays of a filter": lambda net: eqx.filter(net.first, eqx.is_array).weight is not None,
    "count of parameters": lambda net: sum(leaf.size for leaf in jax.tree.leaves(net)) == 21,
    "count of layers": lambda net: _linear_layers(net) == 2,
    "copy": lambda net: isinstance(copy.copy(net.first), Linear),
}


def _halves(layer: Linear, x: Array) -> Array:
    arrays, rest = eqx.partition(layer, eqx.is_array)
    return eqx.combine(arrays, rest)(x)


def _scanned(layer: Linear, x: Array) -> Array:
    return jax.lax.scan(lambda _, one: (None, layer(one)), None, x[None])[1][0]


#: Each is what calling the layer is.
WAYS: dict[str, Callable[[Linear, Array], Array]] = {
    "__call__": lambda layer, x: layer.__call__(x),
    "__call__ of its type": lambda layer, x: type(layer).__call__(layer, x),
    "Linear.__call__": lambda layer, x: Linear.__call__(layer, x),
    "partial": lambda layer, x: functools.partial(layer, key=None)(x),
    "by keyword": lambda layer, x: layer(x=x),
    "a key": lambda layer, x: layer(x, key=jr.key(0)),
    "copy": lambda layer, x: copy.copy(layer)(x),
    "by hand": lambda layer, x: layer.weight @ x + jnp.asarray(layer.bias),
    "in Sequential": lambda layer, x: Sequential([layer, Lambda(jnp.asarray)])(x),
    "vmap": lambda layer, x: jax.vmap(layer)(x[None])[0],
    "filter_jit": lambda layer, x: eqx.filter_jit(layer)(x),
    "checkpoint": lambda layer, x: jax.checkpoint(layer.__call__)(x),
    "scan": _scanned,
    "cond": lambda layer, x: jax.lax.cond(x[0] > 9, lambda x: layer(-x), lambda x: layer(x), x),
    "where": lambda layer, x: jnp.where(x[0] > 9, layer(-x), layer(x)),
    "partition and combine": _halves,
    "tree.map": lambda layer, x: jax.tree.map(lambda leaf: leaf, layer)(x),
    "tree_at of its own weight": lambda layer, x: eqx.tree_at(
        lambda at: at.weight, layer, replace_fn=lambda w: 1.0 * w
    )(x),
    "tree_at of its own bias": lambda layer, x: eqx.tree_at(
        lambda at: at.bias, layer, replace_fn=lambda b: 1.0 * b
    )(x),
    "inference_mode": lambda layer, x: eqx.nn.inference_mode(layer)(x),
    "called in vain besides": lambda layer, x: layer(x) + 0.0 * layer(-x),
}


def _with(name: str, change: Callable[[Array], Array], layer: Linear) -> Linear:
    return eqx.tree_at(lambda at: getattr(at, name), layer, replace_fn=change)


stopped = jax.lax.stop_gradient

#: Ways that call another layer than the model's, beside what they are for weight and bias.
CHANGES: dict[str, tuple[Callable, Callable]] = {
    "frozen bias": (
        lambda layer, x: _with("bias", stopped, layer)(x),
        lambda W, b, x: W @ x + stopped(b),
    ),
    "frozen bias by tree.map": (
        lambda layer, x: jax.tree.map(lambda p: stopped(p) if p.ndim == 1 else p, layer)(x),
        lambda W, b, x: W @ x + stopped(b),
    ),
    "doubled bias": (
        lambda layer, x: _with("bias", lambda b: 2.0 * b, layer)(x),
        lambda W, b, x: W @ x + 2.0 * b,
    ),
    "bias of the other sign by tree.map": (
        lambda layer, x: jax.tree.map(lambda p: -p if p.ndim == 1 else p, layer)(x),
        lambda W, b, x: W @ x - b,
    ),
    "frozen weight": (
        lambda layer, x: _with("weight", stopped, layer)(x),
        lambda W, b, x: stopped(W) @ x + b,
    ),
    "frozen layer": (
        lambda layer, x: stopped(layer)(x),
        lambda W, b, x: stopped(W) @ x + stopped(b),
    ),
    "scaled weight": (
        lambda layer, x: _with("weight", lambda w: w / 2.0, layer)(x),
        lambda W, b, x: W @ x / 2.0 + b,
    ),
    "called with another bias too": (
        lambda layer, x: layer(x) + _with("bias", jnp.sin, layer)(x),
        lambda W, b, x: 2.0 * (W @ x) + b + jnp.sin(b),
    ),
    "weight read besides": (
        lambda layer, x: layer(x) + 0.1 * jnp.sum(layer.weight**2),
        lambda W, b, x: W @ x + b + 0.1 * jnp.sum(W**2),
    ),
    "bias read besides": (
        lambda layer, x: layer(x) * jnp.cos(layer.bias),
        lambda W, b, x: (W @ x + b) * jnp.cos(b),
    ),
}
