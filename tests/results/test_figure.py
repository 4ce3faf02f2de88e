"""Figures show every curve on axes that fit it, and are written whole in known formats."""

import re
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nthsim.results.figure import HEADROOM, Line, Panel, draw, log_spaced, save

TS = np.linspace(0.0, 2.0, 11)


def _panel(*curves: Line, log: bool = True) -> Panel:
    return Panel("title", "quantity", curves, log)


def _decay(look: int = 1, end: float | None = None, scale: float = 1.0) -> Line:
    return Line(f"order {look + 1}", TS, scale * np.exp(-TS), look, end=end)


def _rendered(figure: Figure) -> Figure:
    FigureCanvasAgg(figure).draw()
    return figure


@pytest.mark.parametrize("panels", range(1, 8))
def test_every_panel_has_its_axes(panels):
    figure = _rendered(draw([_panel(_decay())] * panels, title="t"))
    assert len(figure.axes) == panels
    assert [ax.get_title() for ax in figure.axes] == ["title"] * panels
    assert {ax.get_ylabel() for ax in figure.axes} == {"quantity"}
    assert all("time" in ax.get_xlabel() for ax in figure.axes)


def test_legend_names_each_curve_once():
    figure = draw([_panel(_decay(1), _decay(2)), _panel(_decay(2), _decay(3))])
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["order 2", "order 3", "order 4"]


def test_neighbouring_curves_differ_in_colour_and_in_marker():
    figure = draw([_panel(*(_decay(look) for look in range(1, 7)))])
    lines = figure.axes[0].get_lines()
    assert len({line.get_color() for line in lines}) == 6
    assert len({str(line.get_marker()) for line in lines}) == 6


def test_zeros_are_left_out_of_a_logarithmic_axis():
    values = np.where(TS == 0, 0.0, np.exp(-TS))
    figure = _rendered(draw([_panel(Line("error", TS, values, 1))]))
    [line] = figure.axes[0].get_lines()
    assert np.isnan(np.asarray(line.get_ydata())[0])
    assert figure.axes[0].get_ylim()[0] > 0


def test_zeros_stay_on_a_linear_axis():
    figure = _rendered(draw([_panel(Line("loss", TS, np.zeros(11), 1), log=False)]))
    np.testing.assert_array_equal(figure.axes[0].get_lines()[0].get_ydata(), np.zeros(11))


@pytest.mark.parametrize("values", [np.zeros(11), np.full(11, np.nan), np.full(11, np.inf)])
def test_curve_with_nothing_to_show_is_no_obstacle(values, tmp_path):
    save(draw([_panel(Line("order 2", TS, values, 1), _decay(2, end=1.0))]), tmp_path / "a.png")


@pytest.mark.parametrize("times", [0, 1])
def test_curve_may_be_of_one_point_or_none(times, tmp_path):
    curve = Line("order 2", TS[:times], np.ones(times), 1, end=0.5)
    save(draw([_panel(curve)]), tmp_path / "a.png")


def test_blow_up_is_marked_at_its_time():
    figure = _rendered(draw([_panel(_decay(1), _decay(2, end=1.7129))]))
    marks = [line for line in figure.axes[0].get_lines() if line.get_marker() == "X"]
    assert [np.asarray(mark.get_xdata()).tolist() for mark in marks] == [[1.7129]]
    assert "order 3: blow-up" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_blow_up_does_not_squeeze_the_other_curves():
    figure = _rendered(draw([_panel(_decay(1), _decay(2, end=1.7129, scale=1e9))]))
    assert figure.axes[0].get_ylim()[1] == HEADROOM


def test_broad_curve_lies_below_the_others():
    exact = Line("exact flow", TS, np.exp(-TS), 0, broad=True)
    broad, thin = draw([_panel(exact, _decay(1))]).axes[0].get_lines()
    assert broad.get_zorder() < thin.get_zorder()
    assert broad.get_linewidth() > thin.get_linewidth()


def test_time_axis_is_logarithmic_if_the_times_are():
    even, spread = TS, np.geomspace(1e-3, 1.0, 11)
    assert not log_spaced(even)
    assert log_spaced(spread)
    assert not log_spaced(even[:1])
    for ts, scale in ((even, "linear"), (spread, "log")):
        figure = _rendered(draw([_panel(Line("loss", ts, np.exp(-ts), 1))]))
        assert figure.axes[0].get_xscale() == scale


def test_axis_of_less_than_two_decades_has_numbers():
    figure = _rendered(draw([_panel(Line("drift", TS, 0.025 + 0.01 * TS, 1))]))
    low, high = figure.axes[0].get_ylim()
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    shown = [
        label
        for tick, label in zip(figure.axes[0].get_yticks(), labels, strict=True)
        if low <= tick <= high and label
    ]
    assert shown


def test_no_text_overlaps_another():
    figure = _rendered(draw([_panel(_decay(1), _decay(2, end=1.5))] * 4, title="one\ntwo"))
    axes = figure.axes
    texts = [text for ax in axes for text in (ax.title, ax.xaxis.label, ax.yaxis.label)]
    boxes = [text.get_window_extent() for text in [*texts, *figure.texts]]
    boxes += [text.get_window_extent() for text in figure.legends[0].get_texts()]
    assert not [
        (i, j) for i, a in enumerate(boxes) for j, b in enumerate(boxes[:i]) if a.overlaps(b)
    ]


@pytest.mark.parametrize("entries", [1, 4, 5])
def test_legend_of_a_panel_stands_between_its_axes_and_its_title(entries):
    colours = {f"$K^{{({r})}}$": r for r in range(1, 1 + entries)}
    panel = Panel("title", "quantity", (_decay(),), colours=colours)
    figure = _rendered(draw([panel] * 3, title="above"))
    for ax in figure.axes:
        legend = ax.get_legend()
        assert legend is not None
        box = legend.get_window_extent()
        assert ax.bbox.y1 <= box.y0 + 1
        assert box.y1 <= ax.title.get_window_extent().y0
        assert (ax.bbox.x0 <= box.x0) & (box.x1 <= ax.bbox.x1)


def test_note_stands_beside_the_marker_of_its_curve():
    curves = [Line("", TS, np.exp(-TS), 3, mark=mark, note="-1.00") for mark in (1, 2)]
    [ax] = _rendered(draw([_panel(*curves)])).axes
    marks = [line for line in ax.get_lines() if len(np.asarray(line.get_xdata())) == 1]
    assert [mark.get_marker() for mark in marks] == ["o", "s"]
    heights = [np.asarray(mark.get_ydata())[0] for mark in marks]
    assert heights == [text.get_position()[1] for text in ax.texts]


@pytest.mark.parametrize("names", [4, 7, 10])
def test_legend_of_long_names_stays_within_the_figure(names):
    curves = [Line(f"number {i}, a name as long as many", TS, TS, 1 + i % 8) for i in range(names)]
    figure = _rendered(draw([_panel(*curves)] * 4))
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1


@pytest.mark.parametrize(
    ("suffix", "start"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".SVG", b"<?xml")]
)
def test_suffix_decides_the_format(suffix, start, tmp_path):
    path = tmp_path / f"figure{suffix}"
    save(draw([_panel(_decay())]), path)
    assert path.read_bytes().startswith(start)
    assert list(tmp_path.iterdir()) == [path]


def test_picture_has_150_dots_per_inch(tmp_path):
    figure = draw([_panel(_decay())])
    save(figure, tmp_path / "a.png")
    header = (tmp_path / "a.png").read_bytes()[16:24]
    width, height = (int.from_bytes(header[i : i + 4], "big") for i in (0, 4))
    assert (width, height) == tuple((150 * figure.get_size_inches()).astype(int))


@pytest.mark.parametrize("name", ["figure", "figure.txt", "figure.nc"])
def test_unknown_suffix_is_refused(name, tmp_path):
    path = tmp_path / name
    sentence = f"`path` must end in .png, .pdf, .svg, but is {path}."
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        save(draw([_panel(_decay())]), path)


def test_folder_must_exist(tmp_path):
    path = tmp_path / "missing" / "a.png"
    sentence = f"`path` must be in an existing folder, but {path.parent} is none."
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        save(draw([_panel(_decay())]), path)


def test_drawing_touches_no_global_state(tmp_path):
    # Read as a dictionary, rcParams look for a backend and so import pyplot themselves.
    code = """
import sys, numpy as np, matplotlib
before = matplotlib.rcParams.copy()
from nthsim.results.figure import Line, Panel, draw, save
save(draw([Panel("t", "q", (Line("c", np.ones(2), np.ones(2), 1),))]), sys.argv[1])
print("matplotlib.pyplot" in sys.modules, dict.__eq__(matplotlib.rcParams, before))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "a.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
