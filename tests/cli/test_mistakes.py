"""Sentences name what was typed, and are otherwise left as they were raised."""

import pytest

from nthsim.cli.mistakes import called


class Refusal(ValueError):
    """A mistake of a kind of its own."""


def test_arguments_are_called_what_was_typed():
    with (
        pytest.raises(ValueError, match=r"^`--a` must be `b`, but is 3\.$") as caught,
        called(a="--a"),
    ):
        raise Refusal("`a` must be `b`, but is 3.")
    assert isinstance(caught.value.__cause__, Refusal)


def test_error_that_names_nothing_else_is_raised_as_it_is():
    error = Refusal("`b` must be a, but is 3.")
    with pytest.raises(Refusal) as caught, called(a="--a"), called(c="d"):
        raise error
    assert caught.value is error
    assert error.__cause__ is None
