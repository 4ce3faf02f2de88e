"""jaxonlayers: layers beside Equinox's own."""

import jax.numpy as jnp
from jaxonlayers.layers import (
    LayerNorm,
    MultiheadAttention,
    SelectiveStateSpace,
    SqueezeExcitation,
    TransformerEncoderLayer,
)
from written import Listing, cast, linear

LIST = Listing()
add = LIST.add
READ = "a mean of its output is read by a linear layer"


@add(
    "SqueezeExcitation",
    lambda a, *_: SqueezeExcitation(2, 2, key=a),
    shape=(2, 3, 3),
    wrapper="the mean over pixels",
)
def _(parts, x):
    return parts(x, activation=jnp.tanh).mean(axis=(1, 2))


@add(
    "SelectiveStateSpace",
    lambda a, *_: cast(SelectiveStateSpace(2, 2, 1, 2, key=a)),
    shape=(3, 2),
    wrapper="the last position, its parameters in one precision",
    rounding=2.0**-23,  # it computes in single precision
)
def _(parts, x):
    return parts(x)[-1]


@add(
    "TransformerEncoderLayer",
    lambda a, b, *_: (
        TransformerEncoderLayer(4, 2, 4, activation=jnp.tanh, inference=True, key=a),
        linear(4, "scalar", b),
    ),
    shape=(3, 4),
    wrapper=READ,
)
def _(parts, x):
    return parts[1](parts[0](x).mean(axis=0))


@add(
    "MultiheadAttention",
    lambda a, b, *_: (MultiheadAttention(4, 2, inference=True, key=a), linear(4, "scalar", b)),
    shape=(3, 4),
    wrapper=READ,
)
def _(parts, x):
    return parts[1](parts[0](x, x, x)[0].mean(axis=0))


@add(
    "LayerNorm",
    lambda a, b, *_: (linear(3, 4, a), LayerNorm(4), linear(4, 2, b)),
    wrapper="between two linear layers",
)
def _(parts, x):
    first, norm, last = parts
    return last(jnp.tanh(norm(first(x))))


ENTRIES = LIST.entries
