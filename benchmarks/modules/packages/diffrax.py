"""diffrax: neural differential equations."""

import diffrax as dfx
import equinox as eqx
import jax.numpy as jnp
from written import Listing, linear

LIST = Listing()
ADJOINTS = {
    "DirectAdjoint": dfx.DirectAdjoint(),
    "the default adjoint": dfx.RecursiveCheckpointAdjoint(),
    "BacksolveAdjoint": dfx.BacksolveAdjoint(),
    "ForwardMode": dfx.ForwardMode(),
}

for name, adjoint in ADJOINTS.items():

    @LIST.add(
        f"a neural ODE, {name}",
        lambda a, b, *_: (eqx.nn.MLP(2, 2, 3, 1, jnp.tanh, key=a), linear(2, "scalar", b)),
        shape=(2,),
        wrapper="solves with an MLP as its field, reads the end by a linear layer",
    )
    def _(parts, x, adjoint=adjoint):
        field, last = parts
        term = dfx.ODETerm(lambda t, y, f: f(y))
        done = dfx.diffeqsolve(
            term, dfx.Heun(), 0.0, 1.0, 0.25, x, field, adjoint=adjoint, max_steps=8
        )
        return last(done.ys[-1])


ENTRIES = LIST.entries
