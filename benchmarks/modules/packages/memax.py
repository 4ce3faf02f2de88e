"""memax: recurrences by associative and by plain scans."""

import jax
import jax.numpy as jnp
from memax.equinox.semigroups.lru import LRU
from memax.equinox.set_actions.elman import Elman
from memax.equinox.set_actions.gru import GRU
from written import Listing

LIST = Listing()
LAYERS = {
    "Elman": (lambda key: Elman(2, 2, jnp.tanh, key=key), 2.0**-52),
    "GRU": (lambda key: GRU(2, key=key), 2.0**-52),
    "LRU": (lambda key: LRU(2, 2, key), 2.0**-23),
}

for name, (make, rounding) in LAYERS.items():

    @LIST.add(
        name,
        lambda key, *_, make=make: make(key),
        shape=(4, 2),
        wrapper="the last of four times",
        rounding=rounding,
    )
    def _(parts, x):
        start = jnp.zeros(4, bool)
        _, out = parts(parts.initialize_carry(jax.random.key(0)), (x, start))
        return jnp.tanh(out[-1]).astype(x.dtype)


ENTRIES = LIST.entries
