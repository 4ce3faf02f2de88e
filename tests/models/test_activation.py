"""Activations by name and their normalisation, against closed forms and SciPy's quadrature."""

import math
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import erf, expit
from scipy.stats import norm

import nthsim as nth
from nthsim.models.activation import (
    ACTIVATIONS,
    kinked,
    kinks,
    normalisation,
    resolve,
    resolve_c_sigma,
)

# Each as a function of one Python float, written without JAX.
IN_NUMPY = {
    "erf": erf,
    "gelu": lambda z: z * norm.cdf(z),
    "identity": lambda z: z,
    "relu": lambda z: max(z, 0.0),
    "sigmoid": expit,
    "silu": lambda z: z * expit(z),
    "sin": np.sin,
    "softplus": lambda z: np.log1p(np.exp(z)),
    "tanh": np.tanh,
}

# (activation, its c_sigma in closed form, or to ten digits where there is none)
NORMALISATIONS = [
    ("erf", math.pi / (2 * math.asin(2 / 3))),
    ("erf", 2.1525788606),
    ("tanh", 2.5361754332),
    ("relu", 2.0),
    ("identity", 1.0),
    ("sin", 2 / (1 - math.exp(-2))),
    (lambda z: jnp.maximum(z, 0.1 * z), 2 / 1.01),
    (jnp.abs, 1.0),
]


def test_the_reference_table_names_every_activation():
    assert set(IN_NUMPY) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_name_means_the_function_of_that_name(name):
    z = np.linspace(-3.0, 3.0, 13)
    expected = [IN_NUMPY[name](value) for value in z]
    # A few units in the last place, between two implementations of the same special function.
    np.testing.assert_allclose(resolve(name)(jnp.asarray(z)), expected, rtol=1e-13, atol=1e-15)


def test_a_callable_is_its_own_resolution():
    assert resolve(jnp.cos) is jnp.cos


@pytest.mark.parametrize(("activation", "expected"), NORMALISATIONS)
def test_normalisation_has_its_closed_form(activation, expected):
    # The listed values have ten digits.
    np.testing.assert_allclose(normalisation(activation), expected, rtol=1e-10)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_normalisation_agrees_with_adaptive_quadrature(name):
    halves = [
        quad(lambda z: IN_NUMPY[name](z) ** 2 * norm.pdf(z), *ends, epsabs=1e-13)[0]
        for ends in [(-12, 0), (0, 12)]
    ]
    np.testing.assert_allclose(normalisation(name), 1 / sum(halves), rtol=1e-11)


@pytest.mark.parametrize(
    ("activation", "moment"),
    [
        (lambda z: jnp.sin(60 * z), 0.5),
        (lambda z: jnp.exp(-((200 * z) ** 2)), 1 / np.sqrt(1 + 4 * 200**2)),
        (lambda z: jnp.sin(60 * z.astype(jnp.float32)), 0.5),
    ],
)
def test_normalisation_of_a_steep_or_fast_activation_is_its_closed_form(activation, moment):
    # The last in single precision: sines of numbers up to 720, whose rounding averages out.
    np.testing.assert_allclose(normalisation(activation), 1 / moment, rtol=1e-5)
    if activation(jnp.zeros(1)).dtype == jnp.float64:
        np.testing.assert_allclose(normalisation(activation), 1 / moment, rtol=1e-9)


def test_an_activation_that_no_quadrature_settles_is_refused():
    with pytest.raises(ValueError, match="that quadrature settles, but between 1024 and 2048"):
        normalisation(lambda z: jnp.sin(1e6 * z**2))


def test_normalisation_is_a_number_inside_jit_and_vmap():
    def second_moment(x):
        return x / normalisation("silu")

    eager = second_moment(jnp.ones(3))
    np.testing.assert_array_equal(jax.jit(jax.vmap(second_moment))(jnp.ones(3)), eager)


def test_normalisation_in_float32_is_right_to_float32():
    with jax.enable_x64(False):
        in_float32 = normalisation("erf")
    assert isinstance(in_float32, float)
    # Float32 has an epsilon of 1.2e-7; the sum itself is taken in float64.
    np.testing.assert_allclose(in_float32, 2.1525788606, rtol=1e-6)


def test_auto_is_the_normalisation_and_a_number_is_itself():
    assert resolve_c_sigma("auto", "tanh") == normalisation("tanh")
    assert resolve_c_sigma(1.5, "tanh") == 1.5


def test_an_unknown_name_is_answered_with_the_known_ones():
    names = "'erf', 'gelu', 'identity', 'relu', 'sigmoid', 'silu', 'sin', 'softplus', 'tanh'"
    sentence = f"`activation` must be a callable or one of {names}, but is 'foo'."
    with pytest.raises(ValueError, match=re.escape(sentence)):
        resolve("foo")


def test_an_activation_with_parameters_is_refused():
    with pytest.raises(ValueError, match=r"^`activation` must be hashable, .*, but is PReLU"):
        resolve(eqx.nn.PReLU())


@pytest.mark.parametrize(
    ("activation", "integral"),
    [
        (jnp.zeros_like, "0, of"),
        (lambda z: jnp.full_like(z, jnp.inf), "inf, of"),
        (jnp.log, "nan, of"),
        (lambda z: jnp.exp(z**2 / 4), "9.57"),  # E exp(z^2 / 2) diverges; 24 / sqrt(2 pi) of it
    ],
)
def test_an_activation_that_cannot_be_normalised_is_refused(activation, integral):
    sentence = "`activation` must have a finite, nonzero second moment under N(0, 1), "
    with pytest.raises(ValueError, match=re.escape(sentence) + f"but .* is {integral}"):
        normalisation(activation)


def test_an_activation_that_is_not_elementwise_is_refused():
    with pytest.raises(ValueError, match=r"^`activation` must act elementwise, but maps an array"):
        normalisation(jnp.sum)


@pytest.mark.parametrize(
    "activation",
    [
        lambda z: jnp.tanh(z) * jnp.mean(jnp.abs(z)),
        lambda z: jnp.where(z.size > 64, z, jnp.tanh(z)),
        jax.nn.softmax,
        lambda z: z - jnp.mean(z),
    ],
)
def test_a_limit_kernel_of_an_activation_that_is_not_elementwise_is_refused(activation):
    with pytest.raises(ValueError, match=r"^`activation` must act elementwise, but maps -2.7 to "):
        nth.limit_kernel("fcn", jnp.eye(2), depth=1, activation=activation)


@pytest.mark.parametrize("c_sigma", [0.0, -1.0, math.inf, math.nan])
def test_a_c_sigma_that_is_not_positive_is_refused(c_sigma):
    sentence = f"`c_sigma` must be a finite positive number, but is {c_sigma}."
    with pytest.raises(ValueError, match=re.escape(sentence)):
        resolve_c_sigma(c_sigma, "tanh")


def test_a_c_sigma_of_another_name_is_refused():
    sentence = "`c_sigma` must be 'auto' or a finite positive number, but is 'tanh'."
    with pytest.raises(ValueError, match=re.escape(sentence)):
        resolve_c_sigma("tanh", "tanh")


def test_gelu_is_not_the_tanh_approximation():
    z = jr.normal(jr.key(0), (5,))
    approximation = jax.nn.gelu(z, approximate=True)
    assert jnp.abs(resolve("gelu")(z) - approximation).max() > 1e-5


@pytest.mark.parametrize("activation", [resolve("relu"), jnp.abs, jax.nn.hard_tanh])
def test_kink_is_found(activation):
    assert kinked(activation)


def test_kinks_are_where_slopes_or_values_jump():
    assert kinks(jax.nn.relu6) == (0, 6)
    assert kinks(lambda z: jnp.clip(z, -0.3, 0.3)) == (-0.3, 0.3)
    assert kinks(jnp.abs) == kinks(lambda z: jnp.sqrt(jnp.abs(z))) == (0,)
    assert kinks(jnp.round) == tuple(np.arange(-15.5, 16))


def test_normalisation_of_an_activation_with_kinks_anywhere_is_its_closed_form():
    c = 0.3
    density = math.exp(-(c**2) / 2) / math.sqrt(2 * math.pi)
    inside = math.erf(c / math.sqrt(2))
    moment = inside - 2 * c * density + c**2 * (1 - inside)
    found = normalisation(lambda z: jnp.clip(z, -c, c))
    np.testing.assert_allclose(found, 1 / moment, rtol=1e-12)


def steep(z):
    return jnp.tanh(100.0 * z)


@pytest.mark.parametrize("activation", [*map(resolve, ("gelu", "identity", "softplus")), steep])
def test_smooth_activation_has_no_kink(activation):
    assert not kinked(activation)
