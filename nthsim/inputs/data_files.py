"""Data sets read from a user's own .npz and .csv files."""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Array, Shaped

from nthsim.inputs import integers
from nthsim.inputs.dataset import Dataset, normalise, validated
from nthsim.inputs.labels import classes_in, encoded
from nthsim.inputs.table import read_csv

_NAMES = ("x", "y", "x_test", "y_test")


def load_data(
    path: str | os.PathLike[str],
    *,
    n_train: int | None = None,
    n_test: int | None = None,
    center: bool = True,
    normalize: bool = True,
    labels: bool = False,
) -> Dataset:
    """Read a data set from a file.

    A `.npz` archive holds `x` and `y`, and may hold `x_test` and `y_test`, shaped as in `Dataset`;
    other arrays in it are left alone. Nothing pickled is ever loaded.

    A `.csv` file, comma-separated, holds a point a line. If a cell of its first line, targets of
    `labels` left out, is no number, that line is a header, which must name every column: those
    called `y`, or `y1`, `y2` and so on, are targets (one gives `y` the shape (n,), several give it
    (n, k)), all others are inputs. Without a header the last column is the target.

    By default inputs are centred by the training mean, then scaled to unit Euclidean norm
    (`Dataset.normalised`).

    Args:
        path: the file.
        n_train: number of training points, taken from the top; None means all that are left.
        n_test: number of test points: the first of `x_test`, None meaning all; without `x_test`,
            those that follow the training points (without `n_train`, the last ones), None
            meaning none.
        center: whether to subtract the training mean.
        normalize: whether to scale to unit norm.
        labels: whether targets are the names of classes, integers or words, which become targets
            as in `Dataset.labelled`; classes are all those in the file, whichever points are taken.

    Raises:
        ValueError: the file cannot be read, holds no such data, or too few points.

    Warns:
        nthsim.inputs.table.CountingColumnWarning: A table's first column counts its lines, as its
            index does.
    """
    integers.check_truths(center=center, normalize=normalize, labels=labels)
    if not isinstance(path, str | os.PathLike) or "\0" in os.fsdecode(path):
        raise ValueError(f"`path` must be the name of a file, but is {path!r}.")
    path = Path(os.path.expanduser(path))
    readers = {".npz": _read_npz, ".csv": read_csv}
    if path.suffix.lower() not in readers:
        raise ValueError(f"`path` must end in .npz or .csv, but is {path}.")
    try:
        arrays = readers[path.suffix.lower()](path, labels=labels)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(f"`path` must be a readable file, but {path} is not: {reason}.") from error
    classes = _encode(arrays) if labels else ()
    parts = _cut(validated(**arrays), n_train, n_test)
    x, y = np.asarray(parts["x"]), np.asarray(parts["y"])
    if len(y) > 1 and np.all(y == y[0]):
        raise ValueError(
            f"`y` must hold at least two different targets, but all {len(y)} are {y[0].tolist()}."
        )
    x_test = np.asarray(parts["x_test"]) if "x_test" in parts else None
    if center or normalize:  # else whole numbers stay such
        x = x.astype(np.float64)
        x_test = None if x_test is None else x_test.astype(np.float64)
        x, x_test = normalise(x, x_test, center=center, unit=normalize)
    return Dataset(x, y, x_test, parts.get("y_test"), classes=classes)


def _encode(arrays: dict[str, Any]) -> tuple[Any, ...]:
    """Put targets in the place of labels, those of test points too; returns the classes."""
    names = [name for name in ("y", "y_test") if name in arrays]
    classes = classes_in(*(arrays[name] for name in names))
    for name in names:
        arrays[name] = encoded(name, arrays[name], classes, one_hot=False)
    return classes


def _cut(
    arrays: dict[str, Shaped[Array | np.ndarray, "..."]], n_train: int | None, n_test: int | None
) -> dict[str, Shaped[Array | np.ndarray, "..."]]:
    """Keep `n_train` and `n_test` points, the latter out of `x` where there is no `x_test`."""
    rows, own_test = len(arrays["x"]), "x_test" in arrays
    most = len(arrays["x_test"]) if own_test else rows - 1
    n, t = integers.points(
        1 if n_train is None else n_train, (most * own_test) if n_test is None else n_test
    )
    if n_train is None:
        n = rows if own_test else max(1, rows - t)
    if own_test:
        _check_parts(n, t, rows, most)
    elif n + t > rows:
        raise ValueError(_too_many(n_train, t, rows))
    kept = {"x": arrays["x"][:n], "y": arrays["y"][:n]}
    if own_test:
        pool = {name: arrays[name] for name in ("x_test", "y_test") if name in arrays}
    else:
        pool = {"x_test": arrays["x"][n:], "y_test": arrays["y"][n:]}
    if t:
        kept |= {name: array[:t] for name, array in pool.items()}
    return kept


def _too_many(n_train: int | None, t: int, rows: int) -> str:
    """What is asked too much of a file without test points of its own."""
    held = f"{rows}, the number of points in the file"
    if n_train is None:
        held = f"{rows - 1}, one less than the {rows} points in the file"
        return f"`n_test` must be at most {held}, but is {t}."
    if not t:
        return f"`n_train` must be at most {held}, but is {n_train}."
    return f"`n_train` + `n_test` must be at most {held}, but is {n_train} + {t}."


def _check_parts(n: int, t: int, rows: int, test_rows: int) -> None:
    """Refuse more points than a file with test points of its own holds."""
    if n > rows and t > test_rows:
        raise ValueError(
            f"`n_train` and `n_test` must be at most {rows} and {test_rows}, the numbers of points "
            f"in the file, but are {n} and {t}."
        )
    for name, number, held, kind in (
        ("n_train", n, rows, "points"),
        ("n_test", t, test_rows, "test points"),
    ):
        if number > held:
            raise ValueError(
                f"`{name}` must be at most {held}, the number of {kind} in the file, "
                f"but is {number}."
            )


def _read_npz(path: Path, *, labels: bool) -> dict[str, Any]:
    """Read the arrays of an archive that are a data set's."""
    del labels
    found: dict[str, Any] = {}
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError(
                f"`path` must be an .npz archive, but {path} is none, or is corrupt or truncated."
            )
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as archive:
                names = archive.files
                for name in _NAMES:
                    if name in names:
                        found[name] = archive[name]
        except Exception as error:  # a damaged archive can fail at any depth of zip and NumPy
            if "allow_pickle" in str(error):
                raise ValueError(
                    f"`path` must hold plain arrays of numbers, but one in {path} is pickled, "
                    "and a pickle is never loaded."
                ) from error
            raise ValueError(
                f"`path` must be an intact .npz archive, but {path} is corrupt or truncated."
            ) from error
    if not {"x", "y"} <= set(names):
        listed = ", ".join(map(repr, names)) or "nothing"
        raise ValueError(f"`path` must hold the arrays x and y, but {path} holds {listed}.")
    return found
