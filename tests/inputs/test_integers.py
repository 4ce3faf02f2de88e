"""Integers of every kind are read as such, and all else is refused in one sentence."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

from nthsim.inputs.integers import count


@pytest.mark.parametrize("value", [2, 7, np.int32(2), np.uint8(7), np.array(3), jnp.array(3)])
def test_count_returns_every_kind_of_integer_as_a_python_int(value):
    number = count("order", value, 2)
    assert type(number) is int
    assert number == int(value)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1, "1"),
        (-3, "-3"),
        (2.5, "2.5"),
        (2.0, "2.0"),
        (np.float64(2.5), "2.5"),
        (True, "True"),
        (np.True_, "True"),
        ("3", "'3'"),
        (None, "None"),
        ([3], "[3]"),
        (np.array([[3], [4]]), "array([[3], [4]])"),
    ],
)
def test_count_refuses_what_is_no_integer_or_too_small(value, shown):
    sentence = f"`order` must be an integer of at least 2, but is {shown}."
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        count("order", value, 2)
