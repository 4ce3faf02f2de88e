"""What one computation of nthsim turned out to be, beside the truth."""

import traceback
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import nthsim

#: An error as large is wrong, whatever the result says of it.
TOLD = 0.1


class Verdict(NamedTuple):
    """A word of `table.MEANINGS`, and a number or a sentence beside it."""

    word: str
    detail: str


def judged(call: Callable[[], tuple[float, str]], tolerance: float) -> Verdict:
    """Run a computation that returns its relative error, and what its result says of itself."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            error, told = call()
        except Exception as raised:  # whatever it is, it is what this table is about
            return _refusal(raised)
    ours = [w for w in caught if _package(w.category.__module__) == "nthsim"]
    if told and tolerance < error < TOLD:
        return Verdict("told", f"off by {error:.0e}; {told}")
    if not error <= tolerance:  # NaN is wrong too
        return Verdict("WRONG", f"{error:.0e}")
    if ours:
        return Verdict("aside", str(ours[0].message))
    return Verdict("right", f"{error:.0e}")


def relative_error(actual: np.ndarray, expected: np.ndarray, scale: float) -> float:
    """The largest difference over `scale`."""
    return float(np.abs(np.asarray(actual).reshape(expected.shape) - expected).max() / scale)


def _refusal(raised: Exception) -> Verdict:
    """A sentence is an error that one of nthsim's own lines raises, of the kinds it documents."""
    *_, (frame, _) = traceback.walk_tb(raised.__traceback__)
    ours = _package(frame.f_globals["__name__"]) == "nthsim"
    sentence = (str(raised).splitlines() or [""])[0]
    if ours and isinstance(raised, ValueError | nthsim.SolveError):
        return Verdict("says so", sentence)
    return Verdict("raw", f"{type(raised).__name__}: {sentence[:160]}")


def _package(module: str) -> str:
    return module.split(".")[0]
