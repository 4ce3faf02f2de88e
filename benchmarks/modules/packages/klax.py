"""klax: networks for computational mechanics, with constraints in wrappers."""

import jax.numpy as jnp
import klax
from klax.nn import FICNN, MLP, PICNN, SPDMatrix
from written import Listing

LIST = Listing()
LIST.whole("MLP", lambda key: MLP(3, "scalar", [4, 4], key=key))
LIST.whole("FICNN, finalized", lambda key: klax.finalize(FICNN(3, "scalar", [4], key=key)))


@LIST.add(
    "FICNN, finalized in the forward pass",
    lambda key, *_: FICNN(3, "scalar", [4], key=key),
    wrapper="calls `klax.finalize`, as training does",
)
def _(parts, x):
    return klax.finalize(parts)(x)


@LIST.add(
    "PICNN",
    lambda key, *_: PICNN(2, 1, "scalar", [4], key=key),
    wrapper="calls `klax.finalize`, and takes its two inputs from one",
)
def _(parts, x):
    return klax.finalize(parts)(x[:2], x[2:])


@LIST.add("SPDMatrix", lambda key, *_: SPDMatrix(3, 2, [4], key=key), wrapper="flattens the matrix")
def _(parts, x):
    return jnp.ravel(parts(x))[:3]


ENTRIES = LIST.entries
