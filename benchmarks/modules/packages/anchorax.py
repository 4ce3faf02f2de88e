"""anchorax: implicit layers differentiated through their last step."""

import equinox as eqx
import jax
import jax.numpy as jnp
from anchorax.backprop import jfb
from anchorax.solvers import picard
from written import Listing, linear

LIST = Listing()


class Cell(eqx.Module):
    """What is iterated."""

    inner: eqx.nn.Linear

    def __call__(self, u, Qd, *, inference, key):
        """One step."""
        return jnp.tanh(0.4 * self.inner(u) + Qd)


@LIST.add(
    "jfb of picard",
    lambda a, b, c, *_: (Cell(linear(3, 3, a)), linear(3, 3, b), linear(3, 2, c)),
    wrapper="a cell of ours between two linear layers",
)
def _(parts, x):
    cell, into, last = parts
    params, static = eqx.partition(cell, eqx.is_array)
    key = jax.random.key(0)
    u, *_ = jfb((params, into(x)), static, solver=picard, inference=True, key=key, eps=1e-12)
    return last(u)


ENTRIES = LIST.entries
