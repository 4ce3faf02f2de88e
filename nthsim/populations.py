"""Many networks of one structure on one problem, evaluated together."""

import dataclasses
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from nthsim.blocks import CHUNK_BYTES, AbstractBlockKernel
from nthsim.datasets import Dataset
from nthsim.flow import parameter_flow
from nthsim.losses import Loss
from nthsim.network import Network, split
from nthsim.problem import Problem, pose
from nthsim.recorders import KernelRecorder
from nthsim.solvers.compiled import compiled
from nthsim.solvers.ensemble import Ensemble, ensemble
from nthsim.solvers.integration import integrate
from nthsim.solvers.solution import Solution
from nthsim.solvers.solver import AbstractSolver
from nthsim.truncations import dense_hierarchy


class Population(eqx.Module):
    """Members that share a network, data and a loss; `thetas` are theirs, stacked.

    `problem` is that of the first member. What is returned has a first axis of members, or a second
    one where the first is time.
    """

    problem: Problem
    thetas: PyTree[Array]

    @property
    def members(self) -> int:
        """How many there are."""
        return len(jax.tree.leaves(self.thetas)[0])

    def outputs(self) -> Float[Array, "members N_first"]:
        """The outputs at t = 0 on training points, and behind them on test points."""
        return _outputs(self.problem, self.thetas)

    def kernel(self, order: int) -> Float[Array, "members N_first ..."]:
        r"""$K^{(r)}$ at t = 0 with one axis per slot, test points in the first."""
        return _kernels(self._block(self.problem, order), self.thetas)

    def flow(self, ts: Float[np.ndarray, " T"], solver: AbstractSolver) -> Solution:
        r"""Exact gradient flow, with `f` and, among the training points, the tangent `kernel`."""
        problem = self.problem
        system = parameter_flow(problem)
        members = ensemble(system, lambda s: s.theta, self.thetas)
        block = self._block(problem.without_test_points(), 2)
        evaluate = lambda state: _tangent_kernels(members, block, state)  # noqa: E731
        return integrate(members, ts, solver, observe=KernelRecorder(ts, True, evaluate))

    def truncation(
        self,
        kernels: Sequence[Float[Array, "members ..."]],
        ts: Float[np.ndarray, " T"],
        solver: AbstractSolver,
    ) -> Solution:
        r"""The hierarchy truncated at the order of the last of $f, K^{(2)}, \dots$, as tensors."""
        system = dense_hierarchy(self.problem, tuple(kernel[0] for kernel in kernels))
        members = ensemble(system, lambda s: s.kernels, tuple(kernels))
        evaluate = lambda state: _frozen_kernels(members, state)  # noqa: E731
        return integrate(members, ts, solver, observe=KernelRecorder(ts, True, evaluate))

    def _block(self, problem: Problem, order: int) -> AbstractBlockKernel:
        """One member's kernel, in blocks so small that those of all fit where one's would."""
        bytes_each = max(1, CHUNK_BYTES // self.members)
        return problem.kernel(order, chunk_bytes=bytes_each)


def population(models: Sequence[PyTree], data: Dataset, loss: Loss) -> Population:
    """Models of one structure, whose parameters are stacked.

    Raises:
        ValueError: When the models differ in more than the numbers of their parameters, or as
            `pose` says.
    """
    problem = pose(models[0], data, loss)
    parts = [split(model) for model in models]
    if not _alike(parts):  # in their constants, perhaps
        parts = [split(model, constants=True) for model in models]
        network, theta = parts[0]
        network, _ = network.as_now(theta, problem.x)
        problem = dataclasses.replace(problem, network=network, theta=theta)
        if not _alike(parts):
            raise ValueError(
                "`make_model` must return models of one structure for all seeds of a size, but "
                "they differ in more than the numbers of their parameters."
            )
    thetas = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(theta for _, theta in parts))
    return Population(problem, thetas)


def _alike(parts: list[tuple[Network, PyTree[Array]]]) -> bool:
    """Whether networks and the shapes of their parameters are those of the first."""
    shaped = [(network, _shapes(theta)) for network, theta in parts]
    return all(bool(eqx.tree_equal(one, shaped[0])) for one in shaped[1:])


def _shapes(theta: PyTree[Array]) -> PyTree:
    return jax.tree.map(lambda a: (a.shape, a.dtype.name), theta)


@compiled
def _outputs(problem: Problem, thetas: PyTree[Array]) -> Array:
    with jax.default_matmul_precision("highest"):
        return jax.vmap(lambda theta: problem.network(theta, problem.x_first).reshape(-1))(thetas)


@compiled
def _kernels(kernel: AbstractBlockKernel, thetas: PyTree[Array]) -> Array:
    with jax.default_matmul_precision("highest"):
        return jax.vmap(kernel.traced)(thetas)


@compiled
def _tangent_kernels(members: Ensemble, kernel: AbstractBlockKernel, state: PyTree[Array]) -> Array:
    with jax.default_matmul_precision("highest"):
        thetas = members.over(lambda system, u: system.moved(u), state)
        return members.marked(state, jax.vmap(kernel.traced)(thetas))


@compiled
def _frozen_kernels(members: Ensemble, state: PyTree[Array]) -> Array:
    return members.marked(state, members.over(lambda system, y: system.tangent_kernel(y), state))
