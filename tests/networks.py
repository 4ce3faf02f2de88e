"""Small networks of all kinds that the hierarchy must serve; inputs have shape (4,)."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, PRNGKeyArray

from nthsim.models import FCN, ResNet


class Convolutional(eqx.Module):
    """Two convolutions over four pixels, the second with stride, and a readout."""

    first: eqx.nn.Conv1d
    second: eqx.nn.Conv1d
    readout: eqx.nn.Linear

    def __init__(self, key: PRNGKeyArray) -> None:
        keys = jr.split(key, 3)
        self.first = eqx.nn.Conv1d(1, 3, 3, padding=1, key=keys[0])
        self.second = eqx.nn.Conv1d(3, 2, 2, stride=2, key=keys[1])
        self.readout = eqx.nn.Linear(4, "scalar", key=keys[2])

    def __call__(self, x: Array) -> Array:
        h = jnp.tanh(self.first(x[None]))
        return self.readout(jnp.tanh(self.second(h)).reshape(-1))


class Recurrent(eqx.Module):
    """A gated cell that reads the input number by number, in a loop or in a scan."""

    cell: eqx.nn.GRUCell
    readout: eqx.nn.Linear
    scanned: bool

    def __init__(self, *, scanned: bool = False, key: PRNGKeyArray) -> None:
        cell_key, readout_key = jr.split(key)
        self.cell = eqx.nn.GRUCell(1, 3, key=cell_key)
        self.readout = eqx.nn.Linear(3, "scalar", key=readout_key)
        self.scanned = scanned

    def __call__(self, x: Array) -> Array:
        h = jnp.zeros(3, x.dtype)
        if self.scanned:
            h, _ = jax.lax.scan(lambda h, one: (self.cell(one[None], h), None), h, x)
        else:
            for one in x:
                h = self.cell(one[None], h)
        return self.readout(h)


NETWORKS = {
    "fcn": FCN(4, 8, 2, key=jr.key(0)),
    "resnet": ResNet(4, 8, 3, activation="erf", key=jr.key(1)),
    "mlp with biases": eqx.nn.MLP(4, "scalar", 5, 2, activation=jax.nn.softplus, key=jr.key(2)),
    "mlp of three outputs": eqx.nn.MLP(4, 3, 5, 1, activation=jax.nn.gelu, key=jr.key(3)),
    "convolutional": Convolutional(jr.key(4)),
    "recurrent": Recurrent(key=jr.key(5)),
}


def with_slope(slope):
    """One function by one name, with a derivative of its own."""

    @jax.custom_jvp
    def act(z):
        return jnp.tanh(z)

    @act.defjvp
    def act_jvp(z, dz):
        return act(*z), slope * dz[0]

    return act
