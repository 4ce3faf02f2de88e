"""Labels of classes as targets."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from nthsim.inputs.integers import shown


def classes_in(*labels: object) -> tuple[Any, ...]:
    """The different labels, sorted; the categories of pandas in their own order.

    Raises:
        ValueError: A label is missing, or they are not integers, truth values or words of one kind.
    """
    dtype = getattr(labels[0], "dtype", None)
    of_pandas = type(dtype).__module__.partition(".")[0] == "pandas"  # others call theirs so too
    categories = getattr(dtype, "categories", None) if of_pandas else None
    found = {value for each in labels for value in _labels("labels", each)}
    if len({_kind(value) for value in found}) > 1:
        raise ValueError(
            "`labels` must be of one kind for training and test points, but are of two."
        )
    return tuple(sorted(found) if categories is None else filter(found.__contains__, categories))


def class_names(classes: Any) -> tuple[Any, ...]:
    """The names of classes as plain values.

    Raises:
        ValueError: They are no sequence of integers, words or truth values, each of them once.
    """
    if isinstance(classes, str) or not (isinstance(classes, Sequence) or hasattr(classes, "dtype")):
        raise ValueError(f"`classes` must be a sequence of labels, but is {shown(classes)}.")
    names = tuple(_labels("classes", classes)) if len(classes) else ()
    if len(set(names)) < len(names):
        raise ValueError(f"`classes` must be different labels, but are {shown(names)}.")
    return names


def encoded(
    name: str, labels: object, classes: Sequence[Any], *, one_hot: bool
) -> Float[np.ndarray, " n"] | Float[np.ndarray, "n k"]:
    """Targets -1 and +1 for two classes, else the one-hot vector minus 1/k for k of them.

    Raises:
        ValueError: Fewer than two classes, one of them twice, or a label that is none of them.
    """
    if len(set(classes)) < max(2, len(classes)):
        raise ValueError(
            f"`classes` must be at least two different labels, but are {shown(tuple(classes))}."
        )
    values = _labels(name, labels)
    for i, value in enumerate(values):
        if value not in classes:
            raise ValueError(
                f"`{name}` must hold labels among the classes, but {name}[{i}] is {value!r}."
            )
    places = np.array([list(classes).index(value) for value in values])
    if len(classes) == 2 and not one_hot:
        return np.where(places == 0, -1.0, 1.0)
    return (places[:, None] == np.arange(len(classes))) - 1 / len(classes)


def _labels(name: str, labels: Any) -> list[Any]:
    """Labels as integers, truth values or words, all of one kind."""
    if np.ma.is_masked(labels):
        raise ValueError(f"`{name}` must have no masked entries, but has some.")
    if not (hasattr(labels, "dtype") or isinstance(labels, Sequence)):
        raise ValueError(f"`{name}` must be a sequence of labels, but is {shown(labels)}.")
    array = np.asarray(labels) if hasattr(labels, "dtype") else np.fromiter(labels, dtype=object)
    if array.ndim != 1 or not array.size:
        raise ValueError(f"`{name}` must have shape (n,) with n ≥ 1, but has {array.shape}.")
    values = array.tolist()
    for i, value in enumerate(values):
        if _kind(value) != _kind(values[0]) or not _kind(value):
            first = f"{name}[0] is {values[0]!r} and " if i else ""
            raise ValueError(
                f"`{name}` must be all integers, all words or all truth values, but {first}"
                f"{name}[{i}] is {value!r}."
            )
    # A column of integers becomes one of floats once an entry was missing somewhere.
    plain = {"integer": int, "word": str, "truth value": bool}
    return [plain[_kind(value)](value) for value in values]


def _kind(value: object) -> str:
    """What a label is; "" if it is none."""
    if isinstance(value, float):
        return "integer" if value.is_integer() else ""
    kinds = {bool: "truth value", int: "integer", np.integer: "integer", str: "word"}
    return next((kind for one, kind in kinds.items() if isinstance(value, one)), "")
