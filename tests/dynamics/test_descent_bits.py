"""Descent by an optimiser of Optax is that of a loop over its steps, to the last bit."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import nthsim as nth
from nthsim.models import FCN

pytestmark = pytest.mark.compiled

OPTIMISERS = {
    "momentum": optax.sgd(0.1, momentum=0.9),
    "Adam": optax.adam(0.01),
    "chain": optax.chain(optax.clip_by_global_norm(0.1), optax.adamw(0.01)),
}


@pytest.mark.parametrize(
    ("name", "sizes"), [*((name, (13, 17, 100)) for name in OPTIMISERS), ("Adam", (500, 700, 7))]
)
def test_descent_equals_a_loop_bit_by_bit(name, sizes):
    n, width, steps = sizes  # the last ones are so large that each step is a call of its own
    optimiser, net = OPTIMISERS[name], FCN(5, width, 2, key=jr.key(1))
    x = jr.normal(jr.key(0), (n, 5))
    data = nth.Dataset(x, jnp.sin(x[:, 0] * x[:, 1]))
    theta, static = eqx.partition(net, eqx.is_inexact_array)

    def loss(theta):
        f = jax.vmap(eqx.combine(theta, static))(data.x)
        return jnp.mean(jax.vmap(lambda f, y: 0.5 * jnp.sum((f - y) ** 2))(f, data.y))

    @jax.jit
    def step(theta, memory):
        with jax.default_matmul_precision("highest"), jax.numpy_dtype_promotion("standard"):
            update, memory = optimiser.update(jax.grad(loss)(theta), memory, theta)
        return optax.apply_updates(theta, update), memory

    memory = optimiser.init(theta)
    for _ in range(steps):
        theta, memory = step(theta, memory)
    found = nth.descent(net, data, optimiser, [0.1 * steps], rate=0.1)
    ours = jax.tree.leaves(eqx.filter(found.model, eqx.is_inexact_array))
    for one, other in zip(ours, jax.tree.leaves(theta), strict=True):
        np.testing.assert_array_equal(one, other)
