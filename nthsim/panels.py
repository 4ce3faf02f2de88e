"""What the figure of a comparison shows: losses, errors of f, and kernels, over time."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from nthsim.errors import Series, errors
from nthsim.figures import Curve, Panel
from nthsim.trajectories import Trajectory


def panels(
    exact: Trajectory, truncations: Mapping[int, Trajectory], movement: Series | None
) -> tuple[Panel, ...]:
    """Losses; errors of f on training and, if there are any, test points; errors of the kernel."""
    runs = {0: exact, **truncations}
    found = {p: errors(run, exact) for p, run in truncations.items()}
    tested = exact.f_test is not None
    chosen = [_losses(runs)]
    for points in ("train", "test")[: 1 + tested]:
        series = {p: getattr(e, f"{points}_rms") for p, e in found.items()}
        curves = _along(truncations, series)
        where = {"train": "training", "test": "test"}[points]
        chosen.append(Panel(f"error of $f$ on {where} points", "root mean square", curves))
    if movement is not None:
        label = "drift of the exact kernel since $t = 0$"
        moved = _started(Curve(label, exact.ts, movement, look=0, line="-."))
        curves = _along(truncations, {p: e.kernel for p, e in found.items()})
        title = "error and drift of $K^{(2)}$"
        chosen.append(Panel(title, "relative Frobenius norm", (*curves, moved)))
    return tuple(panel for panel in chosen if panel.curves)


def _losses(runs: Mapping[int, Trajectory]) -> Panel:
    train = _curves(runs, {p: run.loss for p, run in runs.items()}, "-")
    test = _curves(runs, {p: run.test_loss for p, run in runs.items()}, "--")
    values = np.concatenate([curve.values for curve in (*train, *test)])
    log = bool(len(values)) and bool(values.max() > 10 * values.min() > 0)
    title = "loss (solid: training, dashed: test)" if test else "training loss"
    return Panel(title, "mean loss per point", (*train, *test), log=log)


def _along(
    runs: Mapping[int, Trajectory], series: Mapping[int, Series | None]
) -> tuple[Curve, ...]:
    """Curves that vanish at t = 0, which a logarithmic axis cannot show, without that point."""
    return tuple(_started(curve) for curve in _curves(runs, series, "-"))


def _curves(
    runs: Mapping[int, Trajectory], series: Mapping[int, Series | None], line: str
) -> tuple[Curve, ...]:
    found = []
    for look, (p, run) in enumerate(runs.items(), start=0 if 0 in runs else 1):
        values = series[p]
        if values is not None:
            label = f"order {p}" if p else "exact flow"
            end = run.stop.t if run.stop.reason == "blow-up" else None
            ts = run.ts[: len(values)]
            found.append(Curve(label, ts, values, look, line, end, broad=not p))
    return tuple(found)


def _started(curve: Curve) -> Curve:
    later = curve.ts > 0
    return dataclasses.replace(curve, ts=curve.ts[later], values=curve.values[later])
