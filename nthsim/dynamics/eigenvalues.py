"""The largest eigenvalues of a symmetric operator that is never formed."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nthsim.solvers.compiled import compiled

#: With no more rows than this, the matrix is formed.
DENSE = 64


class AbstractOperator(eqx.Module):
    """A symmetric matrix."""

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """How many rows it has."""

    @property
    @abc.abstractmethod
    def dtype(self) -> jnp.dtype:
        """The type of its entries."""

    @abc.abstractmethod
    def __call__(self, v: Float[Array, " N"]) -> Float[Array, " N"]:
        """Its product with a vector."""


def largest(operator: AbstractOperator, top: int) -> Float[np.ndarray, " top"]:
    r"""The `top` largest eigenvalues, in descending order, as often as each is one.

    By ARPACK's restarted Lanczos iteration from a fixed vector, to the root of the rounding of the
    operator's precision, relative to each.
    """
    N = operator.size
    if max(DENSE, top + 1) >= N:
        return np.asarray(_dense(operator))[::-1][:top]
    from scipy.sparse.linalg import LinearOperator, eigsh  # here, as it is slow to import

    product = lambda v: np.asarray(_product(operator, jnp.asarray(v, operator.dtype)), float)  # noqa: E731
    start = np.random.default_rng(0).standard_normal(N)
    matrix = LinearOperator((N, N), matvec=product, dtype=float)  # pyright: ignore
    tol = float(jnp.finfo(operator.dtype).eps) ** 0.5
    values = eigsh(matrix, top, which="LA", v0=start, tol=tol, return_eigenvectors=False)
    return np.sort(values)[::-1]


@compiled
def _product(operator: AbstractOperator, v: Float[Array, " N"]) -> Float[Array, " N"]:
    with jax.default_matmul_precision("highest"):
        return operator(v)


@compiled
def _dense(operator: AbstractOperator) -> Float[Array, " N"]:
    with jax.default_matmul_precision("highest"):
        matrix = jax.lax.map(operator, jnp.eye(operator.size, dtype=operator.dtype))
    return jnp.linalg.eigvalsh((matrix + matrix.T) / 2)
