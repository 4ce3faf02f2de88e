"""equimo: vision models and their layers."""

import jax
import jax.numpy as jnp
from equimo.core.layers.attention import Attention, AttentionBlock
from equimo.core.layers.ffn import Mlp, SwiGlu, WeightNormLinear
from equimo.vision.layers.convolution import ConvNeXtBlock, SingleConvBlock
from written import Listing, cast

LIST = Listing()
#: Attention and weight normalisation are computed in single precision, whatever the parameters'.
SINGLE = 2.0**-23
MEAN = "called at inference with a key, of which it makes no use; a mean over what is not a channel"


def _call(module, x):
    return module(x, key=jax.random.key(0), inference=True)


TOKENS = {
    "Mlp": (lambda key: Mlp(4, hidden_dim=4, key=key), 2.0**-52),
    "SwiGlu": (lambda key: SwiGlu(4, hidden_dim=4, key=key), 2.0**-52),
    "Attention": (lambda key: Attention(4, 2, qk_norm=True, key=key), SINGLE),
    "AttentionBlock with LayerScale": (
        lambda key: cast(AttentionBlock(4, 2, mlp_ratio=1.0, init_values=0.5, key=key)),
        SINGLE,
    ),
}
for name, (make, rounding) in TOKENS.items():

    @LIST.add(
        name,
        lambda key, *_, make=make: make(key),
        shape=(3, 4),
        wrapper=MEAN,
        rounding=rounding,
    )
    def _(parts, x):
        return jnp.tanh(_call(parts, x)).mean(axis=0)[:2]


@LIST.add(
    "WeightNormLinear",
    lambda key, *_: WeightNormLinear(3, 2, key),
    shape=(2, 3),
    wrapper="a mean over positions",
    rounding=SINGLE,
)
def _(parts, x):
    return jnp.tanh(parts(x)).mean(axis=0).astype(x.dtype)


IMAGES = {
    "SingleConvBlock": lambda key: SingleConvBlock(2, 2, act_layer="silu", key=key),
    "ConvNeXtBlock": lambda key: cast(ConvNeXtBlock(2, key=key)),
}
for name, make in IMAGES.items():

    @LIST.add(
        name,
        lambda key, *_, make=make: make(key),
        shape=(2, 3, 3),
        wrapper=MEAN,
    )
    def _(parts, x):
        return jnp.tanh(_call(parts, x)).mean(axis=(1, 2))


ENTRIES = LIST.entries
