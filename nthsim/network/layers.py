r"""Layers that apply one weight matrix to vectors: `eqx.nn.Linear` and `eqx.nn.Conv`.

A linear layer applies its matrix to its input, a convolution to each patch of its input. Either
way a call returns $z = h W^\top$ plus a bias, with one row of h (T, in) for each position.
"""

from collections.abc import Iterable
from functools import reduce
from itertools import product
from math import prod
from operator import add
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

CONVOLUTIONS = (eqx.nn.Conv, eqx.nn.Conv1d, eqx.nn.Conv2d, eqx.nn.Conv3d)

#: What `jnp.pad` calls the padding modes of `eqx.nn.Conv`.
PADDINGS = {"ZEROS": "constant", "REFLECT": "reflect", "REPLICATE": "edge", "CIRCULAR": "wrap"}

Layer = eqx.nn.Linear | eqx.nn.Conv

#: Taylor coefficients 0, 1, ... of an array; None for one that is known to vanish.
Terms = list[Any]


def is_layer(node: Any) -> bool:
    """Whether this is such a layer itself: a subclass may act otherwise, and so do groups.

    So does one with a weight of another rank, or of other taps, than it was made with: a `Linear`
    applies any array by `@`, and a `Conv` pads for the taps that it was made with. One without
    entries has nothing to be taken apart for.
    """
    if type(node) not in (eqx.nn.Linear, *CONVOLUTIONS):
        return False
    whole = isinstance(node, eqx.nn.Linear) or node.groups == 1
    held = [node.weight] if node.bias is None else [node.weight, node.bias]
    if not (whole and jax.tree_util.all_leaves(held)):  # something is wrapped
        return False
    kernel = () if isinstance(node, eqx.nn.Linear) else node.kernel_size
    if node.weight.ndim < 2 or node.weight.shape[2:] != kernel or not node.weight.size:
        return False
    return node.bias is None or node.bias.shape == (len(node.weight), *(1 for _ in kernel))


def layers_of(theta: PyTree) -> list[Layer]:
    """The layers of a model, in the order of its leaves."""
    return [node for node in jax.tree.leaves(theta, is_leaf=is_layer) if is_layer(node)]


def outside_layers(theta: PyTree) -> dict[str, int]:
    """The number of parameters of each array that is in no layer, by its name in the model."""
    nodes = jax.tree.leaves_with_path(theta, is_leaf=is_layer)
    outside = [(path, node) for path, node in nodes if not is_layer(node)]
    return {f"model{jax.tree_util.keystr(path)}": node.size for path, node in outside}


def with_layers(theta: PyTree, layers: Iterable[Layer]) -> PyTree:
    """The parameters with others in the layers, in the order of `layers_of`."""
    others = iter(layers)
    replaced = lambda node: next(others) if is_layer(node) else node  # noqa: E731
    return jax.tree.map(replaced, theta, is_leaf=is_layer)


def layer_paths(theta: PyTree) -> list[tuple[Any, ...]]:
    """Where in the model each layer is, in the order of `layers_of`."""
    nodes = jax.tree.leaves_with_path(theta, is_leaf=is_layer)
    return [path for path, node in nodes if is_layer(node)]


def layer_names(theta: PyTree) -> list[str]:
    """The name of each layer in the model."""
    return [f"model{jax.tree_util.keystr(path)}" for path in layer_paths(theta)]


def matrix_shape(layer: Layer) -> tuple[int, int]:
    """The shape (out, in) of the weight matrix."""
    out, *inner = layer.weight.shape
    return out, prod(inner)


def vectors(layer: Layer, x: Float[Array, "..."]) -> Float[Array, "T in"]:
    """What the matrix is applied to in one call."""
    if isinstance(layer, eqx.nn.Linear):
        return x.reshape(1, -1)
    padding = _padding(layer, x)
    inner = (
        slice(max(-a, 0), s - max(-b, 0)) for s, (a, b) in zip(x.shape[1:], padding, strict=True)
    )
    x = x[(slice(None), *inner)]  # a negative padding takes away
    around = [(0, 0), *((max(a, 0), max(b, 0)) for a, b in padding)]
    x = jnp.pad(x, around, PADDINGS[layer.padding_mode])
    reach = [d * (k - 1) for k, d in zip(layer.kernel_size, layer.dilation, strict=True)]
    stops = [size - r for size, r in zip(x.shape[1:], reach, strict=True)]
    shifted = []
    for offset in product(*map(range, layer.kernel_size)):
        start = [o * d for o, d in zip(offset, layer.dilation, strict=True)]
        stop = [s + e for s, e in zip(start, stops, strict=True)]
        window = jax.lax.slice(x, (0, *start), (len(x), *stop), (1, *layer.stride))
        shifted.append(window.reshape(len(x), -1))
    return jnp.stack(shifted, axis=1).reshape(len(x) * len(shifted), -1).T


def applied(layer: Layer, x: Float[Array, "..."]) -> Float[Array, "..."]:
    """One call. The input stands on the left, so that a batch of them is not transposed."""
    if not isinstance(layer, eqx.nn.Linear):
        return layer(x)
    z = x.reshape(-1) @ layer.weight.T
    if layer.bias is not None:
        z = z + layer.bias
    return z.reshape(()) if layer.out_features == "scalar" else z


def without_bias(layer: Layer) -> Layer:
    """The layer with a bias of zero, if it has one."""
    if layer.bias is None:
        return layer
    return eqx.tree_at(lambda at: at.bias, layer, jnp.zeros_like(layer.bias))


def returned(layer: Layer, h: Float[Array, "s ..."]) -> Float[Array, "s ..."]:
    """What a batch of calls returns."""
    return jax.vmap(lambda one: applied(layer, one))(h)


def received(
    layer: Layer, shape: tuple[int, ...], delta: Float[Array, "s ..."]
) -> Float[Array, "s ..."]:
    """What the inputs of a batch of calls, of this shape, receive back from its outputs."""
    h = jax.ShapeDtypeStruct((len(delta), *shape), delta.dtype)
    bare = without_bias(layer)
    return jax.linear_transpose(lambda h: returned(bare, h), h)(delta)[0]


def weight_gradients(layer: Layer, h: Terms, delta: Terms) -> Terms:
    r"""The gradients by the weight summed over a batch of calls, $\sum_b \delta_b h_b^\top$.

    A product of series: h and $\delta$ are Taylor coefficients, of which None is zero.
    """
    q, bare = len(delta), without_bias(layer)
    if isinstance(layer, eqx.nn.Linear):
        # XLA contracts over the first axes of both factors at half the speed on CPUs, and would
        # compute all of delta anew while it transposes. Elsewhere this costs a copy of delta.
        rows = jax.lax.optimization_barrier(jnp.stack(delta).reshape(q, len(delta[0]), -1))
        columns = jax.lax.optimization_barrier(jnp.swapaxes(rows, 1, 2))
        gradient = lambda i, j: columns[j] @ h[i].reshape(len(h[i]), -1)  # noqa: E731
    else:
        at = lambda w: eqx.tree_at(lambda conv: conv.weight, bare, w)  # noqa: E731
        pull = lambda i: jax.linear_transpose(lambda w: returned(at(w), h[i]), layer.weight)  # noqa: E731
        gradient = lambda i, j: pull(i)(delta[j])[0]  # noqa: E731
    return [
        reduce(add, [gradient(i, j - i) for i in range(j + 1) if h[i] is not None])
        for j in range(q)
    ]


def bias_gradient(layer: Layer, delta: Float[Array, "s ..."]) -> Float[Array, "..."]:
    """The gradient by the bias, summed over a batch of calls."""
    out, *inner = layer.weight.shape
    total = jnp.sum(delta.reshape(len(delta), out, -1), axis=(0, 2))
    return total.reshape(out, *(1 for _ in inner[1:]))


def way_back(
    layer: Layer, shape: tuple[int, ...], received: Float[Array, "T in"]
) -> Float[Array, "..."]:
    """The transpose of `vectors`: what an input of this shape receives."""
    x = jax.ShapeDtypeStruct(shape, received.dtype)
    return jax.linear_transpose(lambda x: vectors(layer, x), x)(received)[0]


def rows(z: Float[Array, "..."]) -> Float[Array, "T out"]:
    """What one call returned, one row for each position."""
    return z.reshape(len(z) if z.ndim > 1 else z.size, -1).T


def _padding(conv: eqx.nn.Conv, x: Array) -> list[tuple[int, int]]:
    if not isinstance(conv.padding, str):
        return list(conv.padding)
    filled = [d * (k - 1) + 1 for k, d in zip(conv.kernel_size, conv.dilation, strict=True)]
    return list(jax.lax.padtype_to_pads(x.shape[1:], filled, conv.stride, conv.padding))
