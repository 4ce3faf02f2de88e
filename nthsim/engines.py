"""Which road to a kernel: nested derivatives, or the structure of a network's layers."""

import warnings

import equinox as eqx
from jaxtyping import Array, PyTree

from nthsim.blocks import CHUNK_BYTES, AbstractBlockKernel
from nthsim.calls import Obstacle
from nthsim.layers import outside_layers
from nthsim.lie import lie_kernel
from nthsim.network import AbstractNetwork, Network, parameter_count
from nthsim.slots import Slots
from nthsim.structured import structured_kernel
from nthsim.taps import TappedNetwork, tap

METHODS = ("auto", "structured", "nested")

#: Below this many flops nested derivatives are done before the other road is compiled.
QUICK = 10**10

#: "auto" leaves networks alone that keep more than this part of their parameters elsewhere than in
#: layers: gradients by those are formed.
ELSEWHERE = 0.1


class SlowKernelWarning(UserWarning):
    """A large kernel takes nested derivatives, because a model cannot be taken apart."""


class KernelWork(eqx.Module):
    """What kernels take by either road, in flops; within a factor of 2 of XLA's count to order 5.

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
        """The road that "auto" takes."""
        if self.signals is None or self.quick(first, N, order):
            return "nested"
        return "structured"

    def flops(self, first: int, N: int, order: int) -> int:
        """The work by the road that "auto" takes."""
        if self.method(first, N, order) == "nested":
            return self.nested(first, N, order)
        return self.structured(first, N, order)


def kernel_work(network: AbstractNetwork, theta: PyTree[Array], slots: Slots) -> KernelWork:
    """Count the work of one evaluation and look for layers; nothing is computed."""
    tapped = taken_apart(network, theta, slots.points[0], slots.outputs)
    return _work(network, theta, slots, tapped)


def block_kernel(
    network: AbstractNetwork,
    theta: PyTree[Array],
    slots: Slots,
    order: int,
    *,
    method: str = "auto",
    chunk_bytes: int = CHUNK_BYTES,
) -> AbstractBlockKernel:
    r"""$K^{(r)}$ as a function of the parameters, by `method`.

    Raises:
        ValueError: When "structured" is asked for and the network cannot be taken apart.

    Warns:
        SlowKernelWarning: When "auto" takes nested derivatives for a large kernel, and why; Python
            shows the same warning once.
    """
    tapped: TappedNetwork | str = ""
    expanded = not isinstance(network, Network)  # not a user's model, but made of one
    if method == "structured" and not expanded:
        tapped = tap(network, theta, slots.points[0], slots.outputs)
    elif method == "auto" and not expanded:
        work = _work(network, theta, slots, tapped)
        if not work.quick(len(slots.first), slots.shape(2)[1], order):
            tapped = taken_apart(network, theta, slots.points[0], slots.outputs)
            if isinstance(tapped, str):
                warnings.warn(
                    f"{tapped[:-1]}: kernels take nested derivatives, which is slower.",
                    SlowKernelWarning,
                    stacklevel=2,
                )
    if isinstance(tapped, str):
        return lie_kernel(network, theta, slots, order, chunk_bytes=chunk_bytes)
    return structured_kernel(tapped, theta, slots, order, chunk_bytes=chunk_bytes)


def taken_apart(
    network: AbstractNetwork, theta: PyTree[Array], one: Array, outputs: int
) -> TappedNetwork | str:
    """The network with its layers tapped, or the sentence that says what stands in the way."""
    outside = outside_layers(theta)
    if sum(outside.values()) > ELSEWHERE * parameter_count(theta):
        largest = max(outside, key=lambda name: outside[name])
        return (
            "`model` must hold its parameters in linear and convolutional layers to be taken "
            f"apart, but holds `{largest}` elsewhere."
        )
    try:
        return tap(network, theta, one, outputs)
    except Obstacle as obstacle:
        return str(obstacle)


def _work(
    network: AbstractNetwork, theta: PyTree[Array], slots: Slots, tapped: TappedNetwork | str
) -> KernelWork:
    evaluation = network.work(theta, slots.points).flops
    return KernelWork(evaluation, None if isinstance(tapped, str) else tapped.numbers(theta))


def _growth(flops: int, times: int) -> int:
    """Times 2.6 for each further derivative, in whole numbers of any size."""
    return flops * 13**times // 5**times
