"""A kernel by which inputs stand in its slots, computed block by block into one buffer."""

import abc
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from nthsim.results.terminal import Progress
from nthsim.solvers.compiled import compiled


class Slots(eqx.Module):
    """The inputs of all slots in one batch, the range of slot 1 and that of all others.

    Test points follow training points in slot 1 of a hierarchy's kernels, which share one range of
    signals or gradients that way; slot 1 may also hold other points alone.
    """

    points: Array
    first_range: tuple[int, int] = eqx.field(static=True)
    other_range: tuple[int, int] = eqx.field(static=True)
    outputs: int = eqx.field(static=True)

    @property
    def first(self) -> Array:
        """The inputs of slot 1."""
        return self.points[slice(*self.first_range)]

    @property
    def others(self) -> Array:
        """The inputs of every other slot."""
        return self.points[slice(*self.other_range)]

    @property
    def joined(self) -> bool:
        """Whether slot 1 holds the inputs of the other slots too."""
        return self.first_range[0] <= self.other_range[0] < self.first_range[1]

    def shape(self, order: int) -> tuple[int, ...]:
        r"""The shape of $K^{(r)}$ with samples and outputs joined: (N_first, N, ..., N)."""
        N_first, N = (
            (end - start) * self.outputs for start, end in (self.first_range, self.other_range)
        )
        return (N_first, *(N,) * (order - 1))


#: Working memory of one block of kernel entries, in bytes.
CHUNK_BYTES = 2**28


class AbstractBlockKernel(eqx.Module):
    r"""$K^{(r)}$ as a function of the parameters, with samples and outputs joined: N = n·k.

    The result is one buffer that blocks are written into in place, so memory stays at its size plus
    one block. It has one axis per slot in its `shape`, which fall into three `groups` of so many
    entries: those computed whole, and two that are cut into `rows` and `columns`. The last blocks
    are moved back to fit, which computes a few entries twice instead of compiling a remainder.
    """

    rows: eqx.AbstractVar[int]
    columns: eqx.AbstractVar[int]

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The shape of the result, one axis per slot."""

    @property
    @abc.abstractmethod
    def groups(self) -> tuple[int, int, int]:
        """The sizes of the three groups of axes."""

    @abc.abstractmethod
    def block(
        self, theta: PyTree[Array], rows: Int[Array, " rows"], columns: Int[Array, " columns"]
    ) -> Float[Array, "whole rows columns"]:
        """The entries at these flat indices into the second and third group of axes."""

    def __call__(
        self, theta: PyTree[Array], progress: Progress | None = None
    ) -> Float[Array, "..."]:
        """Evaluate at `theta`; of its `shape`, one axis per slot."""
        dtype = jnp.result_type(*jax.tree.leaves(theta))
        corners = self._corners()
        buffer = None if len(corners) == 1 else jnp.zeros(self.shape, dtype)
        for row, column in corners:
            buffer = _written((self, theta, jnp.array(row), jnp.array(column)), buffer)
            if progress is not None:
                buffer.block_until_ready()
                progress.forward(1 / len(corners))
        assert buffer is not None
        return buffer

    def traced(self, theta: PyTree[Array]) -> Float[Array, "..."]:
        """The same within a compiled program, which cannot show progress."""
        corners = jnp.array(self._corners())

        def write(i: Array, flat: Array) -> Array:
            rows, columns = corners[i, 0], corners[i, 1]
            block = self.block(
                theta, rows + jnp.arange(self.rows), columns + jnp.arange(self.columns)
            )
            return jax.lax.dynamic_update_slice(flat, block, (jnp.zeros_like(rows), rows, columns))

        dtype = jnp.result_type(*jax.tree.leaves(theta))
        flat = jax.lax.fori_loop(0, len(corners), write, jnp.zeros(self.groups, dtype))
        return flat.reshape(self.shape)

    def _corners(self) -> list[tuple[int, int]]:
        _, all_rows, all_columns = self.groups
        return [
            (min(row, all_rows - self.rows), min(column, all_columns - self.columns))
            for row in range(0, all_rows, self.rows)
            for column in range(0, all_columns, self.columns)
        ]


@functools.partial(compiled, donate="all-except-first")
def _written(
    task: tuple[AbstractBlockKernel, PyTree[Array], Int[Array, ""], Int[Array, ""]],
    buffer: Array | None,
) -> Array:
    """Compute the block at a corner into the buffer's own memory, or the only block without one."""
    kernel, theta, row, column = task
    with jax.default_matmul_precision("highest"):
        block = kernel.block(
            theta, row + jnp.arange(kernel.rows), column + jnp.arange(kernel.columns)
        )
    if buffer is None:
        return block.reshape(kernel.shape)
    flat = buffer.reshape(kernel.groups)  # outside of `jit` this would copy
    corner = (jnp.zeros_like(row), row, column)
    return jax.lax.dynamic_update_slice(flat, block, corner).reshape(buffer.shape)
