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

#: The residual of a largest eigenvalue that alone is asked for, as a power of the rounding.
ALONE = 0.4


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

    def ready(self) -> "AbstractOperator":
        """The same, with what all products share computed."""
        return self


def largest(operator: AbstractOperator, top: int) -> Float[np.ndarray, " top"]:
    r"""The `top` largest eigenvalues, in descending order, as often as each is one.

    By ARPACK's restarted Lanczos iteration from random vectors; NaN where it does not converge.
    Residuals are at most the root of the rounding of the operator's precision, relative to the
    largest eigenvalue in size; `ALONE` if one is asked for, whose error is the square of that over
    its relative distance from the next one. From one vector it finds but one copy of a multiple
    eigenvalue, and others by rounding: it is asked for the largest ones beside those that are
    known, until there is none above the last.
    """
    N = operator.size
    if max(DENSE, 2 * top) >= N:
        return np.asarray(_dense(operator))[::-1][:top]
    tol = float(jnp.finfo(operator.dtype).eps) ** (ALONE if top == 1 else 0.5)
    operator = operator.ready()
    known, vectors, ask = np.empty(0), np.empty((N, 0)), top
    while True:
        found, more = _found(operator, ask, known, vectors, tol)
        last = known[top - 1] if len(known) >= top else -np.inf
        size = np.max(np.abs([*known, *found]))
        new = ~(found <= last + 10 * tol * size)
        known, vectors = np.append(known, found[new]), np.hstack([vectors, more[:, new]])
        known, vectors = (each[..., np.argsort(-known)] for each in (known, vectors))
        if top == 1 or not new.any() or np.isnan(known).any() or len(known) + top > N:
            return known[:top]
        ask = 1 if len(known) == top else min(2 * ask, N - 1)


def _found(
    operator: AbstractOperator, count: int, known: np.ndarray, vectors: np.ndarray, tol: float
) -> tuple[np.ndarray, np.ndarray]:
    """The largest eigenvalues beside those known, or none above these, and their vectors."""
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh  # slow to import

    basis = np.linalg.qr(vectors)[0]
    down = np.max(np.abs(known), initial=0.0)

    def product(v: np.ndarray) -> np.ndarray:
        v = v.ravel()
        inside = basis @ (basis.T @ v)
        out = np.asarray(_product(operator, jnp.asarray(v - inside, operator.dtype)), float)
        return out - basis @ (basis.T @ out) - down * inside  # those known are moved below all

    N = operator.size
    drawn = np.random.default_rng(len(known)).standard_normal((N, count))
    others = np.linalg.qr(np.hstack([basis, drawn]))[0][:, len(known) :]
    if not np.any(product(others[:, 0])):
        return np.zeros(count), others  # nor is anything else
    matrix = LinearOperator((N, N), matvec=product, dtype=float)  # pyright: ignore
    try:
        return eigsh(matrix, count, which="LA", v0=others[:, 0], tol=tol)  # pyright: ignore
    except ArpackNoConvergence:
        return np.full(count, np.nan), others


@compiled
def _product(operator: AbstractOperator, v: Float[Array, " N"]) -> Float[Array, " N"]:
    with jax.default_matmul_precision("highest"):
        return operator(v)


@compiled
def _dense(operator: AbstractOperator) -> Float[Array, " N"]:
    with jax.default_matmul_precision("highest"):
        matrix = jax.lax.map(operator, jnp.eye(operator.size, dtype=operator.dtype))
    return jnp.linalg.eigvalsh((matrix + matrix.T) / 2)
