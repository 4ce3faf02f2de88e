"""Which method fits into memory and is quicker, and what is refused as nothing fits."""

from collections.abc import Callable, Sequence

import equinox as eqx

from nthsim.budget.size import (
    Size,
    comparison_bytes,
    flow_bytes,
    hierarchy_bytes,
    perturbation_bytes,
    taylor_bytes,
)
from nthsim.budget.work import dense_seconds, rates, series_seconds
from nthsim.inputs.integers import orders_to
from nthsim.inputs.memory import available, check_fits, largest, readable

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


def check_flow(size: Size) -> None:
    """Refuse an exact flow that does not fit into memory."""
    _check_points(size, flow_bytes, "exact flow")


def check_taylor(size: Size, degree: int) -> None:
    """Refuse a Taylor model whose flow does not fit into memory."""
    _check_points(size, lambda size: taylor_bytes(size, degree), f"degree {degree}")


def check_perturbation(size: Size) -> None:
    """Refuse a perturbation theory whose kernels do not fit into memory."""
    _check_points(size, perturbation_bytes, "perturbation theory")


def check_hierarchy(size: Size, order: int, method: str, *, name: str = "order") -> None:
    """Refuse a truncation that does not fit into memory by `method`, which may be "auto"."""

    def need(p: int, n: int) -> int:
        sized = size.with_n(n)
        return hierarchy_bytes(sized, p, choose(sized, p, method).method)

    check_fits(name, order, size.n, need)


def check_comparison(
    size: Size,
    orders: Sequence[int],
    degrees: Sequence[int],
    method: str,
    *,
    certified: bool,
) -> None:
    """Refuse a comparison that does not fit into memory."""
    check_flow(size)
    need = lambda top, n: compared_bytes(  # noqa: E731
        size.with_n(n), orders_to(top, orders), degrees, method, certified=certified
    )
    check_fits("orders", max(orders), size.n, need)


def compared_bytes(
    size: Size, orders: Sequence[int], degrees: Sequence[int], method: str, *, certified: bool
) -> int:
    """The peak of a comparison, each order by the road that `method` leads to."""
    roads = compared_choices(size, orders, degrees, method, certified=certified)
    methods = {p: choice.method for p, choice in roads.items()}
    return comparison_bytes(size, methods, degrees, certified=certified)


def compared_choices(
    size: Size, orders: Sequence[int], degrees: Sequence[int], method: str, *, certified: bool
) -> dict[int, Choice]:
    """The road of each order; "auto" leaves dense, from the top, what does not fit together."""
    roads = {p: choose(size, p, method) for p in orders}
    for p in sorted(orders, reverse=True) if method == "auto" and size.forward else ():
        methods = {q: choice.method for q, choice in roads.items()}
        if comparison_bytes(size, methods, degrees, certified=certified) <= available():
            break
        roads[p] = Choice("series", "dense does not fit beside the rest")
    return roads


def _check_points(size: Size, need: Callable[[Size], int], name: str) -> None:
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
