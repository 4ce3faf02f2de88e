"""Classes as targets, and what targets a loss can mean."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from nthsim.inputs.integers import shown
from nthsim.inputs.loss import Loss, logistic, softmax_cross_entropy
from nthsim.solvers.compiled import is_traced

#: Probabilities below zero by less than this are so by rounding, in float32 too.
ROUNDING = 1e-5


def classes_in(*labels: object) -> tuple[Any, ...]:
    """The different labels, sorted; the categories of pandas in their own order.

    Raises:
        ValueError: A label is missing, or they are not integers, truth values or words of one kind.
    """
    categories = getattr(getattr(labels[0], "dtype", None), "categories", None)
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
    return [int(value) if _kind(value) == "integer" else value for value in values]


def _kind(value: object) -> str:
    """What a label is; "" if it is none."""
    if isinstance(value, float):
        return "integer" if value.is_integer() else ""
    kinds = {bool: "truth value", int: "integer", np.integer: "integer", str: "word"}
    return next((kind for one, kind in kinds.items() if isinstance(value, one)), "")


def are_classes(y: Float[np.ndarray | Array, "n ..."]) -> bool:
    """Whether targets stand for classes: -1 and +1, or one-hot vectors, shifted or scaled."""
    if is_traced(y):
        return False
    targets = np.asarray(y).reshape(len(y), -1)
    if targets.shape[1] == 1:
        return set(np.unique(targets).tolist()) == {-1.0, 1.0}
    largest = targets == targets.max()
    return np.unique(targets).size == 2 and bool(np.all(largest.sum(axis=1) == 1))


def in_classes(y_test: Array, y: Array) -> bool:
    """Whether test targets stand for the same classes as these targets do."""
    if not are_classes(y):
        return False
    rows = np.asarray(y_test).reshape(len(y_test), -1)
    known = bool(np.isin(rows, np.unique(np.asarray(y))).all())
    return known and (rows.shape[1] == 1 or bool(np.all((rows == np.max(y)).sum(axis=1) == 1)))


def accuracy(
    f: Float[np.ndarray, "T n ..."], y: Float[np.ndarray | Array, "n ..."]
) -> Float[np.ndarray, " T"]:
    """The part of the samples whose class the outputs tell, at each time; a tie tells none.

    The class is the sign of a single output, else the place of the largest of several.
    """
    targets = np.asarray(y).reshape(len(y), -1)
    outputs = f.reshape(*f.shape[:2], -1)
    if targets.shape[1] == 1:
        return np.mean((outputs * targets > 0)[..., 0], axis=1)
    right: Bool[np.ndarray, "n k"] = targets == targets.max(axis=1, keepdims=True)
    others = np.where(right, -np.inf, outputs).max(axis=2)
    return np.mean(np.where(right, outputs, -np.inf).max(axis=2) > others, axis=1)


def check_targets(loss: Loss, name: str, y: Array | None) -> None:
    """Refuse targets that one of nthsim's losses cannot mean.

    Raises:
        ValueError: The sentence names the first.
    """
    if y is None or is_traced(y):
        return
    values = np.asarray(y)
    if loss is logistic and values.ndim == 1:
        others = values[np.abs(values) != 1]
        if len(others):
            raise ValueError(
                f"`{name}` must hold only -1 and +1 for `logistic`, but holds {others[0]:g}; "
                "`Dataset.labelled`, or `labels` of a file, makes them of two classes."
            )
    if loss is not softmax_cross_entropy:
        return
    if values.ndim == 1 and not are_classes(values):
        raise ValueError(
            f"`{name}` must hold a row of probabilities per input for `softmax_cross_entropy`, but "
            "holds one number; `Dataset.labelled`, or `labels` of a file, makes rows of classes."
        )
    if values.ndim == 1:
        return  # the loss itself tells of single outputs
    p = values - values.mean(axis=1, keepdims=True) + 1 / values.shape[1]
    rows: Int[np.ndarray, " rows"] = np.flatnonzero((p < -ROUNDING).any(axis=1))
    if len(rows):
        raise ValueError(
            f"`{name}` must hold rows of probabilities for `softmax_cross_entropy`, up to a number "
            f"that is added to all of a row, but {name}[{rows[0]}] is {shown(values[rows[0]])}."
        )
