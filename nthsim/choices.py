"""Which road an order of the hierarchy is integrated by, and why."""

import equinox as eqx

from nthsim.costs import dense_seconds, series_seconds
from nthsim.footprints import Size, hierarchy_bytes
from nthsim.memory import available, readable
from nthsim.rates import rates

METHODS = ("auto", "dense", "series")


class Choice(eqx.Module):
    """A road and the reason for it, in words."""

    method: str
    reason: str

    def __str__(self) -> str:
        return f"{self.method} ({self.reason})"


def choose(size: Size, order: int, wanted: str) -> Choice:
    """The road that is wanted, or the one expected to be quicker, of those that fit into memory.

    Expectations rest on the rates of matrix products and of reading measured on this device.
    """
    if wanted != "auto":
        return Choice(wanted, "as asked for")
    if not size.forward:
        return Choice("dense", "a custom_vjp keeps derivatives along a series away")
    free = available()
    needed = hierarchy_bytes(size, order, "dense")
    if needed > free:
        return Choice("series", f"dense needs {readable(needed)} of {readable(free)}")
    if hierarchy_bytes(size, order, "series") > free:
        return Choice("dense", f"series needs more than {readable(free)}")
    speed = rates(_dtype(size))
    dense, series = (seconds(size, order, speed) for seconds in (dense_seconds, series_seconds))
    method = "dense" if dense <= series else "series"
    return Choice(method, f"about {_short(dense)} as dense, {_short(series)} as series")


def _dtype(size: Size) -> str:
    return f"float{8 * size.itemsize}"


def _short(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.2g} min" if seconds < 7200 else f"{seconds / 3600:.2g} h"
