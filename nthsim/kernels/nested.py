"""Kernels of any module, as nested Lie derivatives."""

from collections.abc import Callable
from math import prod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from nthsim.kernels.block_kernel import CHUNK_BYTES, AbstractBlockKernel, Slots
from nthsim.network.network import AbstractNetwork, parameter_count, precision
from nthsim.solvers.velocities import velocity

Function = Callable[[PyTree[Array]], Array]


class LieKernel(AbstractBlockKernel):
    r"""$K^{(r)}$ of any module: jvp nested r - 1 times along $\theta \mapsto \nabla f_b(\theta)$.

    Where outputs have no derivatives `forward`, the innermost is made of gradients, which have. The
    first slot is computed whole; slots 2..r-1 are cut into `rows`, the last into `columns`. One
    `further` function of theta may follow the outputs in all slots but the first. Built by
    `lie_kernel`.
    """

    network: AbstractNetwork
    slots: Slots
    order: int = eqx.field(static=True)
    rows: int = eqx.field(static=True)
    columns: int = eqx.field(static=True)
    forward: bool = eqx.field(static=True, default=True)
    further: Callable[[PyTree[Array]], Float[Array, ""]] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """One axis per slot."""
        first, *others = self.slots.shape(self.order)
        return first, *(N + (self.further is not None) for N in others)

    @property
    def groups(self) -> tuple[int, int, int]:
        """The first slot; the inner ones; the last."""
        first, *inner, last = self.shape
        return first, prod(inner), last

    def block(
        self, theta: PyTree[Array], rows: Int[Array, " rows"], columns: Int[Array, " columns"]
    ) -> Float[Array, "N_first rows columns"]:
        r"""Entries $K_{a\, b_2 \dots b_r}$ for all a, given $(b_2 \dots b_{r-1})$ and $b_r$."""

        def over_last(inner: tuple[Int[Array, ""], ...]) -> Float[Array, "columns N_first"]:
            g = None
            for b in inner:
                g = self._along(g, self._gradient(b))
            # Only b_r is mapped here: what does not depend on it is computed once.
            return jax.vmap(lambda b: self._along(g, self._gradient(b))(theta))(columns)

        if self.order == 2:
            return over_last(()).T[:, None]
        inner = jnp.unravel_index(rows, self.shape[1:-1])
        return jnp.moveaxis(jax.vmap(over_last)(inner), -1, 0)

    def _along(
        self, g: Function | None, field: Callable[[PyTree[Array]], PyTree[Array]]
    ) -> Function:
        """The derivative of g, or of the outputs, along a field that depends on the parameters."""
        if g is not None:
            return lambda at: jax.jvp(g, (at,), (field(at),))[1]
        first, forward = self.slots.first, self.forward
        return lambda at: velocity(self.network, at, field(at), first, forward=forward)

    def _gradient(self, b: Int[Array, ""]) -> Callable[[PyTree[Array]], PyTree[Array]]:
        r"""The field $\theta \mapsto \nabla f_b(\theta)$."""
        k, further, others = self.slots.outputs, self.further, self.slots.others
        if further is None:
            return jax.grad(lambda at: self.network.single(at, others[b // k]).reshape(-1)[b % k])
        own = b < k * len(others)
        sample = jnp.where(own, b // k, 0)
        output = lambda at: self.network.single(at, others[sample]).reshape(-1)[b % k]  # noqa: E731
        return jax.grad(lambda at: jnp.where(own, output(at), further(at)))


def lie_kernel(
    network: AbstractNetwork,
    theta: PyTree[Array],
    slots: Slots,
    order: int,
    *,
    further: Callable[[PyTree[Array]], Float[Array, ""]] | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> LieKernel:
    """Size the blocks so that one takes about `chunk_bytes` of working memory."""
    N_first, N = slots.shape(2)
    N += further is not None
    copies = 2 ** (order - 1)  # nested tangents
    activations = network.work(theta, slots.points).written * N_first // slots.outputs
    numbers = copies * (2 * parameter_count(theta) + activations)
    budget = max(1, chunk_bytes // (numbers * precision(theta).itemsize))
    columns = min(N, budget)
    rows = min(N ** (order - 2), max(1, budget // columns))
    forward = network.forward(theta, slots.points)
    return LieKernel(
        network=network,
        slots=slots,
        order=order,
        rows=rows,
        columns=columns,
        forward=forward,
        further=further,
    )
