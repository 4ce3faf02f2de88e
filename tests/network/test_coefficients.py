"""Taylor coefficients along a path."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from networks import Recurrent

from nthsim.models.activation import ACTIVATIONS
from nthsim.models.plain import PLAIN
from nthsim.network.coefficients import coefficients, obstacle, pulled
from nthsim.network.expansion import taylor_obstacle
from nthsim.network.split import split

pytestmark = pytest.mark.compiled


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


@pytest.mark.parametrize("theirs", PLAIN, ids=lambda f: f.__name__)
def test_plain_activations_are_those_of_jax(theirs):
    """With two derivatives, away from kinks."""
    z = jnp.array([-40.0, -2.9, -1.5, -1e-9, 1e-9, 0.7, 1.1, 5.9, 40.0])
    binary = theirs is jnp.logaddexp
    functions = [
        (lambda a, f=f: f(a, jnp.sin(a))) if binary else f for f in (PLAIN[theirs], theirs)
    ]
    with jax.numpy_dtype_promotion("standard"):  # which JAX's own take for granted
        for _ in range(3):
            one, other = (jax.vmap(f)(z) for f in functions)
            # Rounding, relative to numbers of size one.
            np.testing.assert_allclose(one, other, rtol=1e-13, atol=1e-14)
            functions = [jax.grad(f) for f in functions]


def test_plain_activations_have_the_slopes_of_jax_at_their_kinks():
    kinks = jnp.array([-3.0, 0.0, 3.0, 6.0])
    for theirs in (jax.nn.relu, jax.nn.relu6, jax.nn.hard_sigmoid, jax.nn.hard_silu):
        with jax.numpy_dtype_promotion("standard"):
            expected = jax.vmap(jax.grad(theirs))(kinks)
        np.testing.assert_array_equal(jax.vmap(jax.grad(PLAIN[theirs]))(kinks), expected)


@pytest.mark.parametrize("theirs", [f for f in PLAIN if f is not jnp.logaddexp])
def test_activations_of_jax_are_replaced_by_plain_ones(theirs):
    network, theta = split(eqx.nn.MLP(3, 2, 4, 2, activation=theirs, key=jr.key(0)))
    assert taylor_obstacle(network, theta, jr.normal(jr.key(1), (2, 3))) is None


@pytest.mark.parametrize("function", [jax.scipy.special.erf, ACTIVATIONS["gelu"], jnp.tanh])
def test_transposed_taylor_arithmetic_is_that_of_the_transpose(function):
    """Of c(e) f'(z(e)), by derivatives by e that are nested here; JAX's erf' has one of its own."""
    path = [jnp.array([0.3, -0.7]), jnp.array([1.0, 0.4]), jnp.array([-0.2, 0.9])]
    weights = [jnp.array([0.5, 1.1]), jnp.array([0.3, -1.0]), jnp.array([0.7, 0.2])]
    held = [jnp.array([1.2, 0.8]), jnp.array([0.1, 0.6]), jnp.array([-0.4, 0.3])]
    found = pulled(lambda z, g: function(g * z), path, held, weights)

    def moved(terms, e):
        return terms[0] + e * terms[1] + e**2 * terms[2]

    def pull(e):
        gained = lambda z: function(moved(held, e) * z)  # noqa: E731
        return jax.vjp(gained, moved(path, e))[1](moved(weights, e))[0]

    first = jax.jacfwd(pull)
    expected = [pull(0.0), first(0.0), jax.jacfwd(first)(0.0) / 2]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("function", "name"), [(jax.nn.relu6, "relu6"), (jax.nn.mish, "logaddexp")]
)
def test_function_with_a_derivative_of_its_own_is_named(function, name):
    words = f"holds a function with a derivative of its own, {name}"
    assert obstacle(lambda z: jax.vmap(function)(z), jnp.ones(3)) == words


def test_what_keeps_taylor_arithmetic_away_is_named():
    network, theta = split(Recurrent(scanned=True, key=jr.key(0)))
    assert "scan" in (taylor_obstacle(network, theta, jnp.ones((1, 4))) or "")
