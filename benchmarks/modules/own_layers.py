"""Equinox's own layers, each in a small network."""

import functools as ft

import equinox as eqx
import jax
import jax.numpy as jnp
from equinox import nn
from written import Listing, linear

LIST = Listing()
add, whole = LIST.add, LIST.whole

for name, activation in {
    "relu": jax.nn.relu,
    "gelu, exact": ft.partial(jax.nn.gelu, approximate=False),
    "softplus": jax.nn.softplus,
    "mish": jax.nn.mish,
    "silu": jax.nn.silu,
}.items():
    whole(
        f"MLP, {name}",
        lambda key, act=activation: nn.MLP(3, "scalar", 5, 2, activation=act, key=key),
    )
whole("MLP, vector output, no bias", lambda k: nn.MLP(3, 2, 4, 1, use_bias=False, key=k))
whole("MLP, tanh at the end", lambda k: nn.MLP(3, 2, 4, 2, jnp.tanh, jnp.tanh, key=k))
whole("MLP, scalar input", lambda k: nn.MLP("scalar", "scalar", 4, 2, jnp.sin, key=k), shape=())
whole(
    "Sequential of Linear, Lambda, LayerNorm, Identity, Dropout at inference",
    lambda k: nn.Sequential(
        [
            linear(3, 5, k),
            nn.Lambda(jnp.tanh),
            nn.LayerNorm(5),
            nn.Identity(),
            nn.Dropout(0.5, inference=True),
            linear(5, 2, jax.random.fold_in(k, 1)),
        ]
    ),
)

CONVOLUTIONS = {
    "Conv1d": ((2, 6), {}),
    "Conv1d, circular, dilated": ((2, 6), {"padding": "SAME", "dilation": 2}),
    "Conv1d, stride, reflect": ((2, 6), {"stride": 2, "padding": 1, "padding_mode": "REFLECT"}),
    "Conv2d, groups": ((2, 4, 4), {"groups": 2}),
    "Conv3d": ((2, 3, 3, 3), {}),
}
for name, (shape, options) in CONVOLUTIONS.items():
    kind = {2: nn.Conv1d, 3: nn.Conv2d, 4: nn.Conv3d}[len(shape)]

    @add(name, lambda a, *_, kind=kind, o=options: (kind(2, 4, 2, key=a, **o),), shape=shape)
    def _(parts, x):
        (conv,) = parts
        return jnp.tanh(conv(x)).sum(axis=tuple(range(1, x.ndim)))


@add(
    "ConvTranspose1d after Conv1d",
    lambda a, b, *_: (nn.Conv1d(2, 3, 2, key=a), nn.ConvTranspose1d(3, 1, 2, key=b)),
    shape=(2, 4),
)
def _(parts, x):
    return parts[1](jnp.tanh(parts[0](x))).reshape(-1)[:2]


@add(
    "MaxPool2d and AdaptiveAvgPool2d between Conv2d and Linear",
    lambda a, b, *_: (nn.Conv2d(1, 2, 2, key=a), linear(2, "scalar", b)),
    shape=(1, 6, 6),
)
def _(parts, x):
    pooled = nn.AdaptiveAvgPool2d(1)(nn.MaxPool2d(2)(parts[0](x)))
    return parts[1](jnp.tanh(pooled.reshape(-1)))


NORMS = {
    "LayerNorm": lambda: nn.LayerNorm(6),
    "RMSNorm": lambda: nn.RMSNorm(6),
    "GroupNorm": lambda: nn.GroupNorm(2, 6),
}
for name, norm in NORMS.items():

    @add(f"{name} between Linear", lambda a, b, *_, n=norm: (linear(3, 6, a), n(), linear(6, 2, b)))
    def _(parts, x):
        first, norm, last = parts
        return last(jnp.tanh(norm(first(x))))


@add("WeightNorm of Linear", lambda a, b, *_: (nn.WeightNorm(linear(3, 5, a)), linear(5, 2, b)))
def _(parts, x):
    return parts[1](jnp.tanh(parts[0](x)))


class Stateful(eqx.Module):
    """A network with a layer that has state, which stays as it is at inference."""

    first: nn.Linear
    stateful: eqx.Module
    last: nn.Linear
    state: nn.State

    def __call__(self, x):
        """Evaluate at one input; the state does not change."""
        h, _ = self.stateful(self.first(x), self.state)
        return self.last(jnp.tanh(h))


def _batch_norm(key):
    first, last = linear(3, 5, key), linear(5, "scalar", jax.random.fold_in(key, 1))
    norm, state = nn.make_with_state(nn.BatchNorm)(5, "batch", mode="batch")
    batch = jax.random.normal(key, (8, 5))
    _, state = jax.vmap(norm, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(
        batch, state
    )
    return Stateful(first, nn.inference_mode(norm), last, state)


def _spectral_norm(key):
    first, last = linear(3, 5, key), linear(5, "scalar", jax.random.fold_in(key, 1))
    within = linear(5, 5, jax.random.fold_in(key, 2))
    make = nn.make_with_state(nn.SpectralNorm)
    norm, state = make(within, "weight", inference=True, key=jax.random.fold_in(key, 3))
    return Stateful(first, norm, last, state)


whole("BatchNorm with state, inference", _batch_norm)
whole("SpectralNorm with state, inference", _spectral_norm)


@add(
    "MultiheadAttention",
    lambda a, b, *_: (nn.MultiheadAttention(2, 4, key=a), linear(4, "scalar", b)),
    shape=(3, 4),
)
def _(parts, x):
    return parts[1](parts[0](x, x, x).mean(axis=0))


@add(
    "MultiheadAttention with a mask and RotaryPositionalEmbedding",
    lambda a, b, *_: (
        nn.MultiheadAttention(2, 8, key=a),
        nn.RotaryPositionalEmbedding(4),
        linear(8, "scalar", b),
    ),
    shape=(3, 8),
)
def _(parts, x):
    attention, rope, last = parts
    turned = lambda q, k, v: (jax.vmap(rope, 1, 1)(q), jax.vmap(rope, 1, 1)(k), v)  # noqa: E731
    mask = jnp.tril(jnp.ones((3, 3), bool))
    return last(attention(x, x, x, mask, process_heads=turned)[-1])


@add(
    "Embedding of whole numbers",
    lambda a, b, *_: (nn.Embedding(7, 4, key=a), linear(8, "scalar", b)),
    shape=(2,),
    tokens=7,
)
def _(parts, x):
    return parts[1](jnp.tanh(jax.vmap(parts[0])(x).reshape(-1)))


@add(
    "GRUCell in a scan",
    lambda a, b, *_: (nn.GRUCell(1, 3, key=a), linear(3, "scalar", b)),
    shape=(4,),
)
def _(parts, x):
    cell, last = parts
    step = lambda h, one: (cell(one[None], h), None)  # noqa: E731
    return last(jax.lax.scan(step, jnp.zeros(3), x)[0])


@add(
    "LSTMCell in a loop",
    lambda a, b, *_: (nn.LSTMCell(1, 3, key=a), linear(3, "scalar", b)),
    shape=(3,),
)
def _(parts, x):
    cell, last = parts
    state = jnp.zeros(3), jnp.zeros(3)
    for one in x:
        state = cell(one[None], state)
    return last(state[0])


@add(
    "a scan over layers stacked by filter_vmap",
    lambda a, b, c, *_: (
        linear(3, 4, a),
        eqx.filter_vmap(lambda k: linear(4, 4, k))(jax.random.split(b, 2)),
        linear(4, "scalar", c),
    ),
)
def _(parts, x):
    first, stack, last = parts
    arrays, rest = eqx.partition(stack, eqx.is_array)
    step = lambda h, layer: (jnp.tanh(eqx.combine(layer, rest)(h)), None)  # noqa: E731
    return last(jax.lax.scan(step, first(x), arrays)[0])


@add("PReLU", lambda a, b, *_: (linear(3, 5, a), nn.PReLU(0.2), linear(5, 2, b)))
def _(parts, x):
    first, slope, last = parts
    return last(slope(first(x)))


def _shared(a, b, *_):
    pair = (linear(3, 3, a), linear(3, 3, b))
    return nn.Shared(pair, lambda at: at[1].weight, lambda at: at[0].weight)


@add("Shared: two layers of one weight", _shared)
def _(parts, x):
    first, last = parts()
    return last(jnp.tanh(first(x)))


ENTRIES = LIST.entries
