"""norax: neural operators."""

import jax.numpy as jnp
from norax.models import FNO, MLP
from written import Listing

LIST = Listing()
LIST.whole("MLP", lambda key: MLP(key, 3, 2, 3, 4))


@LIST.add(
    "FNO",
    lambda key, *_: FNO(key, 1, 1, (2,), width=2, depth=1),
    shape=(6, 1),
    wrapper="flattens the field and keeps three points",
)
def _(parts, x):
    return jnp.ravel(parts(x))[:3]


ENTRIES = LIST.entries
