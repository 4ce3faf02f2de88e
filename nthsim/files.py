"""Data sets read from a user's own .npz and .csv files."""

import csv
import math
import os
import re
import reprlib
import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import Array, Shaped

from nthsim import checks
from nthsim.datasets import Dataset, normalise, validated

_NAMES = ("x", "y", "x_test", "y_test")

#: The names of target columns: `y`, or `y1`, `y2`, ...; a column called `year` is an input.
_TARGET = re.compile(r"y_?\d*", re.IGNORECASE)


def load_data(
    path: str | os.PathLike[str],
    *,
    n_train: int | None = None,
    n_test: int | None = None,
    center: bool = True,
    normalize: bool = True,
) -> Dataset:
    """Read a data set from a file.

    A `.npz` archive holds `x` and `y`, and may hold `x_test` and `y_test`, shaped as in `Dataset`;
    other arrays in it are left alone. Nothing pickled is ever loaded.

    A `.csv` file, comma-separated, holds a point a line. If a cell of its first line is no number,
    that line is a header: columns called `y`, or `y1`, `y2` and so on, are targets (one gives `y`
    the shape (n,), several give it (n, k)), all others are inputs. Without a header the last column
    is the target.

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

    Raises:
        ValueError: the file cannot be read, holds no such data, or too few points.
    """
    path = Path(path)
    readers = {".npz": _read_npz, ".csv": _read_csv}
    if path.suffix.lower() not in readers:
        raise ValueError(f"`path` must end in .npz or .csv, but is {path}.")
    try:
        arrays = readers[path.suffix.lower()](path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(f"`path` must be a readable file, but {path} is not: {reason}.") from error
    parts = _cut(validated(**arrays), n_train, n_test)
    x, y = np.asarray(parts["x"], np.float64), np.asarray(parts["y"])
    if len(y) > 1 and np.all(y == y[0]):
        raise ValueError(
            f"`y` must hold at least two different targets, but all {len(y)} are {y[0].tolist()}."
        )
    x_test = np.asarray(parts["x_test"], np.float64) if "x_test" in parts else None
    x, x_test = normalise(x, x_test, center=center, unit=normalize)
    return Dataset(x, y, x_test, parts.get("y_test"))


def _cut(
    arrays: dict[str, Shaped[Array | np.ndarray, "..."]], n_train: int | None, n_test: int | None
) -> dict[str, Shaped[Array | np.ndarray, "..."]]:
    """Keep `n_train` and `n_test` points, the latter out of `x` where there is no `x_test`."""
    rows, own_test = len(arrays["x"]), "x_test" in arrays
    most = len(arrays["x_test"]) if own_test else rows - 1
    t = (most if own_test else 0) if n_test is None else checks.count("n_test", n_test, 0)
    if t > most:
        source = "the number of test points" if own_test else f"one less than the {rows} points"
        raise ValueError(f"`n_test` must be at most {most}, {source} in the file, but is {t}.")
    left = rows if own_test else rows - t
    n = left if n_train is None else checks.count("n_train", n_train, 1)
    if n > left:
        beside = "" if own_test or not t else f" beside {t} test points"
        raise ValueError(
            f"`n_train` must be at most {left}, the number of points in the file{beside}, "
            f"but is {n}."
        )
    kept = {"x": arrays["x"][:n], "y": arrays["y"][:n]}
    if own_test:
        pool = {name: arrays[name] for name in ("x_test", "y_test") if name in arrays}
    else:
        pool = {"x_test": arrays["x"][n:], "y_test": arrays["y"][n:]}
    if t:
        kept |= {name: array[:t] for name, array in pool.items()}
    return kept


def _read_npz(path: Path) -> dict[str, object]:
    """Read the arrays of an archive that are a data set's."""
    found: dict[str, object] = {}
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
        listed = ", ".join(names) or "nothing"
        raise ValueError(f"`path` must hold the arrays x and y, but {path} holds {listed}.")
    return found


def _read_csv(path: Path) -> dict[str, object]:
    """Read inputs and targets from the columns of a table."""
    lines = _lines(path)
    names = [cell.strip() for cell in lines[0][1]]
    if any(_number(name) is None for name in names):
        del lines[0]
        targets = [_TARGET.fullmatch(name) is not None for name in names]
    else:
        targets = [False] * (len(names) - 1) + [True]
    if all(targets) or not any(targets):
        raise ValueError(
            "`path` must hold input columns and, in a header, target columns named y or y1, y2, "
            f"..., but the first line of {path} is {reprlib.repr(names)}."
        )
    if not lines:
        raise ValueError(f"`path` must hold at least one point, but {path} holds only a header.")
    table = np.array([_numbers(cells, len(names), line, path) for line, cells in lines])
    y = table[:, targets]
    return {"x": table[:, np.logical_not(targets)], "y": y[:, 0] if y.shape[1] == 1 else y}


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """Return the cells of every line that is not blank, with its number in the file."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            lines = [
                (reader.line_num, cells)
                for cells in reader
                if len(cells) > 1 or "".join(cells).strip()
            ]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"`path` must be a .csv text file, but {path} is not: {error}.") from error
    if not lines:
        raise ValueError(f"`path` must hold at least one point, but {path} is empty.")
    return lines


def _numbers(cells: list[str], width: int, line: int, path: Path) -> list[float]:
    """Return one line's cells as finite numbers."""
    if len(cells) != width:
        raise ValueError(
            f"`path` must hold as many cells in every line as in the first, {width}, "
            f"but line {line} of {path} holds {len(cells)}."
        )
    numbers: list[float] = []
    for column, cell in enumerate(cells, start=1):
        number = _number(cell)
        if number is None or not math.isfinite(number):
            raise ValueError(
                "`path` must hold finite numbers only, "
                f"but column {column} in line {line} of {path} is {reprlib.repr(cell)}."
            )
        numbers.append(number)
    return numbers


def _number(cell: str) -> float | None:
    """Return a cell as a number, None if it is none."""
    try:
        return float(cell)
    except ValueError:
        return None
