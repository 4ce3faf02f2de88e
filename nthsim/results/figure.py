"""Figures of curves over time or size, drawn without a display and without global state."""

import os
import textwrap
from collections.abc import Mapping, Sequence

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator

from nthsim.results.legend import UNNAMED, look_of, own_legend, shared_legend
from nthsim.results.whole_file import named, replacing

FORMATS = (".png", ".pdf", ".svg")
DPI = 150

#: Of a title, in an inch.
LETTERS = 13

#: Between notes, as a part of an axis.
APART = 0.065

#: What crossed out points are.
DOUBTFUL = "below the error of solving"

#: Gaps between save times that differ by more than this factor ask for a logarithmic time axis.
SPREAD = 50.0

#: How far above all other curves one that blows up is followed.
HEADROOM = 30.0


class Line(eqx.Module):
    """One line: `look` 0 is black, others have a colour and a marker each; `end` is a blow-up.

    A broad one is grey and lies below all others, which may coincide with it; a plain one has no
    markers. What is `doubtful` is crossed out. `bars` reach from a lower to an upper value, and a
    `band` does all along. A `note` is written beside the last point. `mark` is a look whose marker
    replaces that of `look`, on the curve and beside its note. What has no label is not in the
    legend.
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
    band: Float[np.ndarray, "2 T"] | None = None
    mark: int | None = None
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
    `colours` are looks by what their colours mean in this panel, which a legend of its own tells.
    """

    title: str
    quantity: str
    curves: tuple[Line, ...]
    log: bool = True
    x: str = "gradient-flow time $t$"
    sizes: tuple[int, ...] = ()
    powers: bool = False
    guides: tuple[Guide, ...] = ()
    colours: Mapping[str, int] = eqx.field(default_factory=dict)


def draw(panels: Sequence[Panel], *, title: str = "") -> Figure:
    """Draw panels beside each other, over the same times or sizes, with one legend below all."""
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
    last = dict.fromkeys(g.label for panel in panels for g in panel.guides if g.label)
    drawn = list(axes[: len(panels)])
    shared_legend(figure, drawn, list(last), width=4.4 * columns, most=2 * columns + 1)
    return figure


def plotted(panels: Sequence[Panel], *, title: str, path: str | os.PathLike[str] | None) -> Figure:
    """Draw panels, and write them where a path says so; a bad suffix is refused before all else.

    Raises:
        ValueError: As in `save`.
    """
    if path is not None:
        _check_suffix(path)
    figure = draw(panels, title=title)
    if path is not None:
        save(figure, path)
    return figure


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure in the format that the suffix names, whole or not at all.

    Raises:
        ValueError: When the suffix is none of `FORMATS`, or the file cannot be written.
    """
    _check_suffix(path)
    with replacing(path) as part:
        figure.savefig(part, dpi=DPI)


def _check_suffix(path: str | os.PathLike[str]) -> None:
    """Refuse the name of a file in no known format.

    Raises:
        ValueError: When the suffix is none of `FORMATS`.
    """
    if named(path).suffix.lower() not in FORMATS:
        raise ValueError(f"`path` must end in {', '.join(FORMATS)}, but is {path}.")


def log_spaced(ts: Float[np.ndarray, " T"]) -> bool:
    """Whether times are spaced so unevenly that a linear axis would hide most of them."""
    gaps = np.diff(ts)
    return bool(len(gaps)) and bool(gaps.max() > SPREAD * gaps.min())


def _panel(ax: Axes, panel: Panel) -> None:
    above = own_legend(ax, panel.colours)
    ax.set_title(panel.title, fontsize=10, pad=10 + above)
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
        colour = "0.55" if guide.look is None else look_of(guide.look)[0]
        look = {"color": colour, "linewidth": 0.9, "zorder": 2.2}
        ax.plot(guide.x, guide.values, guide.line, **look, label=guide.label or UNNAMED)
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
        colour, mark, place = look_of(noted[i].look)[0], noted[i].mark, 1.0
        if mark is not None:
            style = {"color": colour, "markersize": 3.5, "clip_on": False}
            ax.plot([1.015], [taken], look_of(mark)[1], transform=ax.transAxes, **style)
            place = 1.035
        style = {"color": colour, "fontsize": 8, "va": "center"}
        ax.text(place, taken, noted[i].note, transform=ax.transAxes, **style)


def _curve(ax: Axes, curve: Line, log: bool) -> None:
    colour, marker = look_of(curve.look)
    marker = marker if curve.mark is None else look_of(curve.mark)[1]
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
        linewidth=5.0 if curve.broad else 1.4,
        zorder=1.5 if curve.broad else 2.5,
        label=curve.label or UNNAMED,
    )
    if curve.bars is not None:
        low, high = np.where(np.isfinite(curve.bars), curve.bars, np.nan)
        ax.vlines(curve.x, low, high, color=colour, linewidth=1.2, zorder=2.4)
    if curve.band is not None:
        ax.fill_between(curve.x, *curve.band, color=colour, alpha=0.2, linewidth=0, zorder=2)
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
