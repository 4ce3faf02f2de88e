"""Kernels as nested Lie derivatives, chunk by chunk."""

from collections.abc import Callable, Iterator
from math import ceil, prod

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from nthsim.network import Network, parameter_count
from nthsim.progress import Progress

#: Working memory of one chunk of kernel entries, in bytes.
CHUNK_BYTES = 2**28

Corner = tuple[int, int]


class LieKernel(eqx.Module):
    r"""$K^{(r)}$ as a function of the parameters, with samples and outputs joined: N = n·k.

    The result is one buffer that chunks are written into in place, so memory stays at its size plus
    one chunk. A chunk covers `rows` settings of slots 2..r-1 and `columns` of the last slot; the
    last chunks are moved back to fit, which computes a few entries twice instead of compiling a
    remainder. Built by `lie_kernel`.
    """

    network: Network
    first: Array
    x: Array
    order: int = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    rows: int = eqx.field(static=True)
    columns: int = eqx.field(static=True)

    def __call__(
        self, theta: PyTree[Array], progress: Progress | None = None
    ) -> Float[Array, "..."]:
        """Evaluate at `theta`; shape (N_first, N, ..., N) with one axis per slot."""
        N, settings = self.slot, self.slot ** (self.order - 2)
        buffer = jnp.zeros((len(self.first) * self.outputs, *(N,) * (self.order - 1)), self.x.dtype)
        calls = ceil(settings / self.rows) * ceil(N / self.columns)
        for row, column in self._corners():
            inner = np.unravel_index(
                np.arange(row, row + self.rows), (N,) * max(1, self.order - 2)
            )[: self.order - 2]
            slots = np.array(inner, int).reshape(self.order - 2, self.rows).T
            last = np.arange(column, column + self.columns)
            corner = (0, row, column)
            chunk = Chunk(self, theta, jnp.asarray(slots), jnp.asarray(last), jnp.asarray(corner))
            buffer = _written(chunk, buffer)
            if progress is not None:
                buffer.block_until_ready()
                progress.forward(1 / calls)
        return buffer

    @property
    def slot(self) -> int:
        """The length N of every slot but the first."""
        return len(self.x) * self.outputs

    def entries(
        self, theta: PyTree[Array], slots: Int[Array, "rows inner"], last: Int[Array, " columns"]
    ) -> Float[Array, "N_first rows columns"]:
        r"""Entries $K_{a\, b_2 \dots b_r}$ for all a, given $(b_2 \dots b_{r-1})$ and $b_r$."""

        def over_last(inner: Int[Array, " inner"]) -> Float[Array, "columns N_first"]:
            g = lambda at: self.network(at, self.first).reshape(-1)  # noqa: E731
            for b in inner:
                g = _lie_derivative(g, self._gradient(b))
            # Only b_r is mapped here: what does not depend on it is computed once.
            return jax.vmap(lambda b: _lie_derivative(g, self._gradient(b))(theta))(last)

        return jnp.moveaxis(jax.vmap(over_last)(slots), -1, 0)

    def _gradient(self, b: Int[Array, ""]) -> Callable[[PyTree[Array]], PyTree[Array]]:
        r"""The field $\theta \mapsto \nabla f_b(\theta)$."""
        one = self.x[b // self.outputs]
        entry = lambda at: self.network.single(at, one).reshape(-1)[b % self.outputs]  # noqa: E731
        return jax.grad(entry)

    def _corners(self) -> Iterator[Corner]:
        settings = self.slot ** (self.order - 2)
        for row in range(0, settings, self.rows):
            for column in range(0, self.slot, self.columns):
                yield min(row, settings - self.rows), min(column, self.slot - self.columns)


def lie_kernel(
    network: Network,
    theta: PyTree[Array],
    x: Float[Array, "n ..."],
    order: int,
    *,
    first: Float[Array, "t ..."],
    out_shape: tuple[int, ...],
    chunk_bytes: int = CHUNK_BYTES,
) -> LieKernel:
    """Size the chunks so that one takes about `chunk_bytes` of working memory."""
    outputs = prod(out_shape)
    N = len(x) * outputs
    copies = 2 ** (order - 1)  # nested tangents
    numbers = copies * (2 * parameter_count(theta) + len(first) * _activations(network, theta, x))
    budget = max(1, chunk_bytes // (numbers * x.dtype.itemsize))
    columns = min(N, budget)
    rows = min(N ** (order - 2), max(1, budget // columns))
    return LieKernel(network, first, x, order, outputs, rows, columns)


class Chunk(eqx.Module):
    """Which entries to compute, with what, and where in the buffer they go."""

    kernel: LieKernel
    theta: PyTree[Array]
    slots: Int[Array, "rows inner"]
    last: Int[Array, " columns"]
    corner: Int[Array, " 3"]


@eqx.filter_jit(donate="all-except-first")
def _written(chunk: Chunk, buffer: Array) -> Array:
    """Compute a chunk into the buffer's own memory."""
    with jax.default_matmul_precision("highest"):
        entries = chunk.kernel.entries(chunk.theta, chunk.slots, chunk.last)
    flat = buffer.reshape(len(buffer), -1, buffer.shape[-1])  # outside of `jit` this would copy
    return jax.lax.dynamic_update_slice(flat, entries, tuple(chunk.corner)).reshape(buffer.shape)


def _lie_derivative(
    g: Callable[[PyTree[Array]], Array], field: Callable[[PyTree[Array]], PyTree[Array]]
) -> Callable[[PyTree[Array]], Array]:
    """The derivative of g along a field that itself depends on the parameters."""
    return lambda at: jax.jvp(g, (at,), (field(at),))[1]


def _activations(network: Network, theta: PyTree[Array], x: Array) -> int:
    """How many numbers one evaluation writes, from XLA's count of the bytes it touches."""
    one = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), theta)
    evaluate = jax.jit(lambda at, one: network.single(at, one))  # a module may not be hashable
    cost = evaluate.lower(shapes, one).cost_analysis() or {}
    touched = int(cost.get("bytes accessed", 0)) // x.dtype.itemsize
    return max(touched - parameter_count(theta), one.size)
