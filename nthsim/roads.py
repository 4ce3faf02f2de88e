"""Which road along a path of parameters: layer by layer, or all through the network."""

from math import prod

import equinox as eqx
from jaxtyping import Array, Float, PyTree

from nthsim.blocks import CHUNK_BYTES
from nthsim.engines import taken_apart
from nthsim.expansions import AbstractExpansion
from nthsim.layered_expansions import LayeredExpansion
from nthsim.layered_paths import at_rest
from nthsim.network import AbstractNetwork, Network
from nthsim.opened import OpenedNetwork
from nthsim.tapes import Call
from nthsim.taylor_expansions import TaylorExpansion, expanded_numbers, taylor_obstacle

#: The most calls that a network is followed through. What lies between them is described anew for
#: each, so compilation grows like their square: measured, 10 s at 17 calls where 4 s are usual.
MOST_CALLS = 12


class Road(eqx.Module):
    """How a network is expanded: through these `calls` of its layers, or as a whole.

    There are no calls where the network cannot be taken apart, or has too many. `obstacle` says
    what keeps Taylor arithmetic away, in which case derivatives are nested, else None. `written`
    counts the numbers that one evaluation at one input writes, and `outputs` those that it returns.
    """

    calls: tuple[Call, ...]
    obstacle: str | None
    written: int
    outputs: int

    def __str__(self) -> str:
        if self.obstacle is not None:
            return f"nested derivatives, as Taylor arithmetic met {self.obstacle}"
        return "layer by layer" if self.calls else "Taylor arithmetic all through"

    @property
    def called(self) -> int:
        """How many numbers the calls take and return for one input."""
        return sum(prod(call.taken) + prod(call.returned) for call in self.calls)

    def numbers(self, terms: int) -> int:
        """About how many numbers one input takes along a path of so many terms."""
        if self.calls:
            return self.called * (terms * (terms - 1) // 2 + 1)
        return expanded_numbers(self.written, terms, nested=self.obstacle is not None)

    def kept(self, n: int, itemsize: int, chunk_bytes: int = CHUNK_BYTES) -> int:
        """The bytes of what is kept of n inputs at rest, none where there are too many."""
        needed = n * self.called * itemsize
        return needed if needed <= chunk_bytes else 0

    def products(self, terms: int, *, kept: bool) -> int:
        """The products of matrices per layer in one right-hand side; a gradient takes three.

        A product of two series takes one for each pair of terms whose powers add up to less than
        the number of terms; nested derivatives take three for each that is nested.
        """
        p = terms
        if self.obstacle is not None:
            return 3 ** (p - 1) + 2 * 3 ** (p - 2)
        if self.calls and self.outputs == 1:
            return 3 * p * (p - 1) // 2 + 1 - 2 * kept
        return p * (p + 1) // 2 + p * (p - 1) - (kept and bool(self.calls))


def road(
    network: AbstractNetwork, theta: PyTree[Array], x: Float[Array, "n ..."], outputs: int
) -> Road:
    """Find the road of a network with so many outputs; nothing is computed."""
    obstacle, written = taylor_obstacle(network, theta, x), network.work(theta, x).written
    tapped = taken_apart(network, theta, x[0], outputs) if obstacle is None else obstacle
    calls = () if isinstance(tapped, str) or len(tapped.calls) > MOST_CALLS else tapped.calls
    return Road(calls, obstacle, written, outputs)


def expansion(
    network: AbstractNetwork,
    theta: PyTree[Array],
    x: Float[Array, "n ..."],
    out_shape: tuple[int, ...],
    terms: int,
    *,
    chunk_bytes: int = CHUNK_BYTES,
) -> AbstractExpansion:
    """Take the road of a network, and as many inputs together as a path of so many terms lets."""
    way = road(network, theta, x, prod(out_shape))
    chunk = min(max(1, chunk_bytes // (way.numbers(terms) * x.dtype.itemsize)), len(x))
    network = network.expandable()
    if not way.calls:
        return TaylorExpansion(network=network, chunk=chunk, obstacle=way.obstacle)
    assert isinstance(network, Network)  # no other has calls
    opened = OpenedNetwork(network, theta, way.calls)
    kept = way.kept(len(x), x.dtype.itemsize, chunk_bytes)
    rest = at_rest(opened, x) if kept else None
    return LayeredExpansion(opened=opened, rest=rest, out_shape=out_shape, chunk=chunk)
