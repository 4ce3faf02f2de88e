"""A comparison as one table of numbers over time."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from nthsim.dynamics.curve import EXACT
from nthsim.dynamics.errors import Errors, Series
from nthsim.dynamics.trajectory import Trajectory
from nthsim.results.variables import ERRORS


def frame(
    exact: Trajectory,
    curves: Mapping[str, Trajectory],
    errors: Mapping[str, Errors],
    drift: Series | None,
) -> pd.DataFrame:
    """One row for each curve and time, as `nthsim.Comparison.to_dataframe` tells."""
    further = {} if drift is None else {"drift": _column(drift, exact.record_ts)}
    parts = [_frame(EXACT, _series(exact) | further)]
    for key, curve in curves.items():
        found, series = errors[key], _series(curve)
        for field, name in ERRORS.items():
            values = getattr(found, field)
            if values is not None:
                clock = found.kernel_ts if field.startswith("kernel") else found.ts
                series[name] = _column(values, clock)
        parts.append(_frame(key, series))
    names = dict.fromkeys(name for part in parts for name in part.columns)
    last = [name for name in names if name == "drift" or name in exact.records]
    whole = pd.concat(parts, ignore_index=True)
    return whole.loc[:, [*(name for name in names if name not in last), *last]]


def _series(curve: Trajectory) -> dict[str, pd.Series]:
    """The single numbers that a curve has at its times."""
    names = ("loss", "test_loss", "accuracy", "test_accuracy", "solver_error")
    named = {name: getattr(curve, name) for name in names}
    found = {n: _column(values, curve.ts) for n, values in named.items() if values is not None}
    for name, values in curve.records.items():
        if values.ndim == 1:
            found[name] = _column(values, curve.record_ts)
    return found


def _column(values: np.ndarray, clock: np.ndarray | None) -> pd.Series:
    """Numbers by their times; pandas has no such half precision as JAX."""
    return pd.Series(values.astype(np.float32) if values.dtype.kind == "V" else values, clock)


def _frame(key: str, series: Mapping[str, pd.Series]) -> pd.DataFrame:
    """At all times of any of them."""
    found = pd.DataFrame(series).rename_axis("t").reset_index()
    found.insert(0, "curve", key)
    return found
