"""jaxpike: spiking networks with surrogate gradients."""

import jax
import jax.numpy as jnp
from jaxpike import LIF, Dense, LeakyIntegrator, Sequential
from written import Listing, cast

LIST = Listing()


def _run(network, x):
    def step(state, one):
        return network(state, one)

    _, out = jax.lax.scan(step, network.init_state((2,)), x)
    return out.mean(axis=0)


@LIST.add(
    "Dense, LIF, Dense over five steps",
    lambda a, b, *_: cast(
        Sequential(Dense(2, 4, gain=6.0, key=a), LIF(3.0), Dense(4, 2, key=b)), jnp.float32
    ),
    shape=(5, 2),
    wrapper="a scan over time and a mean, in single precision, as its states are",
    rounding=2.0**-23,
)
def _(parts, x):
    return _run(parts, x)


@LIST.add(
    "Dense, LeakyIntegrator",
    lambda a, *_: cast(Sequential(Dense(2, 2, key=a), LeakyIntegrator(3.0)), jnp.float32),
    shape=(5, 2),
    wrapper="a scan over time and a mean, in single precision, as its states are",
    rounding=2.0**-23,
)
def _(parts, x):
    return jnp.tanh(_run(parts, x))


ENTRIES = LIST.entries
