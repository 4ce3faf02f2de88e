"""What each dynamics holds in memory at its peak, and the refusal of what does not fit."""

from collections.abc import Sequence

import equinox as eqx
from jaxtyping import Array, PyTree

from nthsim.engines import KernelWork, kernel_work
from nthsim.memory import available, check_fits, largest, readable
from nthsim.network import Network, parameter_count
from nthsim.problem import Problem
from nthsim.slots import Slots

#: The most stages that a Runge–Kutta pair of ours has (Dopri8).
STAGES = 14

#: Copies of a moving state at the peak of a step, measured: every stage of a hierarchy is held
#: twice, every stage of an exact flow once.
TENSOR_COPIES, PARAMETER_COPIES = 2 * STAGES + 4, STAGES + 8

#: Measured: one chunk of kernel entries, and what XLA keeps of each program that it compiles.
CHUNK, PROGRAM = 2**26, 2**25

#: Beyond this order a tensor's size is as good as infinite, and its powers take long to compute.
ENDLESS = 1000


class Size(eqx.Module):
    """The whole numbers that memory and work depend on.

    `k` is the number of outputs, `parameters` that of parameters, `itemsize` the bytes of one
    number, `activations` what one evaluation at one input writes, and `work` that of kernels. The
    first slot of every kernel holds the test points, and before them, where `joined`, the others.
    """

    n: int
    n_test: int
    joined: bool
    k: int
    parameters: int
    itemsize: int
    activations: int
    work: KernelWork
    save_times: int

    def entries(self, order: int, *, tested: bool = True) -> int:
        r"""The number of entries of $K^{(r)}$, test points in its first slot; of f for r = 1."""
        first = self.n * self.joined + self.n_test * tested
        return first * self.k * (self.n * self.k) ** (min(order, ENDLESS) - 1)

    def moving(self, order: int, *, tested: bool = True) -> int:
        """The number of entries that move at truncation order p."""
        return sum(self.entries(r, tested=tested) for r in range(1, min(order, ENDLESS)))

    def with_n(self, n: int) -> "Size":
        """The same with another number of training points."""
        return eqx.tree_at(lambda size: size.n, self, n)


def size_of(network: Network, theta: PyTree[Array], slots: Slots, save_times: int) -> Size:
    """The numbers behind a kernel; one evaluation is lowered to be counted, none is made."""
    n = len(slots.others)
    return Size(
        n=n,
        n_test=len(slots.first) - n * slots.joined,
        joined=slots.joined,
        k=slots.outputs,
        parameters=parameter_count(theta),
        itemsize=slots.points.dtype.itemsize,
        activations=network.work(theta, slots.points).written,
        work=kernel_work(network, theta, slots),
        save_times=save_times,
    )


def problem_size(problem: Problem, save_times: int) -> Size:
    """The numbers of a problem."""
    return size_of(problem.network, problem.theta, problem.slots, save_times)


def flow_bytes(size: Size, *, recorded: bool) -> int:
    """The peak of exact gradient flow."""
    state = PARAMETER_COPIES * size.parameters + (size.n + size.n_test) * size.activations
    return size.itemsize * state + CHUNK + PROGRAM + _recorded_bytes(size) * recorded


def hierarchy_bytes(size: Size, order: int, *, recorded: bool) -> int:
    """The peak of a truncation at order p, its kernels included."""
    numbers = size.entries(order) + TENSOR_COPIES * size.moving(order)
    return size.itemsize * numbers + CHUNK + PROGRAM + _recorded_bytes(size) * recorded


def comparison_bytes(size: Size, orders: Sequence[int], *, certified: bool) -> int:
    """The peak of exact flow and all orders, whose trajectories and recorded kernels are kept."""
    top, runs = max(orders), 1 + len(orders)
    programs = PROGRAM * runs * (1 + certified)
    records = _recorded_bytes(size) * (runs + 1) // 2
    alone = [flow_bytes(size, recorded=False), hierarchy_bytes(size, top, recorded=False)]
    if certified:  # there the kernels are held once more, without their test points
        slices = size.entries(top, tested=False) + size.moving(top, tested=False)
        alone[1] += size.itemsize * slices
    return max(alone) + records + programs


def orders_to(top: int, orders: Sequence[int]) -> list[int]:
    """What is left of `orders` when the highest is to be `top`."""
    return [*(p for p in orders if p < top), top]


def kernel_bytes(size: Size, order: int) -> int:
    """The peak of computing one kernel; that of a network with vector outputs is copied once."""
    return size.itemsize * size.entries(order) * (1 + (size.k > 1)) + CHUNK + PROGRAM


def check_flow(problem: Problem, save_times: int, *, recorded: bool) -> None:
    """Refuse an exact flow that does not fit into memory."""
    size, free = problem_size(problem, save_times), available()
    needed = flow_bytes(size, recorded=recorded)
    if needed <= free:
        return
    shortage = f"exact flow needs {readable(needed)} and {readable(free)} are available"
    fits = lambda n: flow_bytes(size.with_n(n), recorded=recorded) <= free  # noqa: E731
    fewer = largest(fits, 1, size.n - 1)
    if fewer is None:
        raise ValueError(f"`model` must be smaller to fit into memory, but {shortage}.")
    raise ValueError(f"`data` must hold at most {fewer} points, but holds {size.n}: {shortage}.")


def check_hierarchy(
    problem: Problem, order: int, save_times: int, *, recorded: bool, name: str = "order"
) -> None:
    """Refuse a truncation that does not fit into memory."""
    size = problem_size(problem, save_times)
    need = lambda p, n: hierarchy_bytes(size.with_n(n), p, recorded=recorded)  # noqa: E731
    check_fits(name, order, size.n, need)


def check_comparison(
    problem: Problem, orders: Sequence[int], save_times: int, *, certified: bool
) -> None:
    """Refuse a comparison that does not fit into memory."""
    check_flow(problem, save_times, recorded=True)
    size = problem_size(problem, save_times)

    def need(top: int, n: int) -> int:
        return comparison_bytes(size.with_n(n), orders_to(top, orders), certified=certified)

    check_fits("orders", max(orders), size.n, need)


def check_kernel(network: Network, theta: PyTree[Array], slots: Slots, order: int) -> None:
    """Refuse a kernel that does not fit into memory."""
    size = size_of(network, theta, slots, 0)
    need = lambda r, n: kernel_bytes(size.with_n(n), r)  # noqa: E731
    check_fits("order", order, size.n, need, points="x")


def check_kernels(problem: Problem, orders: Sequence[int]) -> None:
    """Refuse several kernels that do not fit into memory together."""
    size = problem_size(problem, 0)

    def need(top: int, n: int) -> int:
        sized = size.with_n(n)
        *kept, last = orders_to(top, orders)
        return kernel_bytes(sized, last) + sized.itemsize * sum(map(sized.entries, kept))

    check_fits("orders", max(orders), size.n, need)


def _recorded_bytes(size: Size) -> int:
    """Tangent kernels at all save times, twice for a moment, when they are stacked."""
    return 2 * size.itemsize * size.save_times * size.entries(2)
