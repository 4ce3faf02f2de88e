"""Points on the sphere are uniform, and their teacher is what it is said to be."""

import re

import equinox as eqx
import jax
import numpy as np
import pytest

from nthsim.inputs.builtin import sphere
from nthsim.inputs.dataset import Dataset

LABELS = ("linear", "sign", "gaussian")


def _leaves(data: Dataset) -> list[np.ndarray]:
    """`x`, `y`, `x_test` and `y_test`, where they are there."""
    return [np.asarray(leaf) for leaf in jax.tree.leaves(data)]


@pytest.mark.parametrize("dim", [1, 2, 5])
@pytest.mark.parametrize("labels", LABELS)
def test_inputs_have_unit_norm_and_targets_are_scalar(dim, labels):
    x, y, x_test, y_test = _leaves(sphere(7, 3, dim=dim, labels=labels))
    assert [x.shape, y.shape, x_test.shape, y_test.shape] == [(7, dim), (7,), (3, dim), (3,)]
    norms = np.linalg.norm(np.concatenate([x, x_test]), axis=1)
    np.testing.assert_allclose(norms, 1.0, rtol=1e-12)


def test_one_direction_of_length_root_d_teaches_training_and_test_points():
    x, y, x_test, y_test = _leaves(sphere(7, 4, dim=5))
    w = np.linalg.lstsq(x, y)[0]
    np.testing.assert_allclose(np.linalg.norm(w), np.sqrt(5), rtol=1e-12)
    np.testing.assert_allclose(x_test @ w, y_test, rtol=1e-12)


def test_sign_is_the_sign_of_the_linear_teacher():
    linear = _leaves(sphere(20, 9, dim=3, seed=2))
    x, y, x_test, y_test = _leaves(sphere(20, 9, dim=3, seed=2, labels="sign"))
    np.testing.assert_array_equal(x, linear[0])
    np.testing.assert_array_equal(x_test, linear[2])
    np.testing.assert_array_equal(y, np.sign(linear[1]))
    np.testing.assert_array_equal(y_test, np.sign(linear[3]))
    assert set(y.tolist()) == {-1.0, 1.0}


def test_inputs_do_not_depend_on_the_teacher():
    first, *others = (sphere(5, 2, dim=3, labels=labels) for labels in LABELS)
    for other in others:
        np.testing.assert_array_equal(first.x, other.x)
        np.testing.assert_array_equal(first.x_test, other.x_test)


def test_inputs_are_uniform_to_second_moment():
    x = np.asarray(sphere(20_000, dim=3).x)
    # Standard errors at n = 20,000 with the seed fixed: 0.004 of a mean, 0.002 of a moment.
    np.testing.assert_allclose(x.mean(axis=0), 0.0, atol=0.02)
    np.testing.assert_allclose(x.T @ x / len(x), np.eye(3) / 3, atol=0.01)


@pytest.mark.parametrize("labels", ["linear", "gaussian"])
def test_targets_have_variance_one(labels):
    y = np.asarray(sphere(20_000, dim=4, labels=labels).y)
    np.testing.assert_allclose([y.mean(), y.var()], [0.0, 1.0], atol=0.05)


def test_gaussian_targets_know_nothing_of_the_inputs():
    data = sphere(20_000, dim=4, labels="gaussian")
    # Standard error of a covariance: 1 / sqrt(4 n) = 0.0035.
    np.testing.assert_allclose(data.x.T @ data.y / data.n, 0.0, atol=0.015)


@pytest.mark.parametrize("labels", LABELS)
def test_training_points_do_not_depend_on_the_number_of_test_points(labels):
    alone, beside = (sphere(5, t, dim=3, labels=labels) for t in (0, 4))
    assert alone.x_test is None
    np.testing.assert_array_equal(alone.x, beside.x)
    # The product x @ w is summed in another order when it has more rows.
    np.testing.assert_allclose(alone.y, beside.y, rtol=1e-12)


def test_the_same_seed_draws_the_same_and_another_seed_another():
    first, again, other = (sphere(5, dim=3, seed=seed) for seed in (1, 1, 2))
    assert eqx.tree_equal(first, again)
    assert not np.any(np.asarray(first.x) == np.asarray(other.x))


def test_sphere_works_in_float32():
    with jax.enable_x64(False):
        data = sphere(5, 2, dim=3)
        assert data.x.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(np.float64(data.x), axis=1), 1.0, rtol=2e-7)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"n_train": 0}, "`n_train` must be an integer of at least 1, but is 0."),
        ({"n_train": True}, "`n_train` must be an integer of at least 1, but is True."),
        ({"n_test": -1}, "`n_test` must be an integer of at least 0, but is -1."),
        ({"dim": 0}, "`dim` must be an integer of at least 1, but is 0."),
        ({"seed": -1}, "`seed` must be an integer of at least 0, but is -1."),
        (
            {"labels": "cubic"},
            "`labels` must be one of 'linear', 'sign', 'gaussian', but is 'cubic'.",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(changed, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        sphere(**({"n_train": 4, "dim": 3} | changed))
