"""Figures of curves over time or size, drawn without a display and without global state."""

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator

from nthsim.outputs import replacing

FORMATS = (".png", ".pdf", ".svg")
DPI = 150

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
)

#: Those that curves over time take in turn; the last two are for theories.
PLAIN_LOOKS = 6

#: Of a title, in an inch.
LETTERS = 13

#: Between notes, as a part of an axis.
APART = 0.065

#: What crossed out points are.
DOUBTFUL = "below the error of solving"

#: Inches that a curve and the space about it, and a letter, take in a legend.
HANDLE, LETTER = 0.65, 0.068

#: Gaps between save times that differ by more than this factor ask for a logarithmic time axis.
SPREAD = 50.0

#: How far above all other curves one that blows up is followed.
HEADROOM = 30.0


class Curve(eqx.Module):
    """One line: `look` 0 is black, others have a colour and a marker each; `end` is a blow-up.

    A broad one is grey and lies below all others, which may coincide with it; a plain one has no
    markers. What is `doubtful` is crossed out. `bars` reach from a lower to an upper value, and
    markers that are `hollow` tell two curves of one look apart. A `note` stands behind the end.
    """

    label: str
    x: Float[np.ndarray, " T"]
    values: Float[np.ndarray, " T"]
    look: int
    line: str = "-"
    end: float | None = None
    broad: bool = False
    plain: bool = False
    doubtful: Bool[np.ndarray, " T"] | None = None
    bars: Float[np.ndarray, "2 T"] | None = None
    hollow: bool = False
    note: str = ""


class Guide(eqx.Module):
    """A thin line without markers, of the colour of its `look`; grey for what is predicted."""

    label: str
    x: Float[np.ndarray, " T"]
    values: Float[np.ndarray, " T"]
    look: int | None = None
    line: str = "-"


class Panel(eqx.Module):
    """Curves over one pair of axes; a logarithmic one leaves out what is not positive.

    `x` is what they are drawn over, time by default. Times decide by their gaps whether that axis
    is logarithmic; `sizes` are marked on it one by one, and it is if `powers` are to be seen.
    """

    title: str
    quantity: str
    curves: tuple[Curve, ...]
    log: bool = True
    x: str = "gradient-flow time $t$"
    sizes: tuple[int, ...] = ()
    powers: bool = False
    guides: tuple[Guide, ...] = ()


def draw(panels: Sequence[Panel], *, title: str = "") -> Figure:
    """Draw panels beside each other, over the same times or sizes, with one legend for all."""
    columns = 2 if len(panels) in (2, 4) else min(3, len(panels))
    rows = -(-len(panels) // columns)
    width = 4.4 * columns if columns > 1 else 7.4
    folded = [textwrap.fill(line, int(LETTERS * width)) for line in title.splitlines()]
    height = 2.9 * rows + 0.9 + 0.17 * max(0, len(folded) - 2)
    figure = Figure(figsize=(width, height), layout="constrained")
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    engine.set(w_pad=0.08, h_pad=0.06)
    figure.suptitle("\n".join(folded), fontsize=10)
    axes = figure.subplots(rows, columns, sharex=True, squeeze=False).flatten()
    for ax, panel in zip(axes, panels, strict=False):
        _panel(ax, panel)
    for ax in axes[len(panels) :]:
        ax.remove()
    handles = {}
    for ax in axes[: len(panels)]:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    for guide in (guide for panel in panels for guide in panel.guides if guide.label):
        handles[guide.label] = handles.pop(guide.label)  # behind all curves
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=_legend_columns(list(handles), 4.4 * columns, 2 * columns + 1),
        frameon=False,
        fontsize=9,
    )
    return figure


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure in the format that the suffix names, whole or not at all.

    Raises:
        ValueError: When the suffix is none of `FORMATS`, or the file cannot be written.
    """
    check_suffix(path)
    with replacing(path) as part:
        figure.savefig(part, dpi=DPI)


def check_suffix(path: str | os.PathLike[str]) -> None:
    """Refuse the name of a file in no known format.

    Raises:
        ValueError: When the suffix is none of `FORMATS`.
    """
    if Path(path).suffix.lower() not in FORMATS:
        raise ValueError(f"`path` must end in {', '.join(FORMATS)}, but is {path}.")


def log_spaced(ts: Float[np.ndarray, " T"]) -> bool:
    """Whether times are spaced so unevenly that a linear axis would hide most of them."""
    gaps = np.diff(ts)
    return bool(len(gaps)) and bool(gaps.max() > SPREAD * gaps.min())


def _legend_columns(labels: list[str], width: float, most: int) -> int:
    """How many columns of labels fit into so many inches; matplotlib fills one after another."""
    for ncols in range(min(len(labels), most), 1, -1):
        parts = np.array_split([len(label) for label in labels], ncols)
        if sum(HANDLE + LETTER * part.max() for part in parts) <= width:
            return ncols
    return 1


def _panel(ax: Axes, panel: Panel) -> None:
    ax.set_title(panel.title, fontsize=10, pad=10)
    ax.set_xlabel(panel.x, fontsize=9)
    ax.set_ylabel(panel.quantity, fontsize=9)
    ax.tick_params(labelsize=8, labelbottom=True)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color="0.9", linewidth=0.6)
    if panel.log:
        ax.set_yscale("log")
    if panel.powers or any(log_spaced(curve.x) for curve in panel.curves if not panel.sizes):
        ax.set_xscale("log")
    if panel.sizes:
        ax.set_xticks(panel.sizes, [str(size) for size in panel.sizes])
        ax.xaxis.set_minor_locator(NullLocator())
    for curve in panel.curves:
        _curve(ax, curve, panel.log)
    for guide in panel.guides:
        colour = "0.55" if guide.look is None else _look(guide.look)[0]
        look = {"color": colour, "linewidth": 0.9, "zorder": 2.2}
        label = guide.label or "_"  # matplotlib leaves these out of a legend
        ax.plot(guide.x, guide.values, guide.line, **look, label=label)
    _limits(ax, panel)
    _notes(ax, panel)


def _notes(ax: Axes, panel: Panel) -> None:
    """Write each note beside the last point of its curve, apart from those below it."""
    noted = [curve for curve in panel.curves if curve.note and 0 < curve.values[-1] < np.inf]
    if not noted:
        return
    ends = [float(curve.values[-1]) for curve in noted]
    places = ax.transAxes.inverted().transform(ax.transData.transform([(1.0, y) for y in ends]))
    taken = -np.inf
    for i in np.argsort(ends):
        taken = max(places[i][1], taken + APART)
        style = {"color": _look(noted[i].look)[0], "fontsize": 8, "va": "center"}
        ax.text(1.0, taken, noted[i].note, transform=ax.transAxes, **style)


def _look(look: int) -> tuple[str, str]:
    """A colour and a marker."""
    return LOOKS[0] if not look else LOOKS[1 + (look - 1) % (len(LOOKS) - 1)]


def _curve(ax: Axes, curve: Curve, log: bool) -> None:
    colour, marker = _look(curve.look)
    values = np.where(curve.values > 0, curve.values, np.nan) if log else curve.values
    values = np.where(np.isfinite(values), values, np.nan) if curve.bars is not None else values
    step = max(1, len(values) // 8)
    ax.plot(
        curve.x,
        values,
        linestyle=curve.line,
        color="0.65" if curve.broad else colour,
        marker="" if curve.plain else marker,
        markevery=(curve.look * step // 3 % step, step),  # apart, so that no marker hides another
        markersize=4.5,
        markerfacecolor="white" if curve.hollow else None,
        linewidth=5.0 if curve.broad else 1.4,
        zorder=1.5 if curve.broad else 2.5,
        label=curve.label,
    )
    if curve.bars is not None:
        low, high = np.where(np.isfinite(curve.bars), curve.bars, np.nan)
        ax.vlines(curve.x, low, high, color=colour, linewidth=1.2, zorder=2.4)
    if curve.doubtful is not None and curve.doubtful.any():
        ax.plot(
            curve.x[curve.doubtful],
            values[curve.doubtful],
            "x",
            color="0.35",
            markersize=5,
            linestyle="none",
            zorder=3,
            label=DOUBTFUL,
        )
    if curve.end is not None:
        ax.axvline(curve.end, color=colour, linewidth=1.0, linestyle=":")
        ax.plot(
            [curve.end],
            [1.0],
            "X",
            color=colour,
            markersize=8,
            clip_on=False,
            linestyle="none",
            transform=ax.get_xaxis_transform(),
            label=f"{curve.label}: blow-up",
        )


def _limits(ax: Axes, panel: Panel) -> None:
    """Keep the curves that blow up from squeezing all others against the axis."""
    tame = [curve.values for curve in panel.curves if curve.end is None]
    top = max((v[np.isfinite(v)].max(initial=0.0) for v in tame), default=0.0)
    low, high = ax.get_ylim()
    if top > 0 and len(tame) < len(panel.curves):
        high = min(high, HEADROOM * top)
        ax.set_ylim(low, high)
    if panel.log and high < 100 * low:
        # Less than two decades: the powers of ten alone would leave an axis without numbers.
        narrow = high < 10 * low
        ax.yaxis.set_major_locator(MaxNLocator(4) if narrow else LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.yaxis.set_major_formatter("{x:g}")  # the default leaves most of these without a label
        ax.yaxis.set_minor_formatter(NullFormatter())
