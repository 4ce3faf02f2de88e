"""Where higher orders stop helping, and what to change."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from nthsim.dynamics.errors import Errors, Series
from nthsim.dynamics.trajectory import Trajectory

#: Errors below this part of the outputs are as good as none, and no order is judged by them.
SOLVED = 1e-5

#: What to change.
CURE = (
    "shorter times, a larger width, targets nearer to the first outputs or, in a network of your "
    "own, weights scaled by 1/sqrt(width) keep it near that"
)


def verdict(orders: Mapping[int, Errors], exact: Trajectory, drift: Series | None) -> list[str]:
    """A sentence on the first order that is no nearer to exact flow than the one below, if one is.

    Compared are the largest errors so far, over the training points, as errors may cross zero.
    """
    ranked = sorted(orders)
    crossings = {q: _crossing(orders[p], orders[q], exact) for p, q in pairwise(ranked)}
    found = {q: t for q, t in crossings.items() if t is not None}
    if not found:
        return []
    q = min(found, key=lambda q: (found[q], q))
    p, t = ranked[ranked.index(q) - 1], found[q]
    moved = ""
    if drift is not None and exact.record_ts is not None and len(drift):
        at = int(np.searchsorted(exact.record_ts[: len(drift)], t, side="right")) - 1
        moved = f", when the tangent kernel has moved by {drift[max(at, 0)]:.0%} of itself"
    return [
        f"order {q} is no nearer to exact flow than order {p} from t = {t:g} on{moved}. The "
        f"hierarchy expands about the first kernel; {CURE}."
    ]


def _crossing(lower: Errors, higher: Errors, exact: Trajectory) -> float | None:
    """The time from which the higher order's largest error so far is not below the lower one's."""
    both = min(len(lower.ts), len(higher.ts))
    if both < 2:
        return None
    ts = lower.ts[:both]
    most = [np.maximum.accumulate(each.train_rms[:both]) for each in (lower, higher)]
    solved = SOLVED * np.sqrt(np.mean(exact.f[:both] ** 2))
    better = (most[1] < most[0]) | (most[1] < solved)
    if better[-1]:
        return None
    last = np.flatnonzero(better)
    return float(ts[last[-1] + 1] if len(last) else ts[0])
