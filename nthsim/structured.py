"""Kernels at the price of their size, for networks whose weights act through `eqx.nn.Linear`."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from nthsim.blocks import CHUNK_BYTES, AbstractBlockKernel
from nthsim.network import Network
from nthsim.slots import Slots
from nthsim.taps import Signals, Step, TappedNetwork, tap

Dynamics = tuple[Step, ...]


class StructuredKernel(AbstractBlockKernel):
    r"""$K^{(r)}$ from layer inputs h and back-propagated signals $\delta$, never from Jacobians.

    With $z = W h$ the gradient of output b is $\nabla_W f_b = \sum \delta_b h_b^\top$ over the
    layer's calls, so that $K^{(2)}$ is a sum of products of Gram matrices,
    $(h h^\top) \circ (\delta \delta^\top)$, and a Lie derivative along $\nabla f_b$ moves each
    weight by a low-rank matrix that acts as $\delta_b (h_b \cdot h)$ and is never formed.
    Parameters elsewhere enter through their gradients. Built by `structured_kernel`.

    The first two slots are computed whole; slot 3 is cut into `rows`, the rest into `columns`.
    """

    network: TappedNetwork
    slots: Slots
    order: int = eqx.field(static=True)
    rows: int = eqx.field(static=True)
    columns: int = eqx.field(static=True)

    @property
    def shape(self) -> tuple[int, ...]:
        """One axis per slot."""
        return self.slots.shape(self.order)

    @property
    def groups(self) -> tuple[int, int, int]:
        """The first two slots; slot 3; the others."""
        N = self.shape[1]
        if self.order == 2:
            return self.shape[0] * N, 1, 1
        return self.shape[0] * N, N, N ** (self.order - 3)

    def block(
        self, theta: PyTree[Array], rows: Int[Array, " rows"], columns: Int[Array, " columns"]
    ) -> Float[Array, "whole rows columns"]:
        """Entries for all of slots 1 and 2, the given slot 3, and the given others."""
        if self.order == 2:
            return self.gram(self.network.signals(theta, (), self.slots.points)).reshape(-1, 1, 1)
        N = self.shape[1]
        others = jnp.stack(jnp.unravel_index(columns, (N,) * max(1, self.order - 3)), axis=-1)

        def at(other: Int[Array, " slots"]) -> Float[Array, "rows N_first N"]:
            g = lambda moved: self.third(theta, moved, rows)  # noqa: E731
            for b in other[: self.order - 3]:
                g = self.lie_derivative(theta, g, b)
            return g(())

        entries = jax.vmap(at)(others)
        return jnp.moveaxis(entries, (2, 3, 1, 0), (0, 1, 2, 3)).reshape(-1, *entries.shape[1::-1])

    def third(
        self, theta: PyTree[Array], moved: Dynamics, rows: Int[Array, " rows"]
    ) -> Float[Array, "rows N_first N"]:
        """K^(3) at the moved network; what does not depend on slot 3 is computed once."""
        signals = self.network.signals(theta, moved, self.slots.points)

        def along(b: Int[Array, ""]) -> Float[Array, "N_first N"]:
            step = self.step(theta, moved, b)
            tangent = self.network.tangents(theta, moved, self.slots.points, signals, step)
            return jax.jvp(self.gram, (signals,), (tangent,))[1]

        return jax.vmap(along)(rows)

    def lie_derivative(
        self, theta: PyTree[Array], g: Callable[[Dynamics], Array], b: Int[Array, ""]
    ) -> Callable[[Dynamics], Array]:
        """The derivative of g along the field of output b, itself taken at the moved network."""

        def derivative(moved: Dynamics) -> Array:
            step = self.step(theta, moved, b)
            size = step.size
            shifted = lambda eps: g((*moved, step.scaled(eps)))  # noqa: E731
            return jax.jvp(shifted, (jnp.zeros_like(size),), (jnp.ones_like(size),))[1]

        return derivative

    def step(self, theta: PyTree[Array], moved: Dynamics, b: Int[Array, ""]) -> Step:
        """The direction of output b (sample and output joined) at the moved network."""
        k = self.network.outputs
        one = self.slots.others[b // k]
        return self.network.step(self.network.signals(theta, moved, one[None]), b % k)

    def gram(self, signals: Signals) -> Float[Array, "N_first N"]:
        """K^(2) from the signals on all points."""
        first, second = (
            jax.tree.map(lambda a, s=slice(*bounds): a[s], signals)
            for bounds in (self.slots.first_range, self.slots.other_range)
        )
        return self.network.gram(first, second)


def structured_kernel(
    network: Network,
    theta: PyTree[Array],
    slots: Slots,
    order: int,
    *,
    chunk_bytes: int = CHUNK_BYTES,
) -> StructuredKernel:
    """Tap the network and size the blocks so that one takes about `chunk_bytes`.

    Raises:
        ValueError: When the network's layers cannot be tapped; says why.
    """
    tapped = tap(network, theta, slots.points[0], slots.outputs)
    N_first, N = slots.shape(2)
    numbers = 3 * len(slots.points) * tapped.numbers(theta) + 4 * N_first * N
    copies = 2 ** (order - 2)  # nested tangents
    budget = max(1, chunk_bytes // (copies * numbers * slots.points.dtype.itemsize))
    rows = min(N, budget) if order > 2 else 1
    columns = min(N ** max(0, order - 3), max(1, budget // rows))
    return StructuredKernel(network=tapped, slots=slots, order=order, rows=rows, columns=columns)
