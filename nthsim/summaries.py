"""A comparison in words and numbers, for people."""

from collections.abc import Mapping, Sequence

import numpy as np

from nthsim.errors import Errors, Series
from nthsim.tables import fixed, scientific, table
from nthsim.trajectories import Trajectory

CAPTION = (
    "errors against exact flow: the largest over time, and, as `end`, the rms at the last time "
    "that both\nreached; K^(2) on training points, relative in Frobenius norm; slope of log error "
    "at small times"
)


def error_table(errors: Mapping[int, Errors], slopes: Mapping[int, float]) -> str:
    """A row per order: errors of f, of the training loss and of the kernel, and the slope."""
    if not errors:
        return ""
    tested = any(e.test_rms is not None for e in errors.values())
    points = ["f train:", "", "", "f test:", "", ""] if tested else ["f train:", "", ""]
    heads = ["rms", "max", "end"] * (1 + tested)
    rows = [["", *points, "", "", ""], ["", *heads, "loss", "K^(2)", "slope"]]
    for p, e in errors.items():
        f = [_largest(e.train_rms), _largest(e.train_max), _last(e.train_rms)]
        f += [_largest(e.test_rms), _largest(e.test_max), _last(e.test_rms)] if tested else []
        numbers = [scientific(value) for value in (*f, _largest(e.loss), _largest(e.kernel))]
        rows.append([f"order {p}", *numbers, fixed(slopes.get(p), 3)])
    return f"{CAPTION}\n{table(rows)}"


def work_table(trajectories: Mapping[str, Trajectory]) -> str:
    """A row per dynamics: the last save time, the losses there, and the work it took."""
    heads = (
        "to t =",
        "train loss",
        "test loss",
        "steps",
        "rejected",
        "right-hand sides",
        "seconds",
    )
    rows = [["", *heads]]
    for label, run in trajectories.items():
        reached = f"{run.ts[-1]:g}" if len(run.ts) else "-"
        losses = [scientific(_last(loss), 3) for loss in (run.loss, run.test_loss)]
        s = run.stats
        work = [str(s.steps), str(s.rejected), str(s.evaluations), fixed(s.seconds, 2)]
        rows.append([label, reached, *losses, *work])
    return table(rows)


def notes(trajectories: Mapping[str, Trajectory], drift: Series | None) -> Sequence[str]:
    """A line on the movement of the exact kernel, and one for each run that met with trouble."""
    lines = []
    if drift is not None:
        start = next(iter(trajectories.values())).ts[0]
        lines.append(
            f"kernel drift of exact flow since t = {start:g}, relative in Frobenius norm: "
            f"{scientific(_largest(drift))} (end: {scientific(_last(drift))})"
        )
    for label, run in trajectories.items():
        if run.stats.forced:
            missed = "steps missed the tolerance at jumps of the right-hand side"
            lines.append(f"{label}: {run.stats.forced} {missed}")
        if run.stop.failed:
            lines.append(f"{label}: {run.stop.message}")
    return lines


def _largest(series: Series | None) -> float | None:
    return None if series is None or not len(series) else float(np.max(series))


def _last(series: Series | None) -> float | None:
    return None if series is None or not len(series) else float(series[-1])
