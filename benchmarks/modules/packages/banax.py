"""banax: deep equilibrium models with several derivatives."""

import jax.numpy as jnp
from banax.adjoint import BPTT, JFB, Implicit
from banax.solver import Picard
from written import Listing, linear

LIST = Listing()
PICARD = Picard(rtol=1e-12, max_steps=60)
ADJOINTS = {
    "Implicit": Implicit(PICARD, PICARD),
    "JFB": JFB(PICARD),
    "BPTT": BPTT(Picard(rtol=1e-12, max_steps=8, loop_kind="bounded")),
}

for name, adjoint in ADJOINTS.items():

    @LIST.add(
        f"an equilibrium, {name}",
        lambda a, b, c, *_: (linear(3, 3, a), linear(3, 3, b), linear(3, 2, c)),
        wrapper="two linear layers in the equation, one that reads the solution",
    )
    def _(parts, x, adjoint=adjoint):
        inner, into, last = parts
        f = lambda z, parts, x: jnp.tanh(0.4 * parts[0](z) + parts[1](x))  # noqa: E731
        return last(adjoint((f, ((inner, into), x)), jnp.zeros(3)).value)


ENTRIES = LIST.entries
