"""noxton: layers of recent architectures."""

import jax.numpy as jnp
from noxton.nn import CausalConv1d, GatedFeedForward
from noxton.nn.xlstm import mLSTMCell
from written import Listing, cast

LIST = Listing()
add = LIST.add


@add(
    "GatedFeedForward",
    lambda a, *_: GatedFeedForward(3, 4, inference=True, key=a),
    shape=(2, 3),
    wrapper="keeps two outputs",
)
def _(parts, x):
    return parts(x)[0, :2]


@add(
    "CausalConv1d",
    lambda a, *_: CausalConv1d(2, True, 2, key=a),
    shape=(4, 2),
    wrapper="the last time",
)
def _(parts, x):
    return jnp.tanh(parts(x))[-1]


@add(
    "CausalConv1d, depthwise",
    lambda a, *_: CausalConv1d(2, False, 2, key=a),
    shape=(4, 2),
    wrapper="the last time",
)
def _(parts, x):
    return jnp.tanh(parts(x))[-1]


@add(
    "mLSTMCell",
    lambda a, *_: cast(mLSTMCell(4, 2, 3, key=a)),
    shape=(3, 4),
    wrapper="the last time",
)
def _(parts, x):
    return parts(x, jnp.sin(x), x**2)[-1, :2]


ENTRIES = LIST.entries
