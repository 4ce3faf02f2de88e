"""paramax: parameters in wrappers, unwrapped in the forward pass."""

import equinox as eqx
import jax
import jax.numpy as jnp
from paramax import NonTrainable, Parameterize, WeightNormalization, non_trainable, unwrap
from written import Listing, linear, two

LIST = Listing()
WRAPPER = "calls `paramax.unwrap` on its layers in the forward pass, as its manual says"


def add(name, change):
    """Two layers, the first with a wrapper."""

    def parts(a, b, *_):
        return {**two(a, b), "a": change(linear(3, 5, a))}

    @LIST.add(name, parts, wrapper=WRAPPER)
    def _(parts, x):
        parts = unwrap(parts)
        return parts["b"](jnp.tanh(parts["a"](x)))


weight, bias = lambda at: at.weight, lambda at: at.bias
add(
    "WeightNormalization of a weight",
    lambda a: eqx.tree_at(weight, a, WeightNormalization(a.weight)),
)
add(
    "Parameterize: a positive weight",
    lambda a: eqx.tree_at(weight, a, Parameterize(jax.nn.softplus, a.weight)),
)
add("NonTrainable on a weight", lambda a: eqx.tree_at(weight, a, replace_fn=NonTrainable))
add("NonTrainable on a bias", lambda a: eqx.tree_at(bias, a, replace_fn=NonTrainable))
add("non_trainable on a whole layer", non_trainable)

ENTRIES = LIST.entries
