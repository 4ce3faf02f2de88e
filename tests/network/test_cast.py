"""Inputs come in the type in which a network means what it says."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import nthsim as nth

STARTS = nth.Run([0.0, 0.5], record=("kernel",))


class Picture(eqx.Module):
    """Makes bytes, but no other numbers, numbers between -1/2 and 1/2."""

    rest: eqx.nn.MLP

    def __call__(self, x):
        bytes_ = jnp.issubdtype(x.dtype, jnp.integer)
        return self.rest(x.astype(float) / 255 - 0.5 if bytes_ else x)


def test_whole_numbers_stay_so_for_a_network_that_asks_for_their_type():
    net = Picture(eqx.nn.MLP(3, "scalar", 4, 1, activation=jnp.tanh, key=jr.key(0)))
    pictures = np.array([[0, 200, 55], [13, 255, 90]], np.uint8)
    flow = nth.gradient_flow(net, nth.Dataset(pictures, [0.5, -1.0]), STARTS, progress=False)
    np.testing.assert_allclose(flow.f[0], jax.vmap(net)(jnp.asarray(pictures)), rtol=1e-12)
    found = nth.kernel(net, jnp.asarray(pictures), 2, progress=False)
    expected = nth.kernel(net.rest, jnp.asarray(pictures / 255 - 0.5), 2, progress=False)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


BYTES = {
    "asks": lambda x: x / 255.0 if x.dtype == jnp.uint8 else 1.0 * x,
    "range": lambda x: x / jnp.iinfo(x.dtype).max,
    "turned": lambda x: ~x / 255.0,
    "beyond": lambda x: (x + x - 128) / 255.0,
}


class Bytes(eqx.Module):
    """A network on what is made of bytes."""

    rest: eqx.nn.MLP
    made: str = eqx.field(static=True)

    def __call__(self, x):
        return self.rest(BYTES[self.made](x))


@pytest.mark.parametrize("made", BYTES)
def test_bytes_stay_bytes_for_a_network_that_makes_something_of_that(made):
    net = Bytes(eqx.nn.MLP(3, "scalar", 4, 1, activation=jnp.tanh, key=jr.key(0)), made)
    x = jnp.array([[0, 200, 55], [13, 255, 90]], jnp.uint8)
    with jax.numpy_dtype_promotion("standard"):
        flow = nth.gradient_flow(net, nth.Dataset(x, [0.5, -1.0], x[:1]), STARTS, progress=False)
        np.testing.assert_allclose(flow.f[0], [net(one) for one in x], rtol=1e-12)
        found = nth.kernel(net, x, 2, progress=False)
        expected = nth.kernel(net.rest, jax.vmap(BYTES[made])(x), 2, progress=False)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert flow.kernel is not None
    np.testing.assert_allclose(flow.kernel[0], expected, rtol=1e-12)


class Cast(eqx.Module):
    """Brings its weights to the type of its input, whatever that is."""

    W: jax.Array

    def __call__(self, x):
        return jnp.sum(jnp.tanh((self.W.astype(x.dtype) @ x).astype(float)))


@pytest.mark.parametrize(
    "net",
    [
        eqx.nn.Sequential([eqx.nn.LayerNorm(3), eqx.nn.Linear(3, "scalar", key=jr.key(0))]),
        Cast(jr.normal(jr.key(0), (4, 3))),
    ],
)
def test_whole_numbers_become_others_for_a_network_that_would_make_its_own_whole(net):
    x = jnp.array([[1, 0, 5], [0, 7, 2]])
    found = nth.kernel(net, x, 2, progress=False)
    expected = nth.kernel(net, x.astype(float), 2, progress=False)
    np.testing.assert_array_equal(found, expected)


def test_whole_numbers_are_taken_alike_within_jit():
    net = Picture(eqx.nn.MLP(3, "scalar", 4, 1, activation=jnp.tanh, key=jr.key(0)))
    x = jnp.array([[0, 200, 55], [13, 255, 90]])
    inside = jax.jit(lambda x: nth.kernel(net, x, 2, progress=False))(x)
    np.testing.assert_allclose(inside, nth.kernel(net, x, 2, progress=False), rtol=1e-12)
