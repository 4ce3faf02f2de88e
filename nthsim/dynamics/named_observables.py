"""Observables that are asked for by words."""

from collections.abc import Callable, Mapping, Sequence

from nthsim.dynamics.observable import Observable
from nthsim.inputs.integers import shown

#: What makes observables, by the words that ask for them.
Words = Mapping[str, Callable[..., Observable]]

#: Those that a number may follow.
NUMBERED = ("spectrum", "sharpness", "gradient_covariance")


def observables(record: object, known: Words) -> tuple[Observable, ...] | None:
    """What is to be recorded, some by words that are known; None is whatever is usual.

    Raises:
        ValueError: When `record` is no sequence of words and observables, or names one twice.
    """
    if record is None:
        return None
    words = ", ".join(f'"{word}"' for word in known)
    if isinstance(record, str | Observable) or not isinstance(record, Sequence):
        raise ValueError(
            f'`record` must be a sequence of {words} and observables, such as ("kernel",), '
            f"but is {shown(record)}."
        )
    found = []
    for each in record:
        if isinstance(each, str) and _is_word(each, known):
            each = _observable(each, known)
        if not isinstance(each, Observable):
            raise ValueError(
                f"`record` must hold {words} and observables, such as Observable.of(name, fn), "
                f"but holds {shown(each)}."
            )
        found.append(each)
    names = [each.name for each in found]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"`record` must hold each name once, but holds {twice[0]} twice.")
    return tuple(found)


def _is_word(text: str, known: Words) -> bool:
    """Whether it asks for an observable."""
    name, colon, number = text.partition(":")
    return name in known and (not colon or (name in NUMBERED and number.isdecimal()))


def _observable(word: str, known: Words) -> Observable:
    """The observable that a word such as "sharpness" or "spectrum:5" asks for."""
    name, _, number = word.partition(":")
    return known[name](*map(int, filter(None, [number])))
