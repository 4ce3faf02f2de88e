"""Gaussian expectations in closed form and by Hermite expansion, against SciPy's quadrature."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import dblquad

from nthsim.kernels.expectations import Erf, Identity, Relu, Sin
from nthsim.kernels.hermite import Hermite, SlowDecayWarning
from nthsim.models.activation import ACTIVATIONS, resolve

CLOSED = {"erf": Erf(), "identity": Identity(), "relu": Relu(), "sin": Sin()}

# Variances and covariances of two points in rows and three in columns: a variance of zero, points
# that are parallel, opposite and neither.
ROWS, COLUMNS = np.array([0.7, 2.0]), np.array([0.7, 0.0, 1.5])
CROSS = np.array([[0.7, 0.0, -0.4], [-np.sqrt(1.4), 0.0, 1.2]])


@pytest.mark.parametrize("name", CLOSED)
def test_expansion_agrees_with_closed_form(name):
    closed, expanded = CLOSED[name], Hermite.of(resolve(name))
    values, slopes = closed.pair(ROWS[1:], COLUMNS[[0, 2]], np.array([[0.9, -1.2]]))
    found = expanded.pair(ROWS[1:], COLUMNS[[0, 2]], np.array([[0.9, -1.2]]))
    # Both have rounding errors of some units in the last place; relu's slow coefficients leave
    # the rest that the warning is about, which is none at these correlations.
    np.testing.assert_allclose(found[0], values, rtol=1e-11)
    np.testing.assert_allclose(found[1], slopes, rtol=1e-11)
    np.testing.assert_allclose(expanded.mean(COLUMNS), closed.mean(COLUMNS), atol=1e-15)
    np.testing.assert_allclose(expanded.square(COLUMNS), closed.square(COLUMNS), rtol=1e-14)


@pytest.mark.parametrize("name", ["erf", "sin", "identity", "tanh", "softplus", "gelu"])
def test_expectations_at_the_edges_are_those_of_one_point(name):
    sigma = resolve(name)
    expectation = CLOSED.get(name, Hermite.of(sigma))
    values, slopes = expectation.pair(ROWS, COLUMNS, CROSS)
    slope = jax.vmap(jax.grad(sigma))
    # v = u, v = -c u, and v = 0.
    np.testing.assert_allclose(values[0, 0], expectation.square(ROWS[:1])[0], rtol=1e-13)
    at_zero = float(sigma(jnp.zeros(())))
    np.testing.assert_allclose(values[:, 1], at_zero * expectation.mean(ROWS), atol=1e-14)
    z, weights = np.polynomial.hermite_e.hermegauss(120)
    u, v = jnp.asarray(np.sqrt(2.0) * z), jnp.asarray(-np.sqrt(0.7) * z)
    weights = weights / weights.sum()
    # A hundred and twenty points give tanh, which has poles, to about eight digits.
    np.testing.assert_allclose(values[1, 0], weights @ (sigma(u) * sigma(v)), rtol=1e-7)
    np.testing.assert_allclose(slopes[1, 0], weights @ (slope(u) * slope(v)), rtol=1e-7)


@pytest.mark.parametrize("name", ["tanh", "softplus"])
def test_expansion_agrees_with_two_dimensional_quadrature(name):
    a, b, c = 2.0, 0.7, 0.8
    plain = {"tanh": np.tanh, "softplus": lambda z: np.logaddexp(z, 0.0)}[name]
    slope = {"tanh": lambda z: 1 / np.cosh(z) ** 2, "softplus": lambda z: 1 / (1 + np.exp(-z))}
    determinant = a * b - c**2

    def expected(function):
        def integrand(v, u):
            form = (b * u**2 - 2 * c * u * v + a * v**2) / determinant
            density = np.exp(-form / 2) / (2 * np.pi * np.sqrt(determinant))
            return function(u) * function(v) * density

        return dblquad(integrand, -12, 12, -8, 8, epsabs=1e-11)[0]

    values, slopes = Hermite.of(ACTIVATIONS[name]).pair(
        np.array([a]), np.array([b]), np.array([[c]])
    )
    np.testing.assert_allclose(values[0, 0], expected(plain), atol=1e-9)
    np.testing.assert_allclose(slopes[0, 0], expected(slope[name]), atol=1e-9)


def test_large_variances_and_blocks_of_rows_change_nothing():
    rng = np.random.default_rng(0)
    root = rng.standard_normal((130, 5))
    covariance = root @ root.T
    s = np.diag(covariance).copy()
    covariance[np.diag_indices(130)] = s
    expanded, closed = (e.pair(s, s, covariance) for e in (Hermite.of(resolve("erf")), Erf()))
    # Variances are up to 18, where coefficients of the derivative are 1e-8 of the first at 512.
    np.testing.assert_allclose(expanded[0], closed[0], atol=1e-12)
    np.testing.assert_allclose(expanded[1], closed[1], atol=1e-9)


def leaky(z):
    return jnp.where(z > 0, z, 0.1 * z)


def test_slow_coefficients_are_told_and_identical_points_do_not_suffer():
    s = np.ones(1)
    step = (1 + 0.1**2) / 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values, slopes = Hermite.of(leaky).pair(s, s, np.ones((1, 1)))
    # Twice the same point: E sigma^2 and E sigma'^2 are those of two half lines.
    np.testing.assert_allclose([values[0, 0], slopes[0, 0]], [step, step], rtol=1e-13)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        values, slopes = Hermite.of(leaky).pair(s, s, np.full((1, 1), 0.99))
    assert {w.category for w in caught} == {SlowDecayWarning}
    start = "`activation` has Hermite coefficients that decay slowly: expectations of the "
    told = [str(w.message).removeprefix(start) for w in caught]
    assert [one.split(" are off by up to ")[0] for one in told] == ["activation", "derivative"]
    bound = float(told[1].split("by up to ")[1].split()[0])
    # leaky = 0.9 relu + 0.1 z, whose expectations are known.
    both, once = Relu().pair(s, s, np.full((1, 1), 0.99))
    cross = 0.81 * once + 2 * 0.09 * 0.5 + 0.01
    assert 0 < abs(slopes[0, 0] - cross[0, 0]) <= bound * step
    np.testing.assert_allclose(values, 0.81 * both + 0.09 * 0.99 + 0.0099, rtol=1e-5)
