"""Taylor coefficients along a path."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from networks import Recurrent

from nthsim.models.activation import relu, softplus
from nthsim.network import split
from nthsim.series import coefficients
from nthsim.taylor_expansions import taylor_obstacle


@pytest.mark.parametrize("nested", [False, True])
def test_coefficients_of_the_exponential_are_those_of_its_series(nested):
    path = [jnp.array([0.0, 0.5]), jnp.array([1.0, -2.0]), jnp.zeros(2), jnp.zeros(2)]
    found = coefficients(lambda at: {"e": jnp.exp(at)}, path, nested=nested)
    rate = np.array([1.0, -2.0])
    expected = [np.exp([0.0, 0.5]) * rate**j / f for j, f in enumerate((1, 1, 2, 6))]
    np.testing.assert_allclose([c["e"] for c in found], expected, rtol=1e-14)


@pytest.mark.parametrize("nested", [False, True])
def test_coefficients_along_a_curved_path_are_those_of_the_composition(nested):
    """sin(1 + e - 2 e^2 + e^3/2): its derivatives by e, taken one after the other."""
    path = [jnp.array(c) for c in (1.0, 1.0, -2.0, 0.5)]
    found = coefficients(jnp.sin, path, nested=nested)
    s, c = np.sin(1.0), np.cos(1.0)
    cubic = 0.5 * c + 2 * s - c / 6  # a3 c - a1 a2 s - a1^3 c / 6
    np.testing.assert_allclose(found, [s, c, -2 * c - s / 2, cubic], rtol=1e-13)


@pytest.mark.parametrize(("theirs", "ours"), [(jax.nn.relu, relu), (jax.nn.softplus, softplus)])
def test_our_activations_are_those_of_jax(theirs, ours):
    z = jnp.array([-40.0, -1.5, -1e-9, 0.0, 1e-9, 0.7, 40.0])
    slope = lambda f: jax.vmap(jax.grad(f))  # noqa: E731
    np.testing.assert_allclose(ours(z), theirs(z), rtol=1e-14)
    np.testing.assert_allclose(slope(ours)(z), slope(theirs)(z), rtol=1e-14)
    np.testing.assert_allclose(slope(jax.grad(ours))(z), slope(jax.grad(theirs))(z), atol=1e-14)


@pytest.mark.parametrize("activation", [jax.nn.relu, jax.nn.softplus])
def test_activations_of_jax_are_replaced_by_ours(activation):
    network, theta = split(eqx.nn.MLP(3, 2, 4, 2, activation=activation, key=jr.key(0)))
    x = jr.normal(jr.key(1), (2, 3))
    assert taylor_obstacle(network, theta, x) is None
    np.testing.assert_allclose(network.expandable()(theta, x), network(theta, x), rtol=1e-14)


def test_what_keeps_taylor_arithmetic_away_is_named():
    network, theta = split(Recurrent(scanned=True, key=jr.key(0)))
    assert "scan" in (taylor_obstacle(network, theta, jnp.ones((1, 4))) or "")
