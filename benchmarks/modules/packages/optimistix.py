"""optimistix: implicit layers."""

import jax.numpy as jnp
import optimistix as optx
from written import Listing, linear

LIST = Listing()
PARTS = lambda a, b, c, *_: (linear(3, 3, a), linear(3, 3, b), linear(3, 2, c))  # noqa: E731
WRAPPER = "two linear layers in the equation, one that reads the solution"


@LIST.add("a fixed point, implicit", PARTS, wrapper=WRAPPER)
def _(parts, x):
    inner, into, last = parts
    f = lambda z, parts: jnp.tanh(0.4 * parts[0](z) + parts[1](x))  # noqa: E731
    solver = optx.FixedPointIteration(rtol=1e-13, atol=1e-13)
    return last(optx.fixed_point(f, solver, jnp.zeros(3), (inner, into)).value)


@LIST.add("a root by Newton", PARTS, wrapper=WRAPPER)
def _(parts, x):
    inner, into, last = parts
    f = lambda z, parts: z - jnp.tanh(0.4 * parts[0](z) + parts[1](x))  # noqa: E731
    return last(optx.root_find(f, optx.Newton(1e-13, 1e-13), jnp.zeros(3), (inner, into)).value)


ENTRIES = LIST.entries
