"""Which method for a kernel: nested derivatives, or the structure of a network's layers."""

import warnings
from collections.abc import Callable

from jaxtyping import Array, Float, PyTree

from nthsim.kernels.block_kernel import CHUNK_BYTES, AbstractBlockKernel, Slots
from nthsim.kernels.nested import lie_kernel
from nthsim.kernels.signals import tapped
from nthsim.kernels.structured import structured_kernel
from nthsim.kernels.work import KernelWork
from nthsim.network.calls import calls_of, worthwhile_calls
from nthsim.network.network import AbstractNetwork, Network
from nthsim.network.tapes import Call

METHODS = ("auto", "structured", "nested")


class SlowKernelWarning(UserWarning):
    """A large kernel takes nested derivatives, because a model cannot be taken apart."""


def block_kernel(
    network: AbstractNetwork,
    theta: PyTree[Array],
    slots: Slots,
    order: int,
    *,
    method: str = "auto",
    further: Callable[[PyTree[Array]], Float[Array, ""]] | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> AbstractBlockKernel:
    r"""$K^{(r)}$ as a function of the parameters, by `method`.

    Where a `further` function of them stands in its slots too, derivatives are nested.

    Raises:
        ValueError: When "structured" is asked for and the network cannot be taken apart.

    Warns:
        SlowKernelWarning: When "auto" takes nested derivatives for a large kernel, and why; Python
            shows the same warning once.
    """
    calls: tuple[Call, ...] | str = ""
    whole = not isinstance(network, Network) or further is not None  # nothing to be taken apart
    if method == "structured" and not whole:
        calls = calls_of(network, theta, slots.points[0])
    elif method == "auto" and not whole:
        work = KernelWork(network.work(theta, slots.points).flops, None)
        if not work.quick(len(slots.first), slots.shape(2)[1], order):
            calls = worthwhile_calls(network, theta, slots.points[0])
            if isinstance(calls, str):
                warnings.warn(
                    f"{calls[:-1]}: kernels take nested derivatives, which is slower.",
                    SlowKernelWarning,
                    stacklevel=2,
                )
    if isinstance(calls, str):
        return lie_kernel(network, theta, slots, order, further=further, chunk_bytes=chunk_bytes)
    apart = tapped(network, theta, calls, slots.outputs)
    return structured_kernel(apart, theta, slots, order, chunk_bytes=chunk_bytes)
