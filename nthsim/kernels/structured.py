"""Kernels at the price of their size, for networks made of linear and convolutional layers."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from nthsim.kernels.block_kernel import CHUNK_BYTES, AbstractBlockKernel, Slots
from nthsim.kernels.gram import Directions, Jet, coefficient, gram, splits, subsets
from nthsim.kernels.signals import Motion, TappedNetwork
from nthsim.network.network import precision


class StructuredKernel(AbstractBlockKernel):
    r"""$K^{(r)}$ from layer inputs h and back-propagated signals $\delta$, never from Jacobians.

    With $z = W h$ the gradient of output b is $\nabla_W f_b = \sum \delta_b h_b^\top$ over the
    layer's calls, so that $K^{(2)}$ is a sum of products of Gram matrices,
    $(h h^\top) \circ (\delta \delta^\top)$, and a Lie derivative along $\nabla f_b$ moves each
    weight by a low-rank matrix that acts as $\delta_b (h_b \cdot h)$ and is never formed.
    Parameters elsewhere enter through their gradients. Built by `structured_kernel`.

    Slots 3..r are the directions 3..r of a jet. Each moves the network along a gradient taken where
    the directions after it have moved the network to. The first two slots are computed whole; slot
    3 is cut into `rows`, the rest into `columns`.
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
        N_first, N = self.slots.shape(2)
        return (N_first * N, N, N ** (self.order - 3)) if self.order > 2 else (N_first * N, 1, 1)

    def block(
        self, theta: PyTree[Array], rows: Int[Array, " rows"], columns: Int[Array, " columns"]
    ) -> Float[Array, "whole rows columns"]:
        """Entries for all of slots 1 and 2, the given slot 3, and the given others."""
        if self.order == 2:
            return self.entries(theta, ()).reshape(-1, 1, 1)
        later = self.shape[3:]

        def at(column: Int[Array, ""]) -> Float[Array, "rows N_first N"]:
            others = jnp.unravel_index(column, later) if later else ()
            return jax.vmap(lambda row: self.entries(theta, (row, *others)))(rows)

        entries = jax.vmap(at)(columns)
        return jnp.moveaxis(entries, (2, 3, 1, 0), (0, 1, 2, 3)).reshape(-1, *entries.shape[1::-1])

    def entries(
        self, theta: PyTree[Array], b: tuple[Int[Array, ""], ...]
    ) -> Float[Array, "N_first N"]:
        """Entries for all of slots 1 and 2, given the outputs in slots 3..r.

        What does not depend on one of these, such as the network at rest, is computed once for all
        of it when this is mapped.
        """
        outputs = dict(enumerate(b, start=3))
        points = self.slots.points
        motion: Jet = {(): self.network.at_rest(theta, points)}
        signals: Jet = {}
        for S in subsets(tuple(outputs)):
            if S:
                motion[S] = self.motion(theta, signals, outputs, S)
            signals[S] = coefficient(lambda at: self.network.signals(theta, at, points), motion, S)
        return gram(signals, tuple(outputs), self.network.formed, self.slots)

    def motion(
        self, theta: PyTree[Array], signals: Jet, outputs: dict[int, Int[Array, ""]], S: Directions
    ) -> Motion:
        r"""The coefficient S of what moved weights add, $(W(\varepsilon) - W) h(\varepsilon)$.

        Direction j moves the weights along $\nabla f_{b_j}$ where the directions after j have moved
        the network to: that gradient has coefficients at sets of directions after j alone.
        """
        pushes = []
        for A, B in splits(S):
            if A:
                j, *after = A
                D, H = self.step(signals, outputs[j], tuple(after))
                pushes.append(self.network.pushed(theta, D, H, signals[B]))
        additions, received = jax.tree.map(lambda *terms: sum(terms), *pushes)
        j, *after = S
        rest = jax.tree.map(lambda g: g[self.place(outputs[j])], signals[tuple(after)].rest)
        return Motion(additions, received, rest)

    def step(
        self, signals: Jet, output: Int[Array, ""], S: Directions
    ) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        r"""The coefficient S of the gradient of one output, $D^\top H$ for each layer."""
        sample, unit = self.place(output)
        pairs = [(signals[A], signals[B]) for A, B in splits(S)]
        D = zip(*([delta[sample, unit] for delta in a.delta] for a, _ in pairs), strict=True)
        H = zip(*([h[sample] for h in b.h] for _, b in pairs), strict=True)
        return tuple(map(jnp.concatenate, D)), tuple(map(jnp.concatenate, H))

    def place(self, output: Int[Array, ""]) -> tuple[Int[Array, ""], Int[Array, ""]]:
        """Where in the signals this output is: its sample among the points, and which of k."""
        k = self.slots.outputs
        return self.slots.other_range[0] + output // k, output % k


def structured_kernel(
    tapped: TappedNetwork,
    theta: PyTree[Array],
    slots: Slots,
    order: int,
    *,
    chunk_bytes: int = CHUNK_BYTES,
) -> StructuredKernel:
    """Size the blocks so that one takes about `chunk_bytes`."""
    N_first, N = slots.shape(2)
    numbers = 3 * len(slots.points) * tapped.numbers(theta) + 4 * N_first * N * tapped.pairs
    copies = 2 ** (order - 2)  # nested tangents
    budget = max(1, chunk_bytes // (copies * numbers * precision(theta).itemsize))
    rows = min(N, budget) if order > 2 else 1
    columns = min(N ** max(0, order - 3), max(1, budget // rows))
    return StructuredKernel(network=tapped, slots=slots, order=order, rows=rows, columns=columns)
