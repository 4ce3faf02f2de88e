"""What the figure of a comparison shows: losses, errors of f, and kernels, over time."""

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import product
from types import MappingProxyType

import numpy as np
from jaxtyping import Float

from nthsim.comparison.bounds import Bounds
from nthsim.dynamics.curve import EXACT, Curve
from nthsim.dynamics.errors import RELATIVE, Errors, Series, errors
from nthsim.dynamics.hierarchy import Order
from nthsim.dynamics.trajectory import Trajectory
from nthsim.results.figure import Line, Panel
from nthsim.results.legend import PLAIN_LOOKS, turn
from nthsim.results.record import Label

#: Times, and what is shown at them; None where it is not known.
Values = tuple[Series | None, Series | None]

#: Of a user's own quantities, those with at most so many numbers are drawn.
MOST = 8

#: Of a dynamics with noise, between which quantiles of its paths the losses are shaded.
BAND = (0.1, 0.9)


def panels(
    exact: Trajectory,
    others: Mapping[str, Trajectory],
    curves: Mapping[str, Curve],
    *,
    start: Float[np.ndarray, "n ..."] | None = None,
    drift: Series | None = None,
    floors: Mapping[str, Series] = MappingProxyType({}),
    bounds: Bounds | None = None,
    broken: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Panel, ...]:
    """Losses; errors of f on training and test points, and of the kernel; what else was recorded.

    Bounds are dashed lines beside what they bound. `broken` are the orders whose slopes are clearly
    too small, with what is said of that beside their curves. `curves` say how the others look, and
    `start` is the tangent kernel at t = 0, which errors of kernels are relative to, as `drift` is.
    """
    found = {key: errors(other, exact, start) for key, other in others.items()}
    draw = _Lines(curves, list(others))
    chosen = [_losses(draw, {EXACT: exact, **others})]
    for points in ("train", "test")[: 1 + (exact.f_test is not None)]:
        series = {key: (e.ts, getattr(e, f"{points}_rms")) for key, e in found.items()}
        where = {"train": "training", "test": "test"}[points]
        lines = _started(draw.all(others, series, "-"))
        if points == "train":
            lines = tuple(_noted(_doubted(line, floors), broken) for line in lines)
            if bounds is not None:
                look = draw.look(Order(2).key) if Order(2).key in others else 0
                label = "a-priori bound, order 2"
                lines = (*lines, _bound(label, bounds.ts, bounds.f_bound, look=look))
        chosen.append(Panel(f"error of $f$ on {where} points", "root mean square", lines))
    if drift is not None and exact.record_ts is not None:
        chosen.append(_kernels(draw, exact, others, found, drift, bounds))
    runs = {EXACT: exact, **others}
    chosen += [_own(draw, runs, name, label) for name, label in exact.labels.items()]
    return tuple(panel for panel in chosen if panel.curves)


class _Lines:
    """How each curve is drawn."""

    def __init__(self, curves: Mapping[str, Curve], keys: Sequence[str]) -> None:
        """Those without a look of their own get one by their place."""
        self.curves, self.keys = curves, keys

    def look(self, key: str) -> int:
        """Theories look the same whatever they stand beside; exact flow is black."""
        if key == EXACT:
            return 0
        own = self.curves[key].look
        return turn(self.keys.index(key)) if own is None else PLAIN_LOOKS + own

    def all(
        self, runs: Mapping[str, Trajectory], series: Mapping[str, Values], style: str
    ) -> tuple[Line, ...]:
        """A line for each of the runs of which something is known."""
        lines = []
        for key, found in runs.items():
            ts, values = series[key]
            if ts is None or values is None:
                continue
            end = found.stop.t if found.stop.reason == "blow-up" else None
            dotted = key != EXACT and self.curves[key].dotted
            shown = ":" if dotted and style == "-" else style
            broad = key == EXACT
            lines.append(Line(key, ts, values, self.look(key), shown, end, broad=broad))
        return tuple(lines)


def _kernels(
    draw: _Lines,
    exact: Trajectory,
    others: Mapping[str, Trajectory],
    found: Mapping[str, Errors],
    drift: Series,
    bounds: Bounds | None,
) -> Panel:
    """Errors of the tangent kernel, and how far that of exact flow moves."""
    assert exact.record_ts is not None
    series = {key: (e.kernel_ts, e.kernel) for key, e in found.items()}
    label = "drift of the exact kernel since $t = 0$"
    moved = Line(label, exact.record_ts, drift, look=0, line="-.")
    lines = _started((*draw.all(others, series, "-"), moved))
    if bounds is not None:
        label = "a-priori bound on the drift"
        lines = (*lines, _bound(label, bounds.ts, bounds.drift_bound, look=0))
    return Panel("error and drift of $K^{(2)}$", RELATIVE, lines)


def _own(draw: _Lines, runs: Mapping[str, Trajectory], name: str, label: Label) -> Panel:
    """What was recorded under a name: single numbers of all runs, several of exact flow alone."""
    exact, unit = runs[EXACT], name if label.unit == "1" else label.unit
    if not label.axes:
        series = {key: (run.record_ts, run.records.get(name)) for key, run in runs.items()}
        return Panel(name, unit, draw.all(runs, series, "-"), log=False)
    values = exact.records.get(name, np.empty(0))
    if not len(values) or exact.record_ts is None or values[0].size > MOST:
        return Panel(name, unit, ())
    places = list(product(*(label.coordinates[axis] for axis in label.axes)))
    texts = [
        ", ".join(
            f"{value}" if isinstance(value, str) else f"{axis} {value}"
            for axis, value in zip(label.axes, place, strict=True)
        )
        for place in places
    ]
    rows = values.reshape(len(values), -1).T
    lines = [Line("", exact.record_ts, row, look=i) for i, row in enumerate(rows)]
    colours = {text: i for i, text in enumerate(texts)}
    return Panel(f"{name} of exact flow", unit, tuple(lines), log=False, colours=colours)


def _losses(draw: _Lines, runs: Mapping[str, Trajectory]) -> Panel:
    noisy = {key: run for key, run in runs.items() if run.path_loss is not None}
    train = tuple(
        dataclasses.replace(line, band=noisy[line.label].quantiles(BAND, "loss"))
        if line.label in noisy
        else line
        for line in draw.all(runs, {key: (run.ts, run.loss) for key, run in runs.items()}, "-")
    )
    test = draw.all(runs, {key: (run.ts, run.test_loss) for key, run in runs.items()}, "--")
    values = np.concatenate([line.values for line in (*train, *test)])
    log = bool(len(values)) and bool(values.max() > 10 * values.min() > 0)
    told = ["solid: training, dashed: test"] if test else []
    told += [f"band: {BAND[1] - BAND[0]:.0%} of paths"] if noisy else []
    title = ("loss" if test else "training loss") + (f" ({', '.join(told)})" if told else "")
    return Panel(title, "mean loss per point", (*train, *test), log=log)


def _bound(label: str, ts: Series, values: Series, *, look: int) -> Line:
    return _started((Line(label, ts, values, look, "--", plain=True),))[0]


def _doubted(line: Line, floors: Mapping[str, Series]) -> Line:
    if line.label not in floors:
        return line
    below = floors[line.label][-len(line.x) :] >= line.values
    return dataclasses.replace(line, doubtful=below)


def _noted(line: Line, notes: Mapping[str, str]) -> Line:
    return dataclasses.replace(line, note=notes.get(line.label, ""))


def _started(lines: Sequence[Line]) -> tuple[Line, ...]:
    """Lines that vanish at t = 0, which a logarithmic axis cannot show, without that point."""
    return tuple(
        dataclasses.replace(line, x=line.x[line.x > 0], values=line.values[line.x > 0])
        for line in lines
    )
