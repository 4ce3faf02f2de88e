"""Taylor arithmetic is proved on the network and the data before it is used."""

import re
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jaxtyping import Array

import nthsim as nth
from nthsim.dynamics.problem import pose
from nthsim.dynamics.taylor_proof import proven
from nthsim.inputs.loss import squared_error

pytestmark = pytest.mark.slow


class Through(eqx.Module):
    """A function between two layers."""

    entry: eqx.nn.Linear
    readout: eqx.nn.Linear
    function: Callable = eqx.field(static=True)

    def __init__(self, function: Callable) -> None:
        keys = jr.split(jr.key(0), 2)
        self.entry = eqx.nn.Linear(3, 5, use_bias=False, key=keys[0])
        self.readout = eqx.nn.Linear(5, "scalar", key=keys[1])
        self.function = function

    def __call__(self, x: Array) -> Array:
        return self.readout(self.function(self.entry(x)))


@jax.custom_jvp
def halved(z):
    """The identity, which declares half its slope."""
    return z


halved.defjvps(lambda g, ans, z: 0.5 * g)

X = jr.normal(jr.key(1), (5, 3))
DATA = nth.Dataset(X.at[2].set(0.0), jnp.arange(5.0) / 5)


def road_of(function, data=DATA):
    return str(proven(pose(Through(function), data, squared_error)).method)


def test_what_is_right_keeps_its_road():
    assert road_of(jax.scipy.special.erf) == "layer by layer"


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda z: z**3.0, "coefficients of order 1 that Taylor arithmetic gives as not finite"),
        (lambda z: z * jnp.fmod(z, 0.5), "coefficients of order 0 that Taylor arithmetic misses"),
        (halved, "coefficients of order 1 that Taylor arithmetic misses"),
        (lambda z: jnp.sqrt(jnp.abs(z)), r"derivatives of order 1 that are not finite at x\[2\]"),
    ],
)
def test_what_is_wrong_or_not_finite_takes_nested_derivatives(function, words):
    with jax.numpy_dtype_promotion("standard"):
        found = road_of(function)
    assert found.startswith("nested derivatives, as the network has ")
    assert re.search(words, found)


def test_one_test_point_is_enough():
    positive = lambda z: (z + 4) ** 3.0  # noqa: E731
    near, far = jnp.abs(X), 100 * jnp.ones((1, 3))
    assert road_of(positive, nth.Dataset(near, jnp.ones(5))) == "layer by layer"
    both = nth.Dataset(near, jnp.ones(5), x_test=jnp.concatenate([far, -far]))
    assert "not finite" in road_of(positive, both)


@pytest.mark.parametrize("run", [nth.hierarchy, nth.taylor])
def test_power_with_a_floating_exponent_trains_as_the_product_does(run):
    size, options = (3, {"method": "series"}) if run is nth.hierarchy else (2, {})
    ways = [lambda z: 0.1 * z**3.0, lambda z: 0.1 * z * z * z]
    found, expected = (
        run(Through(way), DATA, size, [0.0, 0.2], progress=False, **options) for way in ways
    )
    assert "nested derivatives" in found.method
    # Solver errors of a relative tolerance of 1e-6 or better, twice.
    np.testing.assert_allclose(found.f, expected.f, rtol=1e-5)


def test_singular_network_is_refused_with_what_is_not_finite():
    network = Through(lambda z: jnp.sqrt(jnp.abs(z)))
    with pytest.raises(nth.SolveError, match=r"derivatives of order 1 .* not finite at x\[2\]"):
        nth.hierarchy(network, DATA, 3, [0.0, 0.2], method="series", progress=False)
