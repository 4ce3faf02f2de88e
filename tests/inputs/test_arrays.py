"""Checks refuse in one sentence what a user must not hand in."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nthsim.inputs import arrays


def test_choice_returns_a_listed_name():
    assert arrays.choice("method", "dense", ("auto", "dense")) == "dense"


@pytest.mark.parametrize(("value", "shown"), [("dens", "'dens'"), ("", "''"), (3, "3")])
def test_choice_names_what_there_is_to_choose(value, shown):
    sentence = f"`method` must be one of 'auto', 'dense', but is {shown}."
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        arrays.choice("method", value, ("auto", "dense"))


@pytest.mark.parametrize(
    "value", [np.arange(3), np.ones(2, np.float16), jnp.ones(2, jnp.bfloat16), [1, 2.5], 4]
)
def test_real_keeps_integers_and_floats_as_they_are(value):
    array = arrays.real("x", value)
    assert array.dtype == np.asarray(value).dtype
    np.testing.assert_array_equal(np.asarray(array), np.asarray(value))


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        ([True, False], "bool"),
        ([1j], "complex128"),
        (["a"], "<U1"),
        (None, "object"),
        ({}, "object"),
        (np.zeros(2, "timedelta64[s]"), "timedelta64[s]"),
        (np.zeros(2, "datetime64[s]"), "datetime64[s]"),
        (np.zeros(2, [("a", float)]), "[('a', '<f8')]"),
        (jax.random.key(0), "key<fry>"),
    ],
)
def test_real_names_the_type_that_it_refuses(value, dtype):
    sentence = f"`x` must be an array of real numbers, but has dtype {dtype}."
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        arrays.real("x", value)


def test_real_refuses_ragged_rows():
    sentence = "^`x` must be an array of real numbers, but its rows have unequal lengths.$"
    with pytest.raises(ValueError, match=sentence):
        arrays.real("x", [[1.0, 2.0], [3.0]])


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.array([[0, 1], [2, np.nan]]), "x[1, 1] is nan in float64"),
        (np.array([-np.inf, np.nan], np.float32), "x[0] is -inf in float32"),
        (np.array(np.inf), "x is inf in float64"),
        (jnp.array([1.0, jnp.inf]), "x[1] is inf in float64"),
    ],
)
def test_finite_names_the_first_bad_entry(array, found):
    with pytest.raises(ValueError, match=f"^{re.escape(f'`x` must be finite, but {found}.')}$"):
        arrays.finite("x", array)


def test_finite_lets_a_traced_array_pass():
    def checked(x):
        arrays.finite("x", x)
        return x

    assert np.isnan(jax.jit(checked)(jnp.nan))


@pytest.mark.parametrize(
    "ts", [[0], [0.0, 0.5, 2.0], np.arange(4), jnp.linspace(0.0, 1.0, 5), np.array([1e-300, 1e300])]
)
def test_times_are_a_float64_copy(ts):
    values = arrays.times(ts)
    assert values.dtype == np.float64
    np.testing.assert_array_equal(values, np.asarray(ts))
    assert not np.shares_memory(values, np.asarray(ts))


@pytest.mark.parametrize(
    ("ts", "sentence"),
    [
        (
            [0.0, 0.6, 0.7, 0.5, 0.1],
            "`ts` must increase strictly, but ts[3] = 0.5 follows 0.7.",
        ),
        ([0, 0], "`ts` must increase strictly, but ts[1] = 0.0 follows 0.0."),
        ([-1.0, 2.0], "`ts` must start at 0 or later, but ts[0] = -1.0."),
        ([0.0, np.nan], "`ts` must be finite, but ts[1] is nan in float64."),
        ([0.0, np.inf], "`ts` must be finite, but ts[1] is inf in float64."),
        ([], "`ts` must be a one-dimensional array of at least one time, but has shape (0,)."),
        (1.0, "`ts` must be a one-dimensional array of at least one time, but has shape ()."),
        (
            [[0.0, 1.0]],
            "`ts` must be a one-dimensional array of at least one time, but has shape (1, 2).",
        ),
        (["0"], "`ts` must be an array of real numbers, but has dtype <U1."),
        ([False, True], "`ts` must be an array of real numbers, but has dtype bool."),
        (None, "`ts` must be an array of real numbers, but has dtype object."),
    ],
)
def test_times_refuses_what_is_no_list_of_save_times(ts, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        arrays.times(ts)


def test_masked_entries_are_refused_and_a_mask_of_nothing_is_not():
    array = np.ma.masked_values([[1.0, 2.0], [-999.0, 1.0]], -999.0)
    with pytest.raises(ValueError, match=r"^`x` must have no masked entries, but x\[1, 0\]"):
        arrays.real("x", array)
    found = arrays.real("x", array[:1])
    assert type(found) is np.ndarray
    np.testing.assert_array_equal(found, [[1.0, 2.0]])
    with pytest.raises(ValueError, match=r"^`ts` must have no masked entries, but ts\[2\] is mask"):
        arrays.times(np.ma.masked_invalid([0.0, 1.0, np.nan]))
