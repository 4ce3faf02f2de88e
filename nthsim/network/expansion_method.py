"""By which method a network is expanded along a path: layer by layer, or all through it."""

from math import prod

import equinox as eqx
from jaxtyping import Array, PyTree, Real

from nthsim.network.calls import worthwhile_calls
from nthsim.network.expansion import (
    AbstractExpansion,
    TaylorExpansion,
    expanded_numbers,
    taylor_obstacle,
)
from nthsim.network.layered_expansion import LayeredExpansion, at_rest
from nthsim.network.network import AbstractNetwork, Network, precision
from nthsim.network.tapes import Call, OpenedNetwork

#: The most calls that a network is followed through. What lies between them is described anew for
#: each, so compilation grows like their square: order 5 of a ResNet of depth 16 compiled in 10 s
#: where all through the network 4 s were enough, and was no quicker then.
MOST_CALLS = 12

#: Working memory of one chunk of inputs layer by layer, in bytes; measured: with four times as much
#: a right-hand side takes up to a third longer, as less of it is in the caches.
LAYERED_BYTES = 2**26

#: And of one all through the network.
WHOLE_BYTES = 2**28

#: What rests is kept where it takes no more memory than so many chunks.
KEPT_CHUNKS = 4


class ExpansionMethod(eqx.Module):
    """How a network is expanded: through these `calls` of its layers, or as a whole.

    There are no calls where the network cannot be taken apart, or has too many, and `aside` says
    why. `obstacle` says of the network what keeps Taylor arithmetic away, in which case derivatives
    are nested, else None; `units` that outputs are scalars, of which signals are unit signals.
    """

    calls: tuple[Call, ...]
    aside: str | None
    obstacle: str | None
    units: bool

    def __str__(self) -> str:
        if self.obstacle is not None:
            return f"nested derivatives, as the network {self.obstacle}"
        if self.calls:
            return "layer by layer"
        why = "" if self.aside is None else f" ({self.aside.rstrip('.')})"
        return f"Taylor arithmetic all through{why}"

    def numbers(self, terms: int, written: int) -> int:
        """About how many numbers one input takes, when an evaluation at it writes so many.

        Layer by layer as measured for p = 2 to 6; or, should more lie between the layers, by what
        XLA counts, which is every number where it is written and where it is read.
        """
        if not self.calls:
            return expanded_numbers(written, terms, nested=self.obstacle is not None)
        called = sum(prod(call.taken) + prod(call.returned) for call in self.calls)
        return max(called * (terms * (terms - 1) // 2 + 1), written * terms // 3)

    @property
    def chunk_bytes(self) -> int:
        """The working memory of one chunk of inputs."""
        return LAYERED_BYTES if self.calls else WHOLE_BYTES

    def kept(self, n: int, itemsize: int, chunk_bytes: int) -> int:
        """The bytes of what is kept of n inputs at rest, none where there are too many."""
        each = sum(prod(call.returned) + prod(call.taken) * self.units for call in self.calls)
        needed = n * each * itemsize
        return needed if needed <= KEPT_CHUNKS * chunk_bytes else 0

    def products(self, terms: int, *, kept: bool) -> int:
        """The products of matrices per layer in one right-hand side; a gradient takes three.

        A product of two series takes one for each pair of terms whose powers add up to less than
        the number of terms; nested derivatives take three for each that is nested.
        """
        p = terms
        if self.obstacle is not None:
            return 3 ** (p - 1) + 2 * 3 ** (p - 2)
        if self.calls and self.units:
            return 3 * p * (p - 1) // 2 + (-1 if kept else 1)
        return p * (p + 1) // 2 + p * (p - 1) - (1 if kept else 0)

    def expansion(
        self,
        network: AbstractNetwork,
        theta: PyTree[Array],
        x: Real[Array, "n ..."],
        out_shape: tuple[int, ...],
        terms: int,
        *,
        chunk_bytes: int | None = None,
    ) -> AbstractExpansion:
        """Take it, with as many inputs together as a path of so many terms lets."""
        chunk_bytes = self.chunk_bytes if chunk_bytes is None else chunk_bytes
        numbers = self.numbers(terms, network.work(theta, x).written)
        itemsize = precision(theta).itemsize
        chunk = min(max(1, chunk_bytes // (numbers * itemsize)), len(x))
        if self.obstacle is None:
            network = network.expandable(theta, x)
        if not self.calls:
            return TaylorExpansion(network=network, chunk=chunk, obstacle=self.obstacle)
        assert isinstance(network, Network)  # no other has calls
        opened = OpenedNetwork(network, theta, self.calls)
        kept = self.kept(len(x), itemsize, chunk_bytes) > 0
        rest = at_rest(opened, x, units=self.units, chunk=chunk) if kept else None
        return LayeredExpansion(
            opened=opened, rest=rest, out_shape=out_shape, units=self.units, chunk=chunk
        )


def expansion_method(
    network: AbstractNetwork, theta: PyTree[Array], x: Real[Array, "n ..."], outputs: int
) -> ExpansionMethod:
    """Find that of a network with so many outputs; nothing is computed."""
    obstacle, units = taylor_obstacle(network, theta, x), outputs == 1
    if obstacle is not None:
        return ExpansionMethod((), None, obstacle, units)
    calls = worthwhile_calls(network, theta, x[0])
    if isinstance(calls, str):
        return ExpansionMethod((), calls, None, units)
    if len(calls) > MOST_CALLS:
        return ExpansionMethod((), f"more than {MOST_CALLS} calls of layers", None, units)
    return ExpansionMethod(calls, None, None, units)
