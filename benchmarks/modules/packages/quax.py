"""quax: arrays that act by rules of their own, such as low-rank ones."""

import equinox as eqx
import jax.numpy as jnp
import quax
from quax.examples import lora
from written import Listing

LIST = Listing()

for stopped in (True, False):

    @LIST.add(
        f"loraify of an MLP, {'' if stopped else 'no '}stop_gradient",
        lambda a, b, *_, stopped=stopped: lora.loraify(
            eqx.nn.MLP(3, 2, 4, 1, jnp.tanh, key=a), rank=1, scale=0.5, stop_gradient=stopped, key=b
        ),
        wrapper="calls it through `quax.quaxify`, as its manual says",
    )
    def _(parts, x):
        return quax.quaxify(parts)(x)


ENTRIES = LIST.entries
