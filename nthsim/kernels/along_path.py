r"""The tangent kernel of a truncation that is integrated as a series."""

import equinox as eqx
import jax
from jaxtyping import Array, Float, Int, PyTree

from nthsim.kernels.block_kernel import AbstractBlockKernel
from nthsim.network.coefficients import coefficients, obstacle


class SeriesKernel(AbstractBlockKernel):
    r"""$\tilde K^{(2)} = \sum_{j \le p-2} [\epsilon^j] K^{(2)}(\theta(\epsilon))$.

    A function of the path $\theta_0, \dots, \theta_{p-2}$, block by block as `kernel` is one of
    theta.
    """

    kernel: AbstractBlockKernel
    nested: bool = eqx.field(static=True)
    rows: int = eqx.field(static=True)
    columns: int = eqx.field(static=True)

    @property
    def shape(self) -> tuple[int, ...]:
        """One axis per slot."""
        return self.kernel.shape

    @property
    def groups(self) -> tuple[int, int, int]:
        """As those of the kernel."""
        return self.kernel.groups

    def block(
        self, theta: PyTree[Array], rows: Int[Array, " rows"], columns: Int[Array, " columns"]
    ) -> Float[Array, "whole rows columns"]:
        """The entries at the end of the path `theta`."""
        terms = coefficients(
            lambda at: self.kernel.block(at, rows, columns), theta, nested=self.nested
        )
        return sum(terms[1:], start=terms[0])


def series_kernel(
    kernel: AbstractBlockKernel, theta: PyTree[Array], *, right: bool
) -> SeriesKernel:
    """By Taylor arithmetic where its rules are `right` and the kernel allows it."""
    corner = jax.numpy.arange(1)
    nested = not right or obstacle(lambda at: kernel.block(at, corner, corner), theta) is not None
    return SeriesKernel(kernel=kernel, nested=nested, rows=kernel.rows, columns=kernel.columns)
