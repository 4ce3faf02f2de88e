"""Which road to a kernel: nested derivatives, or the structure of linear layers."""

import equinox as eqx
import jax
from jaxtyping import Array, PyTree

from nthsim.blocks import CHUNK_BYTES, AbstractBlockKernel
from nthsim.lie import lie_kernel
from nthsim.network import Network, parameter_count
from nthsim.slots import Slots
from nthsim.structured import structured_kernel
from nthsim.taps import rest_of, tap

METHODS = ("auto", "structured", "nested")

#: Below this many flops nested derivatives are done before the other road is compiled.
QUICK = 10**10

#: "auto" leaves networks alone that keep more than this part of their parameters elsewhere than in
#: linear layers: gradients by those are formed.
ELSEWHERE = 0.1


class KernelWork(eqx.Module):
    """What kernels take by either road, in flops; within a factor of 2 of XLA's count to order 5.

    `evaluation` is one forward pass at one input; `signals` the numbers that one input shows at the
    linear layers, None where they cannot be tapped.
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

    def method(self, first: int, N: int, order: int) -> str:
        """The road that "auto" takes."""
        if self.signals is None or self.nested(first, N, order) < QUICK:
            return "nested"
        return "structured"

    def flops(self, first: int, N: int, order: int) -> int:
        """The work by the road that "auto" takes."""
        if self.method(first, N, order) == "nested":
            return self.nested(first, N, order)
        return self.structured(first, N, order)


def kernel_work(network: Network, theta: PyTree[Array], slots: Slots) -> KernelWork:
    """Count the work of one evaluation and look for linear layers; nothing is computed."""
    evaluation = network.work(theta, slots.points).flops
    elsewhere = sum(leaf.size for leaf in jax.tree.leaves(rest_of(theta)))
    if elsewhere > ELSEWHERE * parameter_count(theta):
        return KernelWork(evaluation, None)
    try:
        tapped = tap(network, theta, slots.points[0], slots.outputs)
    except ValueError:
        return KernelWork(evaluation, None)
    return KernelWork(evaluation, tapped.numbers(theta))


def block_kernel(
    network: Network,
    theta: PyTree[Array],
    slots: Slots,
    order: int,
    *,
    method: str = "auto",
    chunk_bytes: int = CHUNK_BYTES,
) -> AbstractBlockKernel:
    r"""$K^{(r)}$ as a function of the parameters, by `method`.

    Raises:
        ValueError: When "structured" is asked for and the network's layers cannot be tapped.
    """
    if method == "auto":
        work = kernel_work(network, theta, slots)
        method = work.method(len(slots.first), slots.shape(2)[1], order)
    make = lie_kernel if method == "nested" else structured_kernel
    return make(network, theta, slots, order, chunk_bytes=chunk_bytes)


def _growth(flops: int, times: int) -> int:
    """Times 2.6 for each further derivative, in whole numbers of any size."""
    return flops * 13**times // 5**times
