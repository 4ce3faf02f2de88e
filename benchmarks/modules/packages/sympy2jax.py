"""sympy2jax: formulas with trainable numbers."""

import jax.numpy as jnp
import sympy
import sympy2jax
from written import Listing, cast

LIST = Listing()


def _formula(*_):
    x, y = sympy.symbols("x y")
    return cast(
        sympy2jax.SymbolicModule([1.5 * sympy.sin(0.7 * x) + y**2, sympy.exp(-0.3 * x) * y])
    )


@LIST.add("SymbolicModule", _formula, shape=(2,), wrapper="takes its symbols from one input")
def _(parts, x):
    return jnp.stack(parts(x=x[0], y=x[1]))


ENTRIES = LIST.entries
