"""A data set holds arrays that fit together, and can centre and scale its inputs."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nthsim as nth
from nthsim.inputs.dataset import Dataset


def _normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("shape", [(1,), (3,), (4, 5), (2, 3, 1)])
@pytest.mark.parametrize("targets", [(), (1,), (3,)])
def test_arrays_are_kept_as_given_for_any_shape_of_input(shape, targets):
    x, x_test = _normal(5, *shape), _normal(3, *shape, seed=1)
    y, y_test = _normal(5, *targets), _normal(3, *targets, seed=1)
    data = Dataset(x, y, x_test, y_test)
    for kept, given in zip(jax.tree.leaves(data), (x, y, x_test, y_test), strict=True):
        assert isinstance(kept, jax.Array)
        np.testing.assert_array_equal(kept, given)
    assert (data.n, data.n_test, data.outputs) == (5, 3, targets[0] if targets else 1)


def test_without_test_points_there_are_none():
    data = Dataset(_normal(5, 2), _normal(5))
    assert data.x_test is None
    assert data.y_test is None
    assert data.n_test == 0


def test_test_inputs_may_come_without_targets():
    data = Dataset(_normal(5, 2), _normal(5), _normal(1, 2))
    assert data.n_test == 1
    assert data.y_test is None


@pytest.mark.parametrize("x64", [False, True])
def test_every_real_type_becomes_the_default_float_type(x64):
    with jax.enable_x64(x64):
        data = Dataset(
            np.array([[1], [2]], np.float16),
            [1, -1],
            np.ones((1, 1), np.longdouble),
            jnp.ones(1, jnp.bfloat16),
        )
        assert {leaf.dtype for leaf in jax.tree.leaves(data)} == {jnp.zeros(()).dtype}
        np.testing.assert_array_equal(data.x, [[1], [2]])


@pytest.mark.parametrize("x64", [False, True])
def test_inputs_of_integers_stay_integers_if_all_are(x64):
    with jax.enable_x64(x64):
        tokens = np.array([[2**24 + 1], [2]], np.uint32)
        data = Dataset(tokens, [1, -1], tokens[:1])
        assert data.x.dtype == tokens.dtype
        assert Dataset(tokens, [1, -1], tokens.astype(int)).x.dtype == jnp.zeros((), int).dtype
        np.testing.assert_array_equal(data.x, tokens)
        assert data.y.dtype == jnp.zeros(()).dtype
        assert Dataset(tokens % 7, [1, -1], [[0.5]]).x.dtype == jnp.zeros(()).dtype


def test_a_number_too_large_for_float32_is_refused_there():
    x = np.array([[1.0, 2.0], [1e39, 0.0]])
    assert Dataset(x, [0.0, 1.0]).x[1, 0] == 1e39
    sentence = re.escape("`x` must be finite, but x[1, 0] is inf in float32.")
    with jax.enable_x64(False), pytest.raises(ValueError, match=sentence):
        Dataset(x, [0.0, 1.0])


def test_data_set_passes_through_jit_and_back():
    data = Dataset(_normal(5, 2), _normal(5), _normal(3, 2))
    doubled = jax.jit(lambda d: jax.tree.map(lambda a: 2 * a, d))(data)
    assert isinstance(doubled, Dataset)
    np.testing.assert_array_equal(doubled.x, 2 * data.x)
    assert doubled.y_test is None


def test_data_set_can_be_made_of_traced_arrays():
    x, y = _normal(3, 2), _normal(3)
    data = jax.jit(Dataset)(x, y)
    np.testing.assert_array_equal(data.x, x)


def test_shapes_are_checked_under_jit_too():
    with pytest.raises(ValueError, match=re.escape("`y` must have shape (3,) or (3, k)")):
        jax.jit(Dataset)(_normal(3, 2), _normal(4))


X, Y = np.ones((5, 3)), np.ones(5)
BAD = [
    ((Y, Y), "`x` must have shape (n, d) or (n, ...), but has shape (5,)."),
    ((np.array(1.0), Y), "`x` must have shape (n, d) or (n, ...), but has shape ()."),
    ((X, Y[:4]), "`y` must have shape (5,) or (5, k) like `x`, but has shape (4,)."),
    ((X, np.array(1.0)), "`y` must have shape (5,) or (5, k) like `x`, but has shape ()."),
    ((X, X[None]), "`y` must have shape (5,) or (5, k) like `x`, but has shape (1, 5, 3)."),
    ((X, Y, X[:, :2]), "`x_test` must have shape (t, 3) like `x`, but has shape (5, 2)."),
    ((X, Y, X[0]), "`x_test` must have shape (t, 3) like `x`, but has shape (3,)."),
    (
        (np.ones((5, 2, 4)), Y, X),
        "`x_test` must have shape (t, 2, 4) like `x`, but has shape (5, 3).",
    ),
    (
        (X, Y, X[:2], Y[:3]),
        "`y_test` must have shape (2,) like `x_test` and `y`, but has shape (3,).",
    ),
    (
        (X, X, X[:2], X[:2, :1]),
        "`y_test` must have shape (2, 3) like `x_test` and `y`, but has shape (2, 1).",
    ),
    ((X, Y, None, Y), "`y_test` must come with `x_test`, but `x_test` is None."),
    ((X[:0], Y[:0]), "`x` must not be empty, but has shape (0, 3)."),
    ((X[:, :0], Y), "`x` must not be empty, but has shape (5, 0)."),
    ((X, X[:, :0]), "`y` must not be empty, but has shape (5, 0)."),
    ((X, Y, X[:0]), "`x_test` must not be empty, but has shape (0, 3)."),
    ((X, [0, 1, 2, np.nan, 0]), "`y` must be finite, but y[3] is nan in float64."),
    (
        (np.where(np.eye(5, 3), 1.0, -np.inf), Y),
        "`x` must be finite, but x[0, 1] is -inf in float64.",
    ),
    ((X, Y, X * np.inf), "`x_test` must be finite, but x_test[0, 0] is inf in float64."),
    ((X.astype(object), Y), "`x` must be an array of real numbers, but has dtype object."),
    ((X, Y * 1j), "`y` must be an array of real numbers, but has dtype complex128."),
    (
        (X, list("abcde")),
        "`y` must be an array of real numbers, but has dtype <U1; `Dataset.labelled` takes labels.",
    ),
    (
        (X, Y > 0),
        "`y` must be an array of real numbers, but has dtype bool; "
        "`Dataset.labelled` takes labels.",
    ),
    (
        ([[1], [1, 2]], Y),
        "`x` must be an array of real numbers, but its rows have unequal lengths.",
    ),
]


@pytest.mark.parametrize(("arrays", "sentence"), BAD)
def test_arrays_that_do_not_fit_are_refused(arrays, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        Dataset(*arrays)


@pytest.mark.parametrize("kind", ["memory map", "another byte order", "Fortran's order", "half"])
def test_arrays_however_they_lie_are_copied_as_they_are(kind, tmp_path):
    x = _normal(5, 3)
    np.save(tmp_path / "x.npy", x)
    given = {
        "memory map": np.load(tmp_path / "x.npy", mmap_mode="r+"),
        "another byte order": x.astype(x.dtype.newbyteorder()),
        "Fortran's order": np.asfortranarray(x),
        "half": x.astype(np.float16),
    }[kind]
    data = Dataset(given, given[:, 0])
    kept = np.array(given)
    given[:] = 0
    np.testing.assert_array_equal(data.x, kept)
    np.testing.assert_array_equal(data.y, kept[:, 0])


def test_normalised_inputs_are_centred_by_the_training_mean():
    data = Dataset([[1.0, 0.0], [3.0, 0.0]], [0.0, 1.0], [[2.0, 5.0], [6.0, 3.0]], [1.0, 2.0])
    normal = data.normalised()
    np.testing.assert_array_equal(normal.x, [[-1.0, 0.0], [1.0, 0.0]])
    np.testing.assert_array_equal(normal.x_test, [[0.0, 1.0], [0.8, 0.6]])
    np.testing.assert_array_equal(normal.y, data.y)
    np.testing.assert_array_equal(normal.y_test, data.y_test)


@pytest.mark.parametrize("n", [2, 7])
@pytest.mark.parametrize("shape", [(3,), (4, 5)])
def test_normalised_inputs_agree_with_a_plain_loop(n, shape):
    x, x_test = _normal(n, *shape) + 5.0, _normal(3, *shape, seed=1)
    normal = Dataset(x, np.arange(n), x_test).normalised()
    mean = sum(x) / n
    assert normal.x_test is not None
    for row, given in zip([*normal.x, *normal.x_test], [*x, *x_test], strict=True):
        expected = (given - mean) / np.sqrt(((given - mean) ** 2).sum())
        # A few roundings of float64; the mean is near 5 and the differences near 1.
        np.testing.assert_allclose(row, expected, rtol=0, atol=1e-14)


def test_centring_alone_leaves_no_mean_and_scaling_alone_no_centring():
    data = Dataset(_normal(7, 3) + 5.0, np.arange(7))
    # The mean of 7 numbers of size 1, in float64.
    centred = data.normalised(unit=False).x
    np.testing.assert_allclose(centred.mean(axis=0), 0.0, atol=1e-14)
    np.testing.assert_allclose(np.diff(centred, axis=0), np.diff(data.x, axis=0), atol=1e-14)
    scaled = data.normalised(center=False).x
    np.testing.assert_allclose(jnp.linalg.norm(scaled, axis=1), 1.0, rtol=1e-14)
    np.testing.assert_allclose(jnp.cross(scaled, data.x), 0.0, atol=1e-14)


def test_neither_centring_nor_scaling_changes_nothing():
    data = Dataset(_normal(7, 3), np.arange(7), _normal(2, 3))
    assert eqx.tree_equal(data, data.normalised(center=False, unit=False))


def test_float32_inputs_are_normalised_to_float32_rounding():
    with jax.enable_x64(False):
        x = Dataset(_normal(7, 3) + 5.0, np.arange(7)).normalised().x
        # One rounding of each of three coordinates.
        np.testing.assert_allclose(np.linalg.norm(np.float64(x), axis=1), 1.0, rtol=2e-7)


@pytest.mark.parametrize("size", [1e-300, 1e200])
def test_inputs_of_extreme_size_are_scaled_without_overflow(size):
    x = Dataset(np.array([[3.0, 4.0], [-5.0, 0.0]]) * size, [0.0, 1.0]).normalised(center=False).x
    np.testing.assert_allclose(x, [[0.6, 0.8], [-1.0, 0.0]], rtol=1e-15)


@pytest.mark.parametrize(
    ("x", "x_test", "center", "found"),
    [
        ([[1.0, 2.0], [0.0, 0.0]], None, False, "`x`: x[1] is zero"),
        ([[1.0, 2.0]], None, True, "`x`: x[0] is zero after centring"),
        (np.full((1001, 2), 0.1), None, True, "`x`: x[0] is zero after centring"),
        ([[1, 2], [3, 2]], [[9, 9], [2, 2]], True, "`x_test`: x_test[1] is zero after centring"),
    ],
)
def test_an_input_without_direction_is_named(x, x_test, center, found):
    name, entry = found.split(": ")
    sentence = f"{name} must hold only non-zero inputs to be scaled to unit norm, but {entry}."
    data = Dataset(x, np.arange(len(x)), x_test)
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        data.normalised(center=center)


def test_print_tells_what_is_in_it():
    data = Dataset(np.ones((5, 8, 8)), np.ones((5, 2)), np.ones((3, 8, 8)))
    assert str(data) == (
        "Dataset of 5 training and 3 test points, inputs of shape (8, 8), 2 outputs, float64"
    )
    assert repr(data) == "Dataset(x=f64[5,8,8], y=f64[5,2], x_test=f64[3,8,8], y_test=None)"


def test_repr_survives_whatever_jax_puts_in_the_fields():
    data = jax.tree.map(lambda _: True, Dataset(X, Y))
    assert repr(data) == "Dataset(x=True, y=True, x_test=None, y_test=None)"


def test_data_are_copied_from_buffers_that_change_later():
    # Memory at a multiple of 64 bytes, which JAX would work on as it is.
    room = np.empty(24 * 8 + 64, np.uint8)
    start = -room.ctypes.data % 64
    x = room[start : start + 12 * 8].view(float).reshape(4, 3)
    x[:], y = np.arange(12.0).reshape(4, 3), np.arange(4.0)
    data = Dataset(x, y, x, y)
    x[:], y[:] = -1, -1
    np.testing.assert_array_equal(data.x, np.arange(12.0).reshape(4, 3))
    np.testing.assert_array_equal(data.x_test, data.x)
    np.testing.assert_array_equal(data.y, np.arange(4.0))


def test_whole_numbers_that_would_become_others_are_refused():
    class Named(eqx.Module):
        table: eqx.nn.Embedding

        def __call__(self, x):
            return jnp.sum(self.table(x[0].astype(int)))

    model = Named(eqx.nn.Embedding(600, 2, dtype=jnp.bfloat16, key=jax.random.key(0)))
    sentence = "^`x` must hold whole numbers that bfloat16 has, but 257 would be 256.$"
    ids = jnp.array([[257.0], [256.0]])
    with pytest.raises(ValueError, match=sentence):
        nth.kernel(model, ids, 2, progress=False)
    with pytest.raises(ValueError, match=sentence):
        nth.gradient_flow(model, Dataset(ids, [0, 1]), [1.0], progress=False)
