r"""The stiff part of a system, diagonal in the eigenbasis of its tangent kernel."""

from collections.abc import Callable, Mapping
from math import factorial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from nthsim.solvers.driven_system import AbstractDrivenSystem
from nthsim.solvers.phi import phi


class Increment(eqx.Module):
    r"""A direction of motion $v = u + B S U w$ and what it does to the outputs, $y = U^\top S C v$.

    B, C, S and U are those of a `Linearisation`; keeping the three apart saves products with B and
    C, each of which takes a pass through the network.
    """

    rest: PyTree[Array]
    weights: Float[Array, " N"]
    seen: Float[Array, " N"]


class Linearisation(eqx.Module):
    r"""The linear part $A = -B D C$ of a system at a state.

    All dynamics here are $y' = -B(y)\, c(f(y))$, but for what a regulariser adds: B pulls a
    residual back (`system.pull`), C pushes a direction forward to the training outputs
    (`system.push`), $C B$ is the tangent kernel K, and D is the residual's derivative, a k by k
    block for each sample. With $S = D^{1/2}$ and $S K S = U \Lambda U^\top$,

    $$\varphi_k(hA)\, v = \varphi_k(0)\, v - h\, B S U\, \varphi_{k+1}(-h\Lambda)\, U^\top S C v,$$

    because $\varphi_{k+1}(z) = (\varphi_k(z) - \varphi_k(0)) / z$: nothing is divided by an
    eigenvalue, and what the outputs do not see is left as it is.

    `rates` are the diagonal of $\Lambda$, per unit of time. Directions in which the loss curves
    downwards have no part in D.
    """

    at: PyTree[Array]
    root: Float[Array, "n k k"]
    rates: Float[Array, " N"]
    basis: Float[Array, "N N"]

    def seen(self, system: AbstractDrivenSystem, direction: PyTree[Array]) -> Float[Array, " N"]:
        r"""$U^\top S C v$."""
        return self.basis.T @ blockwise(self.root, system.push(self.at, direction))

    def pulled(self, system: AbstractDrivenSystem, weights: Float[Array, " N"]) -> PyTree[Array]:
        r"""$B S U w$."""
        return system.pull(self.at, blockwise(self.root, self.basis @ weights))

    def whole(self, system: AbstractDrivenSystem, increment: Increment) -> PyTree[Array]:
        """An increment as one direction of motion."""
        return _plus(increment.rest, self.pulled(system, increment.weights))

    def combined(
        self,
        h: Float[Array, ""],
        fraction: float,
        terms: list[tuple[Mapping[int, float], Increment]],
    ) -> Increment:
        r"""$h \sum_i \sum_k a_{ik}\, \varphi_k(\text{fraction}\, h A)\, v_i$ for a's by k."""
        length = fraction * h
        values = phi(-length * self.rates, 1 + max(max(a) for a, _ in terms))
        parts = []
        for a, v in terms:
            still = sum(each / factorial(k) for k, each in a.items())
            damped = sum(each * values[k] for k, each in a.items())
            moved = sum(each * values[k + 1] for k, each in a.items())
            parts.append(
                Increment(
                    jax.tree.map(lambda u, still=still: h * still * u, v.rest),
                    h * (still * v.weights - length * moved * v.seen),
                    h * damped * v.seen,
                )
            )
        return jax.tree.map(lambda *each: sum(each), *parts)


def linearised(system: AbstractDrivenSystem, state: PyTree[Array]) -> Linearisation:
    """The linear part at a state, which takes the tangent kernel and its eigenbasis."""
    root = roots(slopes(system.residual, system.predictions(state)))
    n, k, _ = root.shape
    kernel = system.tangent_kernel(state).reshape(n, k, n, k)
    symmetric = jnp.einsum("aij,ajbl,blm->aibm", root, kernel, root).reshape(n * k, n * k)
    rates, basis = jnp.linalg.eigh(symmetric)
    return Linearisation(state, root, rates, basis)


def slopes(residual: Callable[[Array], Array], f: Float[Array, "n k"]) -> Float[Array, "n k k"]:
    r"""$\partial c / \partial f$, a block for each sample: none knows the outputs of another."""
    along = lambda unit: jax.jvp(residual, (f,), (jnp.broadcast_to(unit, f.shape),))[1]  # noqa: E731
    return jnp.moveaxis(jax.vmap(along)(jnp.eye(f.shape[1], dtype=f.dtype)), 0, -1)


def roots(blocks: Float[Array, "n k k"]) -> Float[Array, "n k k"]:
    """Square roots of symmetric blocks; what is negative in them counts as zero."""
    values, vectors = jnp.linalg.eigh(blocks)
    return (vectors * jnp.sqrt(jnp.maximum(values, 0))[:, None, :]) @ vectors.mT


def blockwise(blocks: Float[Array, "n k k"], rows: Float[Array, " N"]) -> Float[Array, " N"]:
    """Each block times the part of `rows` that belongs to its sample."""
    n, k, _ = blocks.shape
    return jnp.einsum("aij,aj->ai", blocks, rows.reshape(n, k)).reshape(-1)


def _plus(one: PyTree[Array], other: PyTree[Array]) -> PyTree[Array]:
    return jax.tree.map(jnp.add, one, other)
