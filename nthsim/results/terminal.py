"""Tables and progress on a terminal."""

import textwrap
from collections.abc import Sequence
from decimal import Context, Decimal

from tqdm.auto import tqdm

#: Lines are kept within this many columns.
COLUMNS = 100

PREFIXES = ("", "k", "M", "G", "T", "P")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Align the cells of rows of one length: the first column to the left, all others to the right.

    Raises:
        ValueError: When a row has more or fewer cells than the first.
    """
    widths = [0] * len(rows[0]) if rows else []
    for row in rows:
        if len(row) != len(widths):
            raise ValueError(f"`rows` must have {len(widths)} cells each, but one has {len(row)}.")
        widths = [max(width, len(cell)) for width, cell in zip(widths, row, strict=True)]
    return "\n".join(_line(row, widths) for row in rows)


def scientific(value: float | None, digits: int = 1) -> str:
    """A number with so many decimals and its power of ten; a dash for none."""
    return "-" if value is None or value != value else f"{value:.{digits}e}"


def fixed(value: float | None, digits: int) -> str:
    """A number with so many decimals; a dash for none."""
    return "-" if value is None or value != value else f"{value:.{digits}f}"


def several(number: int, noun: str) -> str:
    """So many of them: "1 step", "2 steps"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def short(number: int | Decimal) -> str:
    """A number of any size to three digits, in thousands (k), M, G, T or P or by a power of ten.

    Integers below a thousand are exact.
    """
    rounded = Context(prec=3).create_decimal(number)  # as floats end at 1e308
    thousands = max(0, rounded.adjusted() // 3)
    if thousands >= len(PREFIXES):
        return f"{rounded:.2e}"
    return f"{rounded.scaleb(-3 * thousands):.3g}{PREFIXES[thousands]}"


def _line(row: Sequence[str], widths: list[int]) -> str:
    first, *others = [
        cell.rjust(width) if i else cell.ljust(width)
        for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join([first, *others]).rstrip()


def wrapped(line: str) -> str:
    """A line folded at `COLUMNS`."""
    return textwrap.fill(line, COLUMNS, subsequent_indent="  ")


#: A notebook is no terminal, and shows bars all the same.
NOTEBOOK = any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__)


class Progress:
    """A bar from 0 to 1 for one piece of work, if wanted and if there is where to show it."""

    def __init__(self, title: str, shown: bool = True) -> None:
        """Open the bar."""
        self._bar = tqdm(
            total=1.0,
            desc=title,
            disable=not shown or (None if not NOTEBOOK else False),
            bar_format="{desc:<22} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}",
            leave=False,
        )

    @property
    def shown(self) -> bool:
        """Whether there is a bar at all."""
        return not self._bar.disable

    def forward(self, part: float) -> None:
        """Move on by a part of the whole."""
        self._bar.update(min(part, 1.0 - self._bar.n))

    def to(self, part: float) -> None:
        """Move to a part of the whole."""
        self.forward(max(0.0, part - self._bar.n))

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()
