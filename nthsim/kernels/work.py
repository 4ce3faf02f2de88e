"""What kernels take in bytes and flops; one that does not fit into memory is refused."""

from collections.abc import Sequence

import equinox as eqx
from jaxtyping import Array, PyTree

from nthsim.inputs.integers import orders_to
from nthsim.inputs.memory import check_fits
from nthsim.kernels.block_kernel import Slots
from nthsim.kernels.signals import tapped
from nthsim.network.calls import worthwhile_calls
from nthsim.network.network import AbstractNetwork, precision

#: Below this many flops nested derivatives are done before the other method is compiled.
QUICK = 10**10

#: Measured: one chunk of kernel entries, and what XLA keeps of each program that it compiles.
CHUNK, PROGRAM = 2**26, 2**25

#: Beyond this order a tensor's size is as good as infinite, and its powers take long to compute.
ENDLESS = 1000


class KernelWork(eqx.Module):
    """What kernels take by either method, in flops; within a factor of 2 of XLA's to order 5.

    `evaluation` is one forward pass at one input; `signals` the numbers that one input shows at the
    layers, None where they cannot be tapped.
    """

    evaluation: int
    signals: int | None

    def nested(self, first: int, N: int, order: int) -> int:
        r"""Twice a forward pass per entry of $K^{(2)}$, and 2.6 times more for each further order.

        `first` inputs stand in slot 1, beside the gradient that they are differentiated along.
        """
        return N ** (order - 1) * _growth(2 * (first + 3) * self.evaluation, order - 2)

    def structured(self, first: int, N: int, order: int) -> int:
        """For each setting of slots 3..r, signals on all inputs of slot 1, and products of them."""
        assert self.signals is not None
        signals, gram = 3 * first * self.evaluation, 2 * first * N * self.signals
        if order == 2:
            return signals + gram
        return N ** (order - 2) * _growth(signals + 2 * gram, order - 3)

    def quick(self, first: int, N: int, order: int) -> bool:
        """Whether nested derivatives take no time to speak of."""
        return self.nested(first, N, order) < QUICK

    def method(self, first: int, N: int, order: int) -> str:
        """The method that "auto" takes."""
        if self.signals is None or self.quick(first, N, order):
            return "nested"
        return "structured"

    def flops(self, first: int, N: int, order: int) -> int:
        """The work by the method that "auto" takes."""
        if self.method(first, N, order) == "nested":
            return self.nested(first, N, order)
        return self.structured(first, N, order)


class KernelSize(eqx.Module):
    """The whole numbers that kernels depend on.

    `n` training points, `k` outputs, `itemsize` bytes of one number. The first slot of every kernel
    holds `n_test` test points, and before them, where `joined`, the others. In the other slots so
    many `further` functions of the parameters follow.
    """

    n: int
    n_test: int
    joined: bool
    k: int
    itemsize: int
    work: KernelWork
    further: int = 0

    def entries(self, order: int) -> int:
        r"""The number of entries of $K^{(r)}$, test points in its first slot; of f for r = 1."""
        first = self.n * self.joined + self.n_test
        return first * self.k * (self.n * self.k + self.further) ** (min(order, ENDLESS) - 1)

    def kernel_bytes(self, order: int) -> int:
        """The peak of computing one kernel; that of vector outputs is copied once."""
        result = self.itemsize * self.entries(order) * (1 + (self.k > 1))
        return result + self.signal_bytes() + CHUNK + PROGRAM

    def signal_bytes(self) -> int:
        """What a kernel computed from layer inputs and signals holds of all points at once."""
        return 3 * self.itemsize * (self.n + self.n_test) * (self.work.signals or 0)

    def with_n(self, n: int) -> "KernelSize":
        """The same with another number of training points."""
        return eqx.tree_at(lambda size: size.n, self, n)


def kernel_size(
    network: AbstractNetwork, theta: PyTree[Array], slots: Slots, *, further: int = 0
) -> KernelSize:
    """Count the work of one evaluation and look for layers; nothing is computed."""
    n = len(slots.others)
    calls = worthwhile_calls(network, theta, slots.points[0])
    signals = None
    if not isinstance(calls, str):
        signals = tapped(network, theta, calls, slots.outputs).numbers(theta)
    return KernelSize(
        n=n,
        n_test=len(slots.first) - n * slots.joined,
        joined=slots.joined,
        k=slots.outputs,
        itemsize=precision(theta).itemsize,
        work=KernelWork(network.work(theta, slots.points).flops, signals),
        further=further,
    )


def check_kernel(size: KernelSize, order: int) -> None:
    """Refuse a kernel that does not fit into memory."""
    check_fits("order", order, size.n, lambda r, n: size.with_n(n).kernel_bytes(r), points="x")


def check_kernels(size: KernelSize, orders: Sequence[int], *, name: str = "orders") -> None:
    """Refuse several kernels that do not fit into memory together."""

    def need(top: int, n: int) -> int:
        sized = size.with_n(n)
        *kept, last = orders_to(top, orders)
        return sized.kernel_bytes(last) + sized.itemsize * sum(map(sized.entries, kept))

    check_fits(name, max(orders), size.n, need)


def _growth(flops: int, times: int) -> int:
    """Times 2.6 for each further derivative, in whole numbers of any size."""
    return flops * 13**times // 5**times
