"""Losses, their residuals and their means, against NumPy and SciPy."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.special import expit, log_softmax, softmax

import nthsim as nth
from nthsim.inputs.loss import Residual

pytestmark = pytest.mark.compiled


def test_squared_error_residual_is_the_distance_over_n():
    f, y = jr.normal(jr.key(0), (2, 5))
    np.testing.assert_allclose(Residual(nth.squared_error, y, ())(f), (f - y) / 5, rtol=1e-14)


def test_logistic_residual_is_the_sigmoid_of_the_wrong_margin():
    f, y = jr.normal(jr.key(1), (5,)), jnp.array([1.0, -1.0, 1.0, 1.0, -1.0])
    expected = -np.asarray(y) * expit(-np.asarray(y * f)) / 5
    np.testing.assert_allclose(Residual(nth.logistic, y, ())(f), expected, rtol=1e-12)


def test_logistic_loss_stays_finite_far_out():
    np.testing.assert_allclose(nth.logistic(jnp.array(-800.0), jnp.array(1.0)), 800.0)
    assert nth.logistic(jnp.array(800.0), jnp.array(1.0)) == 0.0


def test_softmax_residual_is_the_probability_minus_the_target():
    f, y = jr.normal(jr.key(2), (4, 3)), jax.nn.one_hot(jnp.array([0, 2, 2, 1]), 3)
    residual = Residual(nth.softmax_cross_entropy, y, (3,))
    expected = (softmax(np.asarray(f), axis=1) - y) / 4
    np.testing.assert_allclose(residual(f), expected, atol=1e-14)
    np.testing.assert_allclose(residual(f.reshape(-1)), expected.reshape(-1), atol=1e-14)


def test_softmax_takes_centred_targets_for_what_they_mean():
    f, y = jr.normal(jr.key(3), (3,)), jnp.array([0.0, 1.0, 0.0])
    expected = -log_softmax(np.asarray(f))[1]
    for target in (y, y - 1 / 3):
        np.testing.assert_allclose(nth.softmax_cross_entropy(f, target), expected, rtol=1e-12)


def test_mean_loss_is_taken_over_samples_at_each_time():
    f, y = jr.normal(jr.key(4), (2, 3, 2)), jr.normal(jr.key(5), (3, 2))
    expected = 0.5 * np.mean(np.sum((np.asarray(f) - np.asarray(y)) ** 2, axis=2), axis=1)
    np.testing.assert_allclose(Residual(nth.squared_error, y, ()).means(f, y), expected, rtol=1e-14)


@pytest.mark.parametrize("loss", [nth.squared_error, nth.logistic, nth.softmax_cross_entropy])
def test_outputs_and_targets_of_two_shapes_are_refused(loss):
    with pytest.raises(ValueError, match=f"`{loss.__name__}` must compare outputs and targets of"):
        loss(jnp.zeros(3), jnp.zeros(2))
