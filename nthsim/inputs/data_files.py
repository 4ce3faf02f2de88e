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

from nthsim.inputs import integers
from nthsim.inputs.dataset import Dataset, normalise, validated

_NAMES = ("x", "y", "x_test", "y_test")

#: The names of target columns: `y`, or `y1`, `y2`, ...; a column called `year` is an input.
_TARGET = re.compile(r"y_?\d*", re.IGNORECASE)

#: What else may stand between columns.
_SEPARATORS = {";": "semicolons", "\t": "tabs", " ": "spaces"}


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
    _check_separator(lines[-1][1], path)
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


def _check_separator(cells: list[str], path: Path) -> None:
    """Refuse a line whose cells hold several numbers each, as those of another separator do."""
    for sign, name in _SEPARATORS.items():
        for cell in cells:
            parts = [part for part in cell.strip().split(sign) if part.strip()]
            if len(parts) > 1 and all(_number(part) is not None for part in parts):
                raise ValueError(
                    f"`path` must hold columns separated by commas, but those of {path} are "
                    f"separated by {name}."
                )


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
