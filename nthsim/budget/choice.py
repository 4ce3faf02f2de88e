"""Which method fits into memory and is quicker; what is refused, as none does."""

from collections.abc import Callable

import equinox as eqx

from nthsim.budget.size import (
    Size,
    flow_bytes,
    hierarchy_bytes,
    perturbation_bytes,
    taylor_bytes,
)
from nthsim.budget.work import dense_seconds, rates, series_seconds
from nthsim.inputs.memory import available, check_fits, largest, readable

METHODS = ("auto", "dense", "series")


class Choice(eqx.Module):
    """A method and the reason for it, in words."""

    method: str
    reason: str

    def __str__(self) -> str:
        return f"{self.method} ({self.reason})"


class Needs(eqx.Module):
    """What a dynamics takes: numbers that move and that are frozen, bytes at the peak, flops.

    `kernels` is the work of its kernels, before the start and along the run, and `side` that of one
    right-hand side. `held` are bytes that stay in memory while others run. `choice` is the method
    of a truncation, and the reason for it.
    """

    moving: int
    frozen: int
    peak: int
    kernels: int
    side: int
    held: int = 0
    choice: Choice | None = None


def choose(size: Size, order: int, wanted: str) -> Choice:
    """The method that is wanted, or the one expected to be quicker, of those that fit into memory.

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


def check_flow(size: Size) -> None:
    """Refuse an exact flow that does not fit into memory."""
    check_points(size, flow_bytes, "exact flow")


def check_taylor(size: Size, degree: int) -> None:
    """Refuse a Taylor model whose flow does not fit into memory."""
    check_points(size, lambda size: taylor_bytes(size, degree), f"degree {degree}")


def check_perturbation(size: Size) -> None:
    """Refuse a perturbation theory whose kernels do not fit into memory."""
    check_points(size, perturbation_bytes, "perturbation theory")


def check_hierarchy(size: Size, order: int, method: str, *, name: str = "order") -> None:
    """Refuse a truncation that does not fit into memory by `method`, which may be "auto"."""

    def need(p: int, n: int) -> int:
        sized = size.with_n(n)
        return hierarchy_bytes(sized, p, choose(sized, p, method).method)

    check_fits(name, order, size.n, need)


def check_points(size: Size, need: Callable[[Size], int], name: str) -> None:
    """Refuse what does not fit into memory, and say which number of points would."""
    free = available()
    needed = need(size)
    if needed <= free:
        return
    shortage = f"{name} needs {readable(needed)} and {readable(free)} are available"
    fewer = largest(lambda n: need(size.with_n(n)) <= free, 1, size.n - 1)
    if fewer is None:
        raise ValueError(
            f"`model` must be smaller to fit into memory, or that be larger, but {shortage}."
        )
    raise ValueError(f"`data` must hold at most {fewer} points, but holds {size.n}: {shortage}.")
