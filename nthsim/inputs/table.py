"""A table of a .csv file: inputs, and numbers or labels as targets, by column."""

import csv
import math
import re
import reprlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np

#: The names of target columns: `y`, or `y1`, `y2`, ...; a column called `year` is an input.
_TARGET = re.compile(r"y_?\d*", re.IGNORECASE)

#: How pandas calls a column without a name, once it has read one.
_UNNAMED = re.compile(r"Unnamed: \d+")

#: A label that is an integer.
_WHOLE = re.compile(r"[+-]?\d+")

#: What else may stand between columns.
_SEPARATORS = {";": "semicolons", "\t": "tabs", " ": "spaces"}


#: What stands in the place of a label that is missing, whether in capitals or not.
MISSING = ("", "na", "n/a", "#n/a", "<na>", "nan", "null", "none", "?")


class CountingColumnWarning(UserWarning):
    """The first column of a table counts its lines, and is read as an input."""


def read_csv(path: Path, *, labels: bool) -> dict[str, Any]:
    """Read inputs and targets from the columns of a table."""
    lines = _lines(path)
    _check_separator(lines[-1][1], path)
    first = [cell.strip() for cell in lines[0][1]]
    headed = any(_number(cell) is None for cell in (first[:-1] if labels else first))
    if labels and not headed and _TARGET.fullmatch(first[-1]):
        raise ValueError(
            f"`path` must name its inputs in a header, or have none, but the first line of {path}, "
            f"which ends in {first[-1]!r}, may be a header or a point."
        )
    targets = [False] * (len(first) - 1) + [True]
    if headed:
        del lines[0]
        _check_names(first, path)
        targets = [_TARGET.fullmatch(name) is not None for name in first]
    if all(targets) or not any(targets):
        raise ValueError(
            "`path` must hold input columns and, in a header, target columns named y or y1, y2, "
            f"..., but the first line of {path} is {reprlib.repr(first)}."
        )
    if not lines:
        raise ValueError(f"`path` must hold at least one point, but {path} holds only a header.")
    if not headed:
        _check_numbered(first, lines[1:], path, labels=labels)
    if labels:
        arrays = _labelled(lines, targets, path)
    else:
        table = np.array([_numbers(cells, targets, line, path) for line, cells in lines])
        y = table[:, targets]
        arrays = {"x": table[:, np.logical_not(targets)], "y": y[:, 0] if y.shape[1] == 1 else y}
    _tell_of_counts(arrays["x"], path)
    return arrays


def _labelled(
    lines: list[tuple[int, list[str]]], targets: list[bool], path: Path
) -> dict[str, Any]:
    """Inputs, and one column of labels: numbers if all of them are, else words."""
    if sum(targets) != 1:
        raise ValueError(f"`labels` must be of one target column, but {path} has {sum(targets)}.")
    place, rows, words = targets.index(True), [], []
    for line, cells in lines:
        _check_width(cells, len(targets), line, path)
        words.append(cells[place].strip())
        if words[-1].lower() in MISSING:
            found = repr(words[-1]) if words[-1] else "empty"
            raise ValueError(
                "`path` must hold a label in every line, "
                f"but column {place + 1} in line {line} of {path} is {found}."
            )
        rows.append(_numbers([*cells[:place], "0", *cells[place + 1 :]], targets, line, path))
    x = np.delete(rows, place, axis=1)
    if all(_WHOLE.fullmatch(word) for word in words):
        return {"x": x, "y": [int(word) for word in words]}
    numbers = [_number(word) for word in words]
    return {"x": x, "y": words if None in numbers else numbers}


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """Return the cells of every line that is not blank, with its number in the file."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, skipinitialspace=True, strict=True)
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


def _check_names(names: list[str], path: Path) -> None:
    """Refuse a header that leaves a column without a name, as that of an index is left."""
    for i, name in enumerate(names, start=1):
        if not name or _UNNAMED.fullmatch(name):
            raise ValueError(
                f"`path` must name every column in its header, but column {i} of {path} has no "
                "name; write the file without its index, and without commas at the ends of lines."
            )
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(
            f"`path` must give every column a name of its own, but two of {path} are called "
            f"{twice!r}."
        )


def _check_numbered(
    first: list[str], lines: list[tuple[int, list[str]]], path: Path, *, labels: bool
) -> None:
    """Refuse a first line of numbers that number the columns, as frames without names have.

    That of labels may have a name, which no line has for its label.
    """
    *inputs, last = first
    named = labels and all(cells[-1].strip() != last for _, cells in lines)
    numbered = inputs == [*map(str, range(len(inputs)))] and (named or last == str(len(inputs)))
    if lines and len(inputs) > 1 and numbered:
        raise ValueError(
            f"`path` must begin with names or with a point, but the first line of {path}, "
            f"{', '.join(first[:3])}, ..., numbers the columns; name them, or write it without "
            "its header."
        )


def _tell_of_counts(x: np.ndarray, path: Path) -> None:
    """Warn of a first input that counts the lines.

    Warns:
        CountingColumnWarning: It does.
    """
    n = len(x)
    if (
        n > 2
        and x.shape[1] > 1
        and np.array_equal(x[:, 0] - x[0, 0], np.arange(n))
        and x[0, 0] in (0, 1)
    ):
        warnings.warn(
            f"the first input column of {path} counts its lines; "
            "if it is an index, write the file without it.",
            CountingColumnWarning,
            stacklevel=4,
        )


def _check_width(cells: list[str], width: int, line: int, path: Path) -> None:
    if len(cells) != width:
        raise ValueError(
            f"`path` must hold as many cells in every line as in the first, {width}, "
            f"but line {line} of {path} holds {len(cells)}."
        )


def _numbers(cells: list[str], targets: list[bool], line: int, path: Path) -> list[float]:
    """Return one line's cells as finite numbers."""
    _check_width(cells, len(targets), line, path)
    numbers: list[float] = []
    for column, cell in enumerate(cells, start=1):
        number = _number(cell)
        if number is None or not math.isfinite(number):
            label = number is None and cell and targets[column - 1]
            cure = "; with `labels` it is the name of a class" if label else ""
            raise ValueError(
                "`path` must hold finite numbers only, "
                f"but column {column} in line {line} of {path} is {reprlib.repr(cell)}{cure}."
            )
        numbers.append(number)
    return numbers


def _number(cell: str) -> float | None:
    """Return a cell as a number, None if it is none: digits are not grouped by underscores."""
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None
