"""Which derivatives a model allows, and whether those that it brings along are its own."""

import warnings

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree, Real

from nthsim.kernels.block_kernel import AbstractBlockKernel
from nthsim.network.network import AbstractNetwork, precision
from nthsim.network.program import Evaluation, asked_once, program
from nthsim.solvers.compiled import compiled, lowers
from nthsim.solvers.velocities import velocity

#: What a `custom_vjp` could be instead.
CURE = (
    "with Diffrax use adjoint=DirectAdjoint(), else unroll the iteration or write it as custom_jvp"
)

#: Inputs that a backward pass is tried on.
TRIED = 8


class BackwardPassWarning(UserWarning):
    """The backward pass of a model is not the derivative of its forward pass."""


def check_derivatives(kernel: AbstractBlockKernel, theta: PyTree[Array], order: int) -> None:
    """Refuse a kernel whose derivatives a model does not allow; nothing is computed.

    Raises:
        ValueError: When there are none; the sentence says what to do.
    """
    rows, columns = (jnp.arange(size) for size in (kernel.rows, kernel.columns))
    if not lowers(lambda theta: kernel.block(theta, rows, columns), theta):
        raise ValueError(
            f"`model` must allow forward derivatives of its gradients for K^({order}), but holds a "
            f"custom_vjp that does not: {CURE}."
        )


def check_forward(forward: bool, what: str) -> None:
    """Refuse what takes forward derivatives of the outputs where there are none.

    Raises:
        ValueError: When there are none; the sentence says what to do.
    """
    if not forward:
        raise ValueError(
            f"`model` must allow forward derivatives for {what}, but holds a custom_vjp: {CURE}."
        )


@asked_once
def holds_back(evaluation: Evaluation) -> bool:
    """Whether a network keeps some derivatives back, by `jax.lax.stop_gradient`."""
    network, theta, one = evaluation.network, evaluation.theta, evaluation.one
    return "stop_gradient" in program(network.single, theta, one).operations


def backward_linear(network: AbstractNetwork, theta: PyTree[Array], x: Array) -> bool:
    """Try the backward pass of a network: whether it is linear, as derivatives are.

    Warns:
        BackwardPassWarning: When it is not what the outputs do once the parameters move.
    """
    error, doubt = map(float, _tried(network, theta, x[:TRIED]))
    # Central differences leave over 1e-10 in float64 and some 1e-4 in float32; what is iterated to
    # a tolerance, as equilibria are, may leave more.
    if doubt > (1e-4 if precision(theta) == jnp.float64 else 1e-2):
        warnings.warn(
            "`model` holds a custom_vjp or stop_gradient, so that its backward pass is not the "
            "derivative of its forward pass: flow and kernels follow its backward pass, the "
            "outputs do not, and no order of the hierarchy tends to exact flow.",
            BackwardPassWarning,
            stacklevel=3,
        )
    return error < float(jnp.finfo(precision(theta)).eps) ** (1 / 3)


@compiled
def _tried(
    network: AbstractNetwork, theta: PyTree[Array], x: Real[Array, "n ..."]
) -> tuple[Array, Array]:
    """What a backward pass lacks of being linear, and of being the derivative; relative errors."""
    with jax.default_matmul_precision("highest"):
        f, pullback = jax.vjp(lambda at: network(at, x), theta)
        one = jnp.cos(jnp.arange(f.size, dtype=f.dtype)).reshape(f.shape)
        other = 100 * jnp.sin(1 + jnp.arange(f.size, dtype=f.dtype)).reshape(f.shape)
        (v,), (w,), (both,) = map(pullback, (one, other, one + other))
        linear = _off(both, jax.tree.map(jnp.add, v, w))
        eps = jnp.finfo(precision(theta)).eps
        step = eps ** (1 / 3) * _norm(theta) / jnp.maximum(_norm(v), eps)

        def at(sign: int) -> Array:
            return network(jax.tree.map(lambda a, b: a + sign * step * b, theta, v), x)

        moved = (at(1) - at(-1)).reshape(-1) / (2 * step)
        return linear, _off(moved, velocity(network, theta, v, x, forward=False))


def _off(found: PyTree[Array], expected: PyTree[Array]) -> Float[Array, ""]:
    largest = jnp.maximum(_norm(found), _norm(expected))
    difference = _norm(jax.tree.map(jnp.subtract, found, expected))
    return difference / jnp.maximum(largest, jnp.finfo(largest.dtype).tiny)


def _norm(tree: PyTree[Array]) -> Float[Array, ""]:
    return jnp.sqrt(jnp.sum(jnp.stack([jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)])))
