"""The part of the points whose class the outputs tell."""

import numpy as np
from jaxtyping import Array, Float, Int

from nthsim.inputs.loss import LOSSES, Residual
from nthsim.inputs.readout import Readout, Threshold, by_largest, readout
from nthsim.solvers.compiled import is_traced

#: How a single output tells one of two classes by nthsim's own losses.
SIGN = Threshold()


def accuracy(
    f: Float[np.ndarray, "T ..."],
    y: Float[Array, "n ..."] | None,
    residual: Residual,
) -> Float[np.ndarray, " T"] | None:
    """The part of the samples whose class the outputs tell, at each time; a tie tells none.

    Axes between time and samples, such as that of paths, count as more samples.

    The class is the sign of a single output, else the place of the largest of several. With a loss
    of one's own outputs may mean something else, which is found by what it makes of them
    (`readout`). None where the targets `y` do not stand for the classes that the network is trained
    with, or nothing is found.
    """
    found = None if y is None else classified(y, residual)
    if found is None:
        return None
    own, told = found
    axes = f.shape[: f.ndim - len(residual.out_shape)]
    rows = told(f.reshape(-1, axes[-1], *residual.out_shape)) == own
    return rows.reshape(axes).mean(axis=tuple(range(1, len(axes))))


def classified(
    y: Float[Array, "n ..."], residual: Residual
) -> tuple[Int[np.ndarray, " n"], Readout] | None:
    """The class of each target, and how outputs tell it; None where either is not known."""
    trained = residual.y
    if is_traced(y, trained):
        return None
    classes = _classes(np.asarray(trained))
    own = None if classes is None else _places(np.asarray(y), classes)
    if classes is None or own is None:
        return None
    told: Readout | None = by_largest if classes[0].size > 1 else SIGN
    if residual.loss not in LOSSES.values():
        told = readout(residual, classes, residual.out_shape)
    return None if told is None else (own, told)


def _classes(y: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "C ..."] | None:
    """The targets of all classes, -1 and +1 or one-hot rows that are shifted or scaled."""
    known, columns = np.unique(y), y[0].size
    if len(known) != 2:
        return None
    if columns == 1:
        return known.reshape(2, *y.shape[1:]) if known.tolist() == [-1.0, 1.0] else None
    classes = np.where(np.eye(columns, dtype=bool), known[1], known[0])
    return None if _places(y, classes) is None else classes


def _places(
    y: Float[np.ndarray, "n ..."], classes: Float[np.ndarray, "C ..."]
) -> Int[np.ndarray, " n"] | None:
    """Which of the classes each target is; None where some is none."""
    if y.shape[1:] != classes.shape[1:]:
        return None
    rows, flat = y.reshape(len(y), -1), classes.reshape(len(classes), -1)
    places = rows.argmax(axis=1) if rows.shape[1] > 1 else (rows[:, 0] > 0).astype(int)
    return places if np.array_equal(flat[places], rows) else None
