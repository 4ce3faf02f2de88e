"""What the figure of a comparison shows: losses, errors of f, and kernels, over time."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from nthsim.comparison.asked import THEORIES
from nthsim.comparison.bounds import Bounds
from nthsim.dynamics.errors import Series, errors
from nthsim.dynamics.trajectory import Trajectory
from nthsim.results.figure import Curve, Panel
from nthsim.results.legend import PLAIN_LOOKS

EXACT = "exact flow"

#: Theories look the same whatever they stand beside.
THEORY_LOOKS = {name: PLAIN_LOOKS + i for i, name in enumerate(THEORIES.values(), start=1)}

#: Times, and what is shown at them; None where it is not known.
Values = tuple[Series | None, Series | None]


def panels(
    exact: Trajectory,
    others: Mapping[str, Trajectory],
    movement: Series | None,
    floors: Mapping[str, Series],
    bounds: Bounds | None = None,
    broken: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Panel, ...]:
    """Losses; errors of f on training and, if there are any, test points; errors of the kernel.

    Bounds are dashed lines beside what they bound. `broken` are the orders whose
    slopes are clearly too small, with what is said of that beside their curves.
    """
    found = {name: errors(run, exact) for name, run in others.items()}
    tested = exact.f_test is not None
    chosen = [_losses({EXACT: exact, **others})]
    for points in ("train", "test")[: 1 + tested]:
        series = {name: (e.ts, getattr(e, f"{points}_rms")) for name, e in found.items()}
        where = {"train": "training", "test": "test"}[points]
        curves = _along(others, series)
        if points == "train":
            curves = tuple(_noted(_doubted(curve, floors), broken) for curve in curves)
            if bounds is not None:
                label = "a-priori bound, order 2"
                look = int("order 2" in others)  # which is the first of all where it is there
                curves = (*curves, _bound(label, bounds.ts, bounds.f_bound, look=look))
        chosen.append(Panel(f"error of $f$ on {where} points", "root mean square", curves))
    if movement is not None and exact.kernel_ts is not None:
        label = "drift of the exact kernel since $t = 0$"
        moved = _started(Curve(label, exact.kernel_ts, movement, look=0, line="-."))
        series = {name: (e.kernel_ts, e.kernel) for name, e in found.items()}
        title = "error and drift of $K^{(2)}$"
        curves = (*_along(others, series), moved)
        if bounds is not None:
            label = "a-priori bound on the drift"
            curves = (*curves, _bound(label, bounds.ts, bounds.drift_bound, look=0))
        chosen.append(Panel(title, "relative Frobenius norm", curves))
    return tuple(panel for panel in chosen if panel.curves)


def _losses(runs: Mapping[str, Trajectory]) -> Panel:
    train = _curves(runs, {name: (run.ts, run.loss) for name, run in runs.items()}, "-")
    test = _curves(runs, {name: (run.ts, run.test_loss) for name, run in runs.items()}, "--")
    values = np.concatenate([curve.values for curve in (*train, *test)])
    log = bool(len(values)) and bool(values.max() > 10 * values.min() > 0)
    title = "loss (solid: training, dashed: test)" if test else "training loss"
    return Panel(title, "mean loss per point", (*train, *test), log=log)


def _along(runs: Mapping[str, Trajectory], series: Mapping[str, Values]) -> tuple[Curve, ...]:
    """Curves that vanish at t = 0, which a logarithmic axis cannot show, without that point."""
    return tuple(_started(curve) for curve in _curves(runs, series, "-"))


def _curves(
    runs: Mapping[str, Trajectory], series: Mapping[str, Values], line: str
) -> tuple[Curve, ...]:
    found = []
    for place, (name, run) in enumerate(runs.items(), start=0 if EXACT in runs else 1):
        ts, values = series[name]
        look = THEORY_LOOKS.get(name, place and 1 + (place - 1) % PLAIN_LOOKS)
        if ts is not None and values is not None:
            end = run.stop.t if run.stop.reason == "blow-up" else None
            # A Taylor model of degree 1 is order 2, and perturbation theory is nearly order 4:
            # dotted, they let those be seen below.
            above = name.startswith("Taylor") or name == THEORIES["perturbation"]
            drawn = ":" if above and line == "-" else line
            found.append(Curve(name, ts, values, look, drawn, end, broad=name == EXACT))
    return tuple(found)


def _bound(label: str, ts: Series, values: Series, *, look: int) -> Curve:
    return _started(Curve(label, ts, values, look, "--", plain=True))


def _doubted(curve: Curve, floors: Mapping[str, Series]) -> Curve:
    if curve.label not in floors:
        return curve
    below = floors[curve.label][-len(curve.x) :] >= curve.values
    return dataclasses.replace(curve, doubtful=below)


def _noted(curve: Curve, notes: Mapping[str, str]) -> Curve:
    return dataclasses.replace(curve, note=notes.get(curve.label, ""))


def _started(curve: Curve) -> Curve:
    later = curve.x > 0
    return dataclasses.replace(curve, x=curve.x[later], values=curve.values[later])
