"""Taylor coefficients along a path, and networks expanded by them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from networks import NETWORKS, Recurrent

from nthsim.expansions import Expansion, expansion, taylor_obstacle
from nthsim.losses import Residual, softmax_cross_entropy
from nthsim.models.activation import relu, softplus
from nthsim.network import split
from nthsim.series import coefficients


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


@pytest.fixture(scope="module")
def expanded():
    """A network of three outputs, a path of three terms, and seven inputs."""
    network, theta = split(NETWORKS["mlp of three outputs"])
    term = lambda key: jax.tree.map(lambda a: 0.1 * jr.normal(jr.key(key), a.shape), theta)  # noqa: E731
    x, y = jr.normal(jr.key(3), (7, 4)), jax.nn.one_hot(jnp.arange(7) % 3, 3)
    return network, (theta, term(1), term(2)), x, Residual(softmax_cross_entropy, y, (3,))


def test_chunks_of_inputs_do_not_change_the_expansion(expanded):
    network, path, x, residual = expanded
    whole = expansion(network, path[0], x, 3)
    assert whole.chunk == 7
    parts = Expansion(whole.network, 3, None)  # the last chunk is moved back to fit
    both = [(e.outputs(path, x), e.gradients(path, x, residual)) for e in (whole, parts)]
    for one, other in zip(*map(jax.tree.leaves, both), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)


def test_expansion_is_that_of_outputs_and_gradients_in_one_variable(expanded):
    """Against derivatives by the formal parameter of the loss's gradient with residuals held."""
    network, path, x, residual = expanded
    found = expansion(network, path[0], x, 3)
    at = lambda e: jax.tree.map(lambda a, b, c: a + e * b + e**2 * c, *path)  # noqa: E731
    f = lambda e: network(at(e), x).reshape(-1)  # noqa: E731
    d1, d2 = jax.jacfwd(f), jax.jacfwd(jax.jacfwd(f))
    terms = [f(0.0), d1(0.0), d2(0.0) / 2]
    np.testing.assert_allclose(found.outputs(path, x), jnp.stack(terms), rtol=1e-11, atol=1e-13)
    c = residual((terms[0] + terms[1] + terms[2]).reshape(7, 3))
    pulled = lambda e: jax.vjp(lambda t: network(t, x), at(e))[1](c)[0]  # noqa: E731
    expected = (pulled(0.0), jax.jacfwd(pulled)(0.0))
    for one, other in zip(
        jax.tree.leaves(found.gradients(path, x, residual)), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-13)


def test_nested_derivatives_give_the_same_expansion(expanded):
    network, path, x, residual = expanded
    by_jet = expansion(network, path[0], x, 3)
    nested = Expansion(by_jet.network, 7, "as if")
    pairs = [(e.outputs(path, x), e.gradients(path, x, residual)) for e in (by_jet, nested)]
    for one, other in zip(*map(jax.tree.leaves, pairs), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-13)
