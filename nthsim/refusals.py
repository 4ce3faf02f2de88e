"""The refusal, before anything is allocated, of what does not fit into memory."""

from collections.abc import Callable, Mapping, Sequence

from jaxtyping import Array, PyTree

from nthsim.choices import Choice, choose
from nthsim.derivatives import check_forward
from nthsim.footprints import (
    Size,
    comparison_bytes,
    flow_bytes,
    hierarchy_bytes,
    kernel_bytes,
    perturbation_bytes,
    problem_size,
    size_of,
    taylor_bytes,
)
from nthsim.memory import available, check_fits, largest, readable
from nthsim.network import AbstractNetwork
from nthsim.problem import Problem
from nthsim.slots import Slots


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


def orders_to(top: int, orders: Sequence[int]) -> list[int]:
    """What is left of `orders` when the highest is to be `top`."""
    return [*(p for p in orders if p < top), top]


def check_roads(problem: Problem, roads: Mapping[int, Choice], degrees: Sequence[int] = ()) -> None:
    """Refuse orders and Taylor degrees whose derivatives the model does not allow.

    Raises:
        ValueError: When it holds a `custom_vjp` that stands in their way.
    """
    if problem.forward:
        return
    for p, choice in roads.items():
        if choice.method == "series":
            check_forward(problem.forward, f"order {p} as a series")
        else:
            problem.kernel(p)  # which refuses
    for q in degrees:
        check_forward(problem.forward, f"the Taylor model of degree {q}")


def check_kernel(network: AbstractNetwork, theta: PyTree[Array], slots: Slots, order: int) -> None:
    """Refuse a kernel that does not fit into memory."""
    size = size_of(network, theta, slots)
    need = lambda r, n: kernel_bytes(size.with_n(n), r)  # noqa: E731
    check_fits("order", order, size.n, need, points="x")


def check_kernels(problem: Problem, orders: Sequence[int], *, name: str = "orders") -> None:
    """Refuse several kernels that do not fit into memory together."""
    size = problem_size(problem)

    def need(top: int, n: int) -> int:
        sized = size.with_n(n)
        *kept, last = orders_to(top, orders)
        return kernel_bytes(sized, last) + sized.itemsize * sum(map(sized.entries, kept))

    check_fits(name, max(orders), size.n, need)


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
