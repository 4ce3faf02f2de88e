"""What each dynamics holds in memory at its peak."""

import dataclasses
from collections.abc import Sequence

import equinox as eqx
from jaxtyping import Array, PyTree

from nthsim.kernels.block_kernel import Slots
from nthsim.kernels.work import CHUNK, ENDLESS, PROGRAM, KernelSize, kernel_size
from nthsim.network.expansion import expanded_numbers
from nthsim.network.expansion_method import ExpansionMethod
from nthsim.network.network import AbstractNetwork, parameter_count

#: Stages of Dopri8, the most that a Runge–Kutta pair of ours has.
STAGES = 14


class Size(eqx.Module):
    """The whole numbers that memory and work depend on.

    `kernel` are those of kernels, `parameters` that of parameters, `activations` what one
    evaluation at one input writes, and `expansion` how the network is expanded along a series.
    `recorded` counts the tangent kernels that every run records at its `save_times`, and `noted`
    the other numbers that exact flow does; `stages` are those of the Runge–Kutta pair, `basis` what
    it holds for an eigenbasis. `forward` says whether the model has derivatives in forward mode,
    without which there is no series; `momentum` whether everything that moves has a velocity too.
    """

    kernel: KernelSize
    parameters: int
    activations: int
    expansion: ExpansionMethod
    save_times: int = 0
    recorded: int = 0
    noted: int = 0
    stages: int = STAGES
    basis: int = 0
    forward: bool = True
    momentum: bool = False

    @property
    def n(self) -> int:
        """The number of training points."""
        return self.kernel.n

    @property
    def points(self) -> int:
        """The number of training and test points."""
        return self.kernel.n + self.kernel.n_test

    @property
    def itemsize(self) -> int:
        """The bytes of one number."""
        return self.kernel.itemsize

    def entries(self, order: int) -> int:
        r"""The number of entries of $K^{(r)}$, test points in its first slot; of f for r = 1."""
        return self.kernel.entries(order)

    def moving(self, order: int) -> int:
        """The number of entries that move at truncation order p."""
        return sum(self.entries(r) for r in range(1, min(order, ENDLESS)))

    def with_n(self, n: int) -> "Size":
        """The same with another number of training points."""
        return dataclasses.replace(self, kernel=self.kernel.with_n(n))


def size_of(
    network: AbstractNetwork,
    theta: PyTree[Array],
    slots: Slots,
    expansion: ExpansionMethod,
    *,
    further: int = 0,
) -> Size:
    """The numbers of a network on its data; one evaluation is lowered to be counted, none made."""
    return Size(
        kernel=kernel_size(network, theta, slots, further=further),
        parameters=parameter_count(theta),
        activations=network.work(theta, slots.points).written,
        expansion=expansion,
    )


def flow_bytes(size: Size) -> int:
    """The peak of exact gradient flow."""
    state = _parameter_copies(size) * size.parameters + size.points * size.activations
    return size.itemsize * (state + size.basis) + CHUNK + PROGRAM + _recorded_bytes(size)


def hierarchy_bytes(size: Size, order: int, method: str) -> int:
    """The peak of a truncation at order p, its kernels included."""
    if method == "dense":
        numbers = size.basis + size.entries(order) + _tensor_copies(size) * size.moving(order)
        return size.itemsize * numbers + CHUNK + PROGRAM + _recorded_bytes(size)
    terms = min(order, ENDLESS)
    contributions = 2 * size.save_times * terms * size.entries(1)
    moving = _parameter_copies(size) * (terms - 1) * size.parameters
    numbers = moving + contributions + size.basis
    return size.itemsize * numbers + _expansion_bytes(size, terms) + PROGRAM + _recorded_bytes(size)


def comparison_bytes(size: Size, others: Sequence[tuple[int, int]], *, certified: bool) -> int:
    """The peak of exact flow and of others, one after the other; their trajectories are kept.

    Of each of the others it takes its peak, with nothing recorded, and the bytes of what it holds
    while others run.
    """
    runs = 1 + len(others)
    programs = PROGRAM * runs * (1 + certified)
    records = _recorded_bytes(size) * (runs + 1) // 2
    held = max((held for _, held in others), default=0)
    alone = [peak + (0 if own else held) for peak, own in others]
    bare = dataclasses.replace(size, recorded=0, noted=0)
    return max(flow_bytes(bare), *alone) + records + programs


def member_bytes(size: Size, orders: Sequence[int], kernels: int) -> int:
    """What each network adds at the peak of a study of many, whose truncations are all dense.

    Its kernels are all held, those of entry after entry computed, and its tangent kernels recorded.
    """
    outputs = size.points * size.activations
    held = size.parameters + sum(size.entries(r) for r in range(1, kernels + 1))
    flow = _parameter_copies(size) * size.parameters + outputs
    entry = 2 ** (kernels - 1) * (2 * size.parameters + outputs)
    moving = [_tensor_copies(size) * size.moving(p) for p in orders]
    return size.itemsize * (held + max(flow, entry, *moving)) + _recorded_bytes(size)


def taylor_bytes(size: Size, degree: int) -> int:
    """The peak of gradient flow of a Taylor model, whose terms are all evaluated at once."""
    nested = size.expansion.obstacle is not None
    terms = expanded_numbers(size.activations, 1 + degree, nested=nested)
    every = size.points * terms
    return flow_bytes(size) + size.itemsize * (size.parameters + every)


def perturbation_bytes(size: Size) -> int:
    r"""The peak of the first order in 1/m: $K^{(4)}$ as it is and in modes, and its weights."""
    numbers = 6 * size.entries(4) + 2 * size.save_times * size.entries(1)
    return size.itemsize * numbers + CHUNK + PROGRAM + _recorded_bytes(size)


def _tensor_copies(size: Size) -> int:
    """Copies of a hierarchy's moving state at the peak of a step, measured: each stage twice."""
    return (2 * size.stages + 4) * (1 + size.momentum)


def _parameter_copies(size: Size) -> int:
    """Copies of parameters that move at the peak of a step, measured: each stage once."""
    return (size.stages + 8) * (1 + size.momentum)


def _recorded_bytes(size: Size) -> int:
    """Tangent kernels at the times chosen, twice for a moment, when they are stacked."""
    signals = size.kernel.signal_bytes() if size.recorded else 0
    return 2 * size.itemsize * (size.recorded * size.entries(2) + size.noted) + signals


def _expansion_bytes(size: Size, terms: int) -> int:
    """One chunk of inputs with the Taylor coefficients of what is computed from them, and rest."""
    each = size.expansion.numbers(terms, size.activations) * size.itemsize
    chunk_bytes = size.expansion.chunk_bytes
    kept = size.expansion.kept(size.n, size.itemsize, chunk_bytes)
    return min(max(chunk_bytes, each), size.n * each) + kept
