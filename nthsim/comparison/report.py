"""A comparison in words and numbers, for people."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from nthsim.comparison.bounds import Bounds
from nthsim.dynamics.errors import Errors, Series
from nthsim.dynamics.trajectory import Trajectory
from nthsim.results.terminal import fixed, scientific, table, wrapped

CAPTION = (
    "errors against exact flow: the largest over time, and, as `end`, the rms at the last time "
    "that both\nreached; K^(2) on training points, in Frobenius norm relative to that at t = 0; "
    "slope of log error\nat small times"
)

AUDITED = (
    "\nsolving: what ten times tighter tolerances change in f train, with exact flow's part; "
    "* is below it"
)
MARK = "*"

#: Beside a slope that is clearly too small.
WRONG = "!"

#: A run with no more steps than this per interval between save times would need fewer by itself.
FEW = 1.5


def error_table(
    errors: Mapping[str, Errors],
    slopes: Mapping[str, float],
    floors: Mapping[str, Series],
    broken: Collection[str] = (),
) -> str:
    """A row per dynamics: errors of f, of the training loss and of the kernel, and the slope.

    `floors` are the solver errors of those that were audited; what lies below is marked, and so are
    the slopes of what is `broken`.
    """
    if not errors:
        return ""
    tested = any(e.test_rms is not None for e in errors.values())
    points = ["f train:", "", "", "f test:", "", ""] if tested else ["f train:", "", ""]
    heads = ["rms", "max", "end"] * (1 + tested)
    audited = ["solving"] if floors else []
    rows = [["", *points, "", "", "", *("" for _ in audited)]]
    rows += [["", *heads, "loss", "K^(2)", "slope", *audited]]
    for name, e in errors.items():
        f = [_largest(e.train_rms), _largest(e.train_max), _last(e.train_rms)]
        f += [_largest(e.test_rms), _largest(e.test_max), _last(e.test_rms)] if tested else []
        f += [_largest(e.loss), _largest(e.kernel)]
        # Where only the start was reached all errors are zero, which says nothing.
        numbers = [scientific(value if np.any(e.ts > 0) else None) for value in f]
        low = floors.get(name)
        if low is not None and len(low):
            worst = int(np.argmax(e.train_rms))
            for i, at in ((0, worst), (2, -1)):
                numbers[i] += MARK if low[at] >= e.train_rms[at] and e.ts[at] > 0 else ""
        solving = [scientific(_largest(low))] if floors else []
        # Two digits, as rounding moves the third from run to run.
        slope = f"{fixed(slopes.get(name), 2)}{WRONG * (name in broken)}"
        rows.append([name, *numbers, slope, *solving])
    caption = f"{CAPTION}{AUDITED}" if floors else CAPTION
    return f"{caption}\n{table(rows)}"


def work_table(trajectories: Mapping[str, Trajectory], kernels: Mapping[str, float]) -> str:
    """A row per dynamics: the last save time, the losses there, and the work it took.

    `kernels` holds the seconds spent on the kernels that a dynamics starts from, outside `seconds`;
    `rhs` are right-hand sides.
    """
    told = any(run.accuracy is not None for run in trajectories.values())
    heads = (
        "to t =",
        *(("train loss", "acc.", "test loss", "acc.") if told else ("train loss", "test loss")),
        "steps",
        "rejected",
        "rhs",
        "run s",
        "kernels s",
    )
    rows = [["", *heads]]
    for label, run in trajectories.items():
        reached = f"{run.ts[-1]:g}" if len(run.ts) else "-"
        losses = [scientific(_last(loss), 3) for loss in (run.loss, run.test_loss)]
        if told:
            parts = [fixed(_last(part), 3) for part in (run.accuracy, run.test_accuracy)]
            losses = [losses[0], parts[0], losses[1], parts[1]]
        s = run.stats
        steps = [str(s.steps), str(s.rejected)] if s.steps else ["-", "-"]
        work = [*steps, str(s.evaluations), fixed(s.seconds, 2)]
        work.append(fixed(kernels.get(label), 2))
        rows.append([label, reached, *losses, *work])
    return table(rows)


def notes(trajectories: Mapping[str, Trajectory], drift: Series | None) -> Sequence[str]:
    """A line on the movement of the exact kernel, and one for each run that met with trouble."""
    lines = []
    if drift is not None:
        lines.append(
            "kernel drift of exact flow since t = 0, relative in the same way: "
            f"{scientific(_largest(drift))} (end: {scientific(_last(drift))})"
        )
    methods = {label: run.method for label, run in trajectories.items() if run.method is not None}
    lines += [wrapped(f"{label}: {method}") for label, method in methods.items()]
    common = next(iter(trajectories.values())).solver if trajectories else ""
    others = {label: run.solver for label, run in trajectories.items() if run.solver != common}
    lines += [wrapped(f"{label}: {solver}") for label, solver in others.items()]
    held = [label for label, run in trajectories.items() if _held(run)]
    if held:
        lines.append(
            wrapped(
                f"stepped from save time to save time though longer steps do: {', '.join(held)}"
            )
        )
    for label, run in trajectories.items():
        if run.stats.forced:
            missed = "steps missed the tolerance at jumps of the right-hand side"
            lines.append(f"{label}: {run.stats.forced} {missed}")
        if run.stop.reason != "horizon":
            lines.append(f"{label}: {run.stop.message}")
        lines += [wrapped(f"{label}, {line}") for line in run.recorded()]
    return lines


def bound_notes(bounds: Bounds, second: Errors | None, drift: Series | None) -> list[str]:
    """The bounds at the last time beside what was measured there, and what they rest on."""
    found = [
        (
            "error of f at order 2, rms",
            bounds.f_bound,
            None if second is None else second.train_rms,
        ),
        ("drift of K^(2), relative", bounds.drift_bound, drift),
    ]
    lines = [
        f"a-priori bound on the {name}: {scientific(_last(bound))} at the end; measured at most "
        f"{scientific(_largest(measured))}"
        for name, bound, measured in found
    ]
    lines += [wrapped(f"bounds from {bounds}")]
    return lines + [wrapped(f"bounds: {doubt}") for doubt in bounds.doubts]


def _held(run: Trajectory) -> bool:
    intervals, stats = int(np.count_nonzero(run.ts)), run.stats
    solved = stats.evaluations > stats.steps  # as each step of descent takes one gradient
    return solved and 0 < stats.steps <= FEW * intervals


def _largest(series: Series | None) -> float | None:
    return None if series is None or not len(series) else float(np.max(series))


def _last(series: Series | None) -> float | None:
    return None if series is None or not len(series) else float(series[-1])
