"""Members that share their steps, apart where one of them ends the run of all."""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from nthsim.results.terminal import several
from nthsim.solvers.solution import Solution
from nthsim.solvers.stop import Stop


def separated(
    walk: Callable[[slice], Solution], members: int, ts: Float[np.ndarray, " T"]
) -> Solution:
    """The run of all members; where steps fall to the rounding of t, halves of them by themselves.

    So the others go on where one stays, which shows NaN at the times that it has not come to, and
    what each shows does not depend on whom it shares its steps with.

    Args:
        walk: What makes the run of some members, whose records have their axis behind that of time.
        members: How many there are.
        ts: The save times.

    Raises:
        KeyboardInterrupt: At Ctrl-C, which an integration takes for a reason to end.
    """
    return _walked(walk, 0, members, ts)


def _walked(
    walk: Callable[[slice], Solution], first: int, last: int, ts: Float[np.ndarray, " T"]
) -> Solution:
    found = walk(slice(first, last))
    if found.stop.reason == "interrupt":
        raise KeyboardInterrupt
    if found.stop.reason != "step size":
        return found
    if last - first == 1:
        return _filled(found, ts)
    middle = (first + last) // 2
    halves = [_walked(walk, first, middle, ts), _walked(walk, middle, last, ts)]
    return _joined([_filled(half, ts) for half in halves], last - first)


def _filled(run: Solution, ts: Float[np.ndarray, " T"]) -> Solution:
    """With NaN at the save times that were not reached."""

    def whole(values: np.ndarray) -> np.ndarray:
        rest = np.full((len(ts) - len(values), *values.shape[1:]), np.nan, values.dtype)
        return np.concatenate([values, rest])

    return dataclasses.replace(
        run, ts=ts, records={name: whole(each) for name, each in run.records.items()}
    )


def _joined(runs: list[Solution], members: int) -> Solution:
    """Side by side; the stop of the first that did not come to the end, and how many did not."""
    records = {
        name: np.concatenate([run.records[name] for run in runs], axis=1)
        for name in runs[0].records
    }
    ended = [run.stop for run in runs if run.stop.failed]
    stop = ended[0] if ended else runs[0].stop
    if ended and ended[0].reason == "step size":
        lost = int(np.isnan(records["f"][-1].reshape(members, -1)).any(axis=1).sum())
        words = f"{lost} of {several(members, 'seed')} did not come to the end: the step size fell"
        t = min(each.t for each in ended)
        stop = Stop("step size", t, f"{words} to the rounding of t, first at t = {t:.6g}")
    return dataclasses.replace(runs[0], records=records, stop=stop)
