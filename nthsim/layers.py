r"""Layers that apply one weight matrix to vectors: `eqx.nn.Linear` and `eqx.nn.Conv`.

A linear layer applies its matrix to its input, a convolution to each patch of its input. Either
way a call returns $z = h W^\top$ plus a bias, with one row of h (T, in) for each position.
"""

from itertools import product
from math import prod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

CONVOLUTIONS = (eqx.nn.Conv, eqx.nn.Conv1d, eqx.nn.Conv2d, eqx.nn.Conv3d)

#: What `jnp.pad` calls the padding modes of `eqx.nn.Conv`.
PADDINGS = {"ZEROS": "constant", "REFLECT": "reflect", "REPLICATE": "edge", "CIRCULAR": "wrap"}

Layer = eqx.nn.Linear | eqx.nn.Conv


def is_layer(node: Any) -> bool:
    """Whether this is such a layer itself: a subclass may act otherwise, and so do groups."""
    if type(node) not in (eqx.nn.Linear, *CONVOLUTIONS):
        return False
    whole = isinstance(node, eqx.nn.Linear) or node.groups == 1
    return whole and jax.tree_util.all_leaves([node.weight])  # no wrapped weight


def layers_of(theta: PyTree[Array]) -> list[Layer]:
    """The layers of a model, in the order of its leaves."""
    return [node for node in jax.tree.leaves(theta, is_leaf=is_layer) if is_layer(node)]


def outside_layers(theta: PyTree[Array]) -> dict[str, int]:
    """The number of parameters of each array that is in no layer, by its name in the model."""
    nodes = jax.tree.leaves_with_path(theta, is_leaf=is_layer)
    outside = [(path, node) for path, node in nodes if not is_layer(node)]
    return {f"model{jax.tree_util.keystr(path)}": node.size for path, node in outside}


def layer_names(theta: PyTree[Array]) -> list[str]:
    """The name of each layer in the model."""
    nodes = jax.tree.leaves_with_path(theta, is_leaf=is_layer)
    return [f"model{jax.tree_util.keystr(path)}" for path, node in nodes if is_layer(node)]


def matrix_shape(layer: Layer) -> tuple[int, int]:
    """The shape (out, in) of the weight matrix."""
    out, *inner = layer.weight.shape
    return out, prod(inner)


def vectors(layer: Layer, x: Float[Array, "..."]) -> Float[Array, "T in"]:
    """What the matrix is applied to in one call."""
    if isinstance(layer, eqx.nn.Linear):
        return x.reshape(1, -1)
    x = jnp.pad(x, [(0, 0), *_padding(layer, x)], PADDINGS[layer.padding_mode])
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
