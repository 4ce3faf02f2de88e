"""Jets against derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nthsim.kernels.gram import coefficient, splits, subsets

pytestmark = pytest.mark.compiled


def test_subsets_come_smaller_first():
    assert list(subsets((3, 4, 5)))[:5] == [(), (3,), (4,), (5,), (3, 4)]
    assert len(list(subsets((3, 4, 5)))) == 8


def test_splits_are_the_terms_of_a_product():
    assert list(splits((3, 4))) == [((), (3, 4)), ((3,), (4,)), ((4,), (3,)), ((3, 4), ())]


def test_coefficient_is_a_mixed_derivative_along_the_jet():
    # f(x + a s + b t + c s t) differentiated by s and t at zero.
    f = lambda x: jnp.sin(x) * jnp.exp(x)  # noqa: E731
    x, a, b, c = 0.3, 0.7, -1.1, 0.4
    moved = lambda s, t: f(x + a * s + b * t + c * s * t)  # noqa: E731
    expected = jax.grad(jax.grad(moved), 1)(0.0, 0.0)
    jet = {(): x, (3,): a, (4,): b, (3, 4): c}
    np.testing.assert_allclose(coefficient(f, jet, (3, 4)), expected, rtol=1e-13)
    np.testing.assert_allclose(coefficient(f, jet, ()), f(x), rtol=1e-15)
