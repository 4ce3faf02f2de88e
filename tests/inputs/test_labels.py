"""Labels become targets, outputs tell classes, and a loss gets only targets that it can mean."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import nthsim as nth
from nthsim.dynamics.accuracy import accuracy
from nthsim.inputs.loss import Residual

X = np.arange(10.0).reshape(5, 2) ** 2


class Scaled(eqx.Module):
    """Inputs times a weight each."""

    w: jax.Array

    def __call__(self, x):
        return self.w * x


def ones(k: int) -> Scaled:
    return Scaled(jnp.ones(k))


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["b", "a", "b", "b", "a"], ("a", "b")),
        (np.array([8, 3, 8, 8, 3], np.uint8), (3, 8)),
        ([8.0, 3.0, 8.0, 8.0, 3.0], (3, 8)),
        (np.array([True, False, True, True, False]), (False, True)),
        (pd.Series(["b", "a", "b", "b", "a"]), ("a", "b")),
        (pd.Categorical(["x", "z", "x", "x", "z"], categories=["z", "y", "x"]), ("z", "x")),
    ],
)
def test_two_classes_are_minus_and_plus_one_and_keep_their_names(labels, classes):
    data = nth.Dataset.labelled(X, labels)
    np.testing.assert_array_equal(data.y, [1, -1, 1, 1, -1])
    assert data.classes == classes
    assert data.normalised().classes == classes
    assert str(data).endswith(f"classes {classes[0]}, {classes[1]}")


def test_more_classes_are_centred_one_hot_rows_as_those_of_digits():
    data = nth.Dataset.labelled(X, ["u", "w", "v", "u", "v"], X[:2], ["w", "v"])
    np.testing.assert_allclose(data.y, np.eye(3)[[0, 2, 1, 0, 1]] - 1 / 3, atol=1e-15)
    assert data.y_test is not None
    np.testing.assert_allclose(data.y_test, np.eye(3)[[2, 1]] - 1 / 3, atol=1e-15)
    assert nth.digits(3, 8, 5, n_train=6).classes == (3, 8, 5)


def test_the_order_of_classes_may_be_given_and_two_of_them_get_columns():
    data = nth.Dataset.labelled(X, list("abbab"), classes=["b", "a"], one_hot=True)
    np.testing.assert_array_equal(data.y[:2], [[-0.5, 0.5], [0.5, -0.5]])
    assert data.classes == ("b", "a")


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (["a", None, "b", "a", "b"], "labels[0] is 'a' and labels[1] is None."),
        ([1, 2, np.nan, 1, 2], "labels[0] is 1 and labels[2] is nan."),
        ([1, "a", 2, 1, 2], "labels[0] is 1 and labels[1] is 'a'."),
        ([0.5, 1.5, 0.5, 0.5, 1.5], "labels[0] is 0.5."),
        (["a"] * 5, "`classes` must be at least two different labels, but are ('a',)."),
        ([["a"]] * 5, "`labels` must be all integers"),
        (np.eye(5), "`labels` must have shape (n,) with n ≥ 1, but has (5, 5)."),
        (["a", "b"], "`y` must have shape (5,) or (5, k) like `x`, but has shape (2,)."),
    ],
)
def test_labels_that_name_no_class_are_refused(labels, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        nth.Dataset.labelled(X, labels)


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (
            lambda: nth.Dataset.labelled(X, np.ma.masked_equal([1, 2, 1, 3, 1], 2)),
            "`labels` must have no masked entries",
        ),
        (lambda: nth.Dataset(X, [1.0, -1, 1, 1, -1], classes=("a", "a")), "must be different"),
        (lambda: nth.Dataset.labelled(X, list("abbab"), classes="ab"), "`classes` must be a sequ"),
    ],
)
def test_hidden_labels_and_classes_that_are_one_are_refused(made, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        made()


def test_columns_of_test_inputs_in_another_order_are_refused():
    frame = pd.DataFrame(X, columns=["a", "b"])
    with pytest.raises(
        ValueError, match=r"`x_test` must have the columns of `x`, \['a', 'b'\], but"
    ):
        nth.Dataset(frame, X[:, 0], frame[["b", "a"]])


@pytest.mark.parametrize("y_test", [[0.3, 0.2], [1.0, 0.0]])
def test_test_targets_that_are_no_classes_have_no_accuracy(y_test):
    x, y = X[:, :1], np.array([[1.0], [-1], [1], [1], [-1]])
    data = nth.Dataset(x, y, x[:2], np.array(y_test)[:, None])
    run = nth.gradient_flow(ones(1), data, [0.0], progress=False)
    assert run.accuracy is not None
    assert run.test_accuracy is None


def test_test_label_that_is_no_class_is_refused():
    sentence = "`labels_test` must hold labels among the classes, but labels_test[1] is 'c'."
    with pytest.raises(ValueError, match=re.escape(sentence)):
        nth.Dataset.labelled(X, list("abbab"), X[:2], ["a", "c"])


def test_tables_in_two_orders_are_refused_and_in_one_taken():
    frame = pd.DataFrame(X, columns=["a", "b"])
    shuffled = frame["a"].sample(frac=1, random_state=0)
    array = xr.DataArray(X, dims=("row", "column"), coords={"row": range(5)})
    for made in (
        lambda: nth.Dataset(frame, shuffled),
        lambda: nth.Dataset(X, X[:, 0], frame, shuffled),
        lambda: nth.Dataset.labelled(frame, shuffled.astype(int)),
        lambda: nth.Dataset(array, array[::-1, 0]),
    ):
        with pytest.raises(ValueError, match="must have the index of `x"):
            made()
    np.testing.assert_array_equal(nth.Dataset(frame, shuffled.sort_index()).y, X[:, 0])
    np.testing.assert_array_equal(nth.Dataset(frame, shuffled.to_numpy()).y, shuffled)
    np.testing.assert_array_equal(nth.Dataset(array, array[:, 0]).y, X[:, 0])


def test_accuracy_is_the_part_of_the_points_whose_class_the_outputs_tell():
    x = np.array([[2.0, 1, 0], [0, 2, 1], [1, 1, 0], [0, 0, 3]])  # the third row is a tie
    data = nth.Dataset.labelled(x, [0, 0, 1, 2], x[3:], [1])
    run = nth.gradient_flow(ones(3), data, [0.0], progress=False)
    assert run.accuracy == np.array([0.5])
    assert run.test_accuracy == np.array([0.0])
    assert ", accuracy 0.5" in str(run)


def test_accuracy_of_a_single_output_is_that_of_its_sign():
    data = nth.Dataset(np.array([[1.0], [-1], [2], [0]]), [[1.0], [1], [1], [-1]])
    study = nth.compare(ones(1), data, (2,), [0.0, 0.1], progress=False)
    assert study.exact.accuracy is not None
    assert study.exact.accuracy[0] == 0.5
    assert "acc." in str(study)


def test_targets_that_are_no_classes_have_no_accuracy():
    x = np.ones((3, 1))
    run = nth.gradient_flow(ones(1), nth.Dataset(x, [[1.0], [-1.0], [0.5]]), [0.0], progress=False)
    assert run.accuracy is None
    assert "acc" not in str(run)


@pytest.mark.parametrize(
    ("loss", "y", "sentence"),
    [
        (nth.logistic, [0, 1, 1], "only -1 and +1 for `logistic`, but holds 0; `Dataset.labelled`"),
        (nth.softmax_cross_entropy, [0, 1, 2], "a row of probabilities per input"),
        (
            nth.softmax_cross_entropy,
            [[1.0, 0, 0], [0, 1, 0], [1, -1, -1]],
            "rows of probabilities for `softmax_cross_entropy`, up to a number that is added to "
            "all of a row, but y[2] is array([ 1., -1., -1.]).",
        ),
    ],
)
def test_targets_that_a_loss_cannot_mean_are_refused(loss, y, sentence):
    with pytest.raises(ValueError, match=re.escape(f"`y` must hold {sentence}")):
        nth.gradient_flow(ones(3), nth.Dataset(np.ones((3, 3)), y), [0.0], loss=loss)


def test_probabilities_and_centred_rows_are_fine_for_the_cross_entropy():
    soft = np.array([[0.2, 0.3, 0.5], [1, 0, 0], [0, 0.5, 0.5]])
    losses = [
        nth.gradient_flow(
            ones(3),
            nth.Dataset(X[:3, :1] * [1, 2, 3], y),
            [0.0],
            loss=nth.softmax_cross_entropy,
            progress=False,
        ).loss[0]
        for y in (soft, soft - 1 / 3)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-14)


def test_columns_of_test_targets_in_another_order_are_refused():
    x, y = np.ones((2, 1)), pd.DataFrame([[1.0, 2.0], [3.0, 5.0]], columns=["a", "b"])
    with pytest.raises(ValueError, match=r"`y_test` must have the columns of `y`, \['a', 'b'\]"):
        nth.Dataset(x, y, x, y[["b", "a"]])


@pytest.mark.parametrize("change", ["order", "axes"])
def test_axes_of_xarray_that_stand_otherwise_are_refused(change):
    x = xr.DataArray(np.eye(2), dims=("point", "pixel"), coords={"pixel": ["a", "b"]})
    other = x.sel(pixel=["b", "a"]) if change == "order" else x.transpose()
    with pytest.raises(ValueError, match="`x_test` must have the columns of `x`"):
        nth.Dataset(x, [1.0, -1.0], other)
    assert nth.Dataset(x, [1.0, -1.0], x[:1]).n_test == 1


def test_accuracy_by_a_loss_of_ones_own_is_of_the_class_whose_target_has_the_least():
    x = np.array([[1.0, 0.3], [-0.5, 1.0], [0.2, -1.0]])
    last = eqx.nn.Linear(2, "scalar", key=jr.key(0))
    probability = eqx.nn.Sequential([last, eqx.nn.Lambda(jax.nn.sigmoid)])
    entropy = lambda f, t: -jnp.log(jnp.where(t > 0, f, 1 - f))  # noqa: E731
    data = nth.Dataset(x, [1.0, -1.0, -1.0])
    flow = nth.gradient_flow(probability, data, [0.0, 30.0], loss=entropy, progress=False)
    np.testing.assert_array_equal(flow.accuracy, np.mean((flow.f > 0.5) == [1, 0, 0], axis=1))
    assert flow.accuracy is not None
    assert flow.accuracy[-1] == 1


def test_accuracy_by_a_loss_of_ones_own_needs_no_outputs_of_the_targets_shape():
    x = np.array([[1.0, 0.3], [-0.5, 1.0], [0.2, -1.0]])
    last, data = eqx.nn.Linear(2, "scalar", key=jr.key(0)), nth.Dataset(x, [1.0, -1.0, -1.0])
    rows = nth.Dataset(x, np.eye(2)[[0, 1, 1]])
    of_row = lambda f, t: jax.nn.softplus(f) - f * t[0]  # noqa: E731
    flow = nth.gradient_flow(last, rows, [0.0, 1.0], loss=of_row, progress=False)
    np.testing.assert_array_equal(flow.accuracy, np.mean((flow.f > 0) == [1, 0, 0], axis=1))
    spread = lambda f, t: 0.5 * jnp.exp(-f[1]) * (f[0] - t) ** 2 + 0.5 * f[1]  # noqa: E731
    two = eqx.nn.Linear(2, 2, key=jr.key(1))
    flow = nth.gradient_flow(two, data, [0.0, 1.0], loss=spread, progress=False)
    np.testing.assert_array_equal(flow.accuracy, np.mean((flow.f[..., 0] > 0) == [1, 0, 0], axis=1))


def test_accuracy_by_a_loss_of_weighted_classes_is_that_of_the_classes():
    x = np.array([[1.0, 0.3], [-0.5, 1.0], [0.2, -1.0], [0.9, 0.9], [-0.3, -0.8]])
    single = eqx.nn.Linear(2, "scalar", key=jr.key(0))
    data = nth.Dataset(x, [1.0, -1.0, -1.0, -1.0, 1.0])
    weighted = lambda f, t: jnp.where(t > 0, 9.0, 1.0) * jax.nn.softplus(-t * f)  # noqa: E731
    flow = nth.gradient_flow(single, data, [0.0, 0.3], loss=weighted, progress=False)
    right = np.sign(flow.f) == np.asarray(data.y)
    np.testing.assert_array_equal(flow.accuracy, np.mean(right, axis=1))
    rows, weights = nth.Dataset(x, np.eye(3)[[0, 1, 2, 1, 0]]), jnp.array([1.0, 7.0, 0.3])
    entropy = lambda f, t: -jnp.sum(weights * t * jax.nn.log_softmax(f))  # noqa: E731
    several = eqx.nn.Linear(2, 3, key=jr.key(1))
    flow = nth.gradient_flow(several, rows, [0.0, 0.3], loss=entropy, progress=False)
    right = flow.f.argmax(axis=2) == np.asarray(rows.y).argmax(axis=1)
    np.testing.assert_array_equal(flow.accuracy, np.mean(right, axis=1))


def test_loss_that_treats_classes_in_different_ways_has_no_accuracy():
    x = np.array([[1.0, 0.3], [-0.5, 1.0], [0.2, -1.0]])
    single, data = eqx.nn.Linear(2, "scalar", key=jr.key(0)), nth.Dataset(x, [1.0, -1.0, -1.0])
    margins = lambda f, t: jax.nn.softplus(jnp.where(t > 0, 2.0, 0.5) - t * f)  # noqa: E731
    assert (
        nth.gradient_flow(single, data, [0.0, 1.0], loss=margins, progress=False).accuracy is None
    )


LOSSES_OF_CLASSES = {
    "exponential": lambda f, t: jnp.exp(-t * f),
    "focal": lambda f, t: (
        jnp.where(t > 0, 0.8, 0.2) * jax.nn.sigmoid(-t * f) ** 2 * -jnp.log(jax.nn.sigmoid(t * f))
    ),
    "distance": lambda f, t: jnp.sum(jnp.abs(f - t)),
    "entropy": lambda f, t: -jnp.sum(t * jax.nn.log_softmax(f)),
}


@pytest.mark.parametrize("name", LOSSES_OF_CLASSES)
def test_accuracy_by_losses_of_others_is_that_of_the_sign_or_the_largest(name):
    single = name in ("exponential", "focal")
    f = jr.normal(jr.key(3), (4, 9) if single else (4, 9, 3))
    own = np.array([1, 2, 2, 1, 1, 2, 1, 2, 2])  # the first class is in no training point
    y = jnp.asarray(2.0 * own - 3 if single else np.eye(3)[own])
    residual = Residual(LOSSES_OF_CLASSES[name], y, f.shape[2:])
    told = np.where(np.asarray(f) > 0, 2, 1) if single else np.asarray(f).argmax(axis=2)
    np.testing.assert_array_equal(
        accuracy(np.asarray(f), y, residual), np.mean(told == own, axis=1)
    )


def test_accuracy_counts_test_points_of_classes_that_no_training_point_has():
    f, y = np.eye(3)[None, [0, 1, 2]], jnp.eye(3)[jnp.array([1, 2, 1])]
    residual = Residual(LOSSES_OF_CLASSES["entropy"], y, (3,))
    np.testing.assert_array_equal(accuracy(f, jnp.eye(3), residual), [1.0])


@pytest.mark.parametrize("sign", [-1, 1])
def test_accuracy_by_two_outputs_knows_which_of_them_is_which_class(sign):
    f = np.asarray(jr.normal(jr.key(4), (2, 6, 2)))
    y = jnp.array([1.0, -1, 1, 1, -1, -1])
    residual = Residual(lambda f, t: jax.nn.softplus(-sign * t * (f[1] - f[0])), y, (2,))
    right = np.sign(sign * (f[..., 1] - f[..., 0])) == np.asarray(y)
    np.testing.assert_array_equal(accuracy(f, y, residual), right.mean(axis=1))


def test_margins_are_found_beside_large_weights_in_float32():
    def margins(f, t):
        scores = f - jnp.array([0.5, 0.0], f.dtype) * t
        return -jnp.sum(jnp.array([1.0, 100.0], f.dtype) * t * jax.nn.log_softmax(scores))

    y = jnp.eye(2, dtype=jnp.float32)
    assert accuracy(np.zeros((1, 2, 2), np.float32), y, Residual(margins, y, (2,))) is None


def test_accuracy_in_half_precision_is_found_in_single():
    y = jnp.eye(2, dtype=jnp.bfloat16)
    residual = Residual(LOSSES_OF_CLASSES["entropy"], y, (2,))
    f = np.array([[[2.0, 1.0], [3.0, 1.0]]], np.float32)
    np.testing.assert_array_equal(accuracy(f, y, residual), [0.5])


@pytest.mark.parametrize("logits", [jnp.square, jnp.abs, jnp.sin], ids=["square", "abs", "sin"])
def test_outputs_that_count_by_something_else_have_no_accuracy(logits):
    y = jnp.eye(3)
    entropy = lambda f, t: -jnp.sum(t * jax.nn.log_softmax(logits(f)))  # noqa: E731
    assert accuracy(np.zeros((1, 3, 3)), y, Residual(entropy, y, (3,))) is None
    single = lambda f, t: jax.nn.softplus(-t * jnp.sin(f))  # noqa: E731
    y = jnp.array([1.0, -1.0])
    assert accuracy(np.zeros((1, 2)), y, Residual(single, y, ())) is None
