"""How curves look, and what a legend says of them."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

#: Okabe and Ito's colours, which colour-blind people tell apart too; markers tell them in print.
LOOKS = (
    ("#000000", ""),
    ("#0072B2", "o"),
    ("#D55E00", "s"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#E69F00", "v"),
    ("#56B4E9", "P"),
    ("#882255", "*"),
    ("#8A7A1F", "h"),
    ("#332288", "X"),
    ("#661100", "<"),
    ("#117733", ">"),
    ("#AA4499", "p"),
)

#: How many curves over time take first; two theories have the next ones, then come the others.
PLAIN_LOOKS, THEORIES = 6, 2


def turn(place: int) -> int:
    """The look of the curve at this place, from 0 on, among those without one of their own."""
    others = len(LOOKS) - 1 - THEORIES
    place %= others
    return 1 + place + (THEORIES if place >= PLAIN_LOOKS else 0)


def look_of(look: int) -> tuple[str, str]:
    """A colour and a marker."""
    return LOOKS[0] if not look else LOOKS[1 + (look - 1) % (len(LOOKS) - 1)]


#: A label that matplotlib leaves out of a legend.
UNNAMED = "_"

#: Inches that a curve and the space about it, and a letter, take in a legend.
HANDLE, LETTER = 0.65, 0.068

#: Of a panel's own legend: entries in a row, points that a row takes, and inches that it is wide.
MOST_COLOURS, ROW, WIDE = 4, 13, 4.2


def shared_legend(
    figure: Figure, axes: Sequence[Axes], last: Sequence[str], *, width: float, most: int
) -> None:
    """Name what is in any of the axes once, below them all, `last` behind all else.

    It takes at most so many columns and inches.
    """
    handles = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    for label in last:
        handles[label] = handles.pop(label)
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=_columns(list(handles), width, most),
        frameon=False,
        fontsize=9,
    )


def own_legend(ax: Axes, colours: Mapping[str, int]) -> int:
    """Say above the axes what the colours of looks mean in them; returns the points that takes."""
    if not colours:
        return 0
    lines = [
        Line2D([], [], color=look_of(look)[0], linewidth=2.0, label=label)
        for label, look in colours.items()
    ]
    columns = _columns(list(colours), WIDE, MOST_COLOURS)
    ax.legend(
        handles=lines,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        borderaxespad=0.0,
        ncols=columns,
        handlelength=1.2,
        columnspacing=1.2,
        frameon=False,
        fontsize=8,
    )
    return ROW * -(-len(lines) // columns)


def _columns(labels: list[str], width: float, most: int) -> int:
    """How many columns of labels fit into so many inches; matplotlib fills one after another."""
    for ncols in range(min(len(labels), most), 1, -1):
        parts = np.array_split([len(label) for label in labels], ncols)
        if sum(HANDLE + LETTER * part.max() for part in parts) <= width:
            return ncols
    return 1
