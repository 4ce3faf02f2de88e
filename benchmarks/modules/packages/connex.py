"""connex: networks on any directed acyclic graph."""

import connex
import jax
import jax.numpy as jnp
from written import Listing

LIST = Listing()
LIST.whole("nn.MLP", lambda key: connex.nn.MLP(3, 1, 4, 2, activation=jnp.tanh, key=key))
LIST.whole(
    "nn.DenseMLP", lambda key: connex.nn.DenseMLP(3, 2, 2, 2, activation=jax.nn.softplus, key=key)
)

ENTRIES = LIST.entries
