"""Many networks of one structure on one problem, evaluated and measured together."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from nthsim.dynamics.errors import rms
from nthsim.dynamics.gradient_flow import parameter_flow
from nthsim.dynamics.pose import pose
from nthsim.dynamics.problem import Problem
from nthsim.dynamics.truncations import dense_hierarchy
from nthsim.inputs.dataset import Dataset
from nthsim.inputs.loss import Loss
from nthsim.kernels.block_kernel import CHUNK_BYTES, AbstractBlockKernel
from nthsim.network.network import Network
from nthsim.network.split import split
from nthsim.results.record import Record
from nthsim.results.terminal import several
from nthsim.scaling.separated import separated
from nthsim.solvers.compiled import compiled
from nthsim.solvers.ensemble import Ensemble, ensemble
from nthsim.solvers.integration import integrate
from nthsim.solvers.solution import Solution
from nthsim.solvers.solver import AbstractSolver


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
        observe = lambda t, s, f: {"kernel": np.asarray(_tangent_kernels(members, block, s))}  # noqa: E731
        return self.problem.told(members, integrate(members, ts, solver, observe=observe))

    def part(self, members: slice) -> "Population":
        """Some of them."""
        thetas = jax.tree.map(lambda a: a[members], self.thetas)
        return dataclasses.replace(self, thetas=thetas)

    def truncation(
        self,
        kernels: Sequence[Float[Array, "members ..."]],
        ts: Float[np.ndarray, " T"],
        solver: AbstractSolver,
    ) -> Solution:
        r"""The hierarchy truncated at the order of the last of $f, K^{(2)}, \dots$, as tensors."""
        system = dense_hierarchy(self.problem, tuple(kernel[0] for kernel in kernels))
        members = ensemble(system, lambda s: s.kernels, tuple(kernels))
        observe = lambda t, s, f: {"kernel": np.asarray(_frozen_kernels(members, s))}  # noqa: E731
        return self.problem.told(members, integrate(members, ts, solver, observe=observe))

    def _block(self, problem: Problem, order: int) -> AbstractBlockKernel:
        """One member's kernel, in blocks so small that those of all fit where one's would."""
        bytes_each = max(1, CHUNK_BYTES // self.members)
        return problem.kernel(order, chunk_bytes=bytes_each)


class Drawn(NamedTuple):
    """A model, and how fast its arrays train, as `nthsim.gradient_flow` takes them."""

    model: PyTree
    rates: PyTree = None


def population(members: Sequence[Drawn], data: Dataset, loss: Loss) -> Population:
    """Models of one structure, whose parameters are stacked.

    Raises:
        ValueError: When the models differ in more than the numbers of their parameters, or as
            `pose` says.
    """
    problem = pose(members[0].model, data, loss, members[0].rates)
    parts = [split(*member) for member in members]
    if not _alike(parts):  # in their constants, perhaps
        parts = [split(*member, constants=True) for member in members]
        network, theta = parts[0]
        network, _ = network.as_now(theta, problem.x)
        problem = dataclasses.replace(problem, network=network, theta=theta)
        if not _alike(parts):
            raise ValueError(
                "`make_model` must return models of one structure, with the same rates, for all "
                "seeds of a size, but they differ in more than the numbers of their parameters."
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


def measured(
    population: Population,
    orders: Sequence[int],
    kernels: int,
    ts: Float[np.ndarray, " T"],
    solver: AbstractSolver,
) -> Record:
    r"""Measure everything, with one row per member.

    The arrays: `initial_f` (members, N) and `initial_kernels` (members, N, N), f and $K^{(2)}$ on
    training points at t = 0, N = n·k; `kernel_rms`, `kernel_max` and `kernel_mean`, one column for
    each of $K^{(2)}, K^{(3)}, \dots$ at t = 0, the last as `moment` says; `drift` (members, T), the
    movement of $K^{(2)}$ along exact flow, relative in Frobenius norm; `error_f`, `error_f_test`
    (where there are test points) and `error_kernel` (members, orders, T), root mean square errors
    of f and errors of $K^{(2)}$, relative to $K^{(2)}_0$ in the same way. What a member shows after
    its blow-up, or after its steps fell to the rounding of t, is NaN, and `blown_up` (members,
    orders) is 1. The facts say by which steps each
    dynamics was integrated, and why it ended.

    Raises:
        KeyboardInterrupt: At Ctrl-C; half a cell is none.
    """
    N = len(population.problem.x) * population.problem.outputs_per_sample
    levels = [population.outputs(), *(population.kernel(r) for r in range(2, kernels + 1))]
    f, *tensors = (np.asarray(level)[:, :N] for level in levels)
    flow = separated(lambda some: population.part(some).flow(ts, solver), len(f), ts)
    runs, rows = {"exact gradient flow": flow}, []

    def truncated(p: int, some: slice) -> Solution:
        kernels = [level[some] for level in levels[:p]]
        return population.part(some).truncation(kernels, ts, solver)

    for p in orders:
        runs[f"order {p}"] = run = separated(functools.partial(truncated, p), len(f), ts)
        rows.append(_errors(run, flow, levels, len(ts)))
    columns = {
        "kernel_rms": [rms(K) for K in tensors],
        "kernel_max": [np.abs(K).max(axis=tuple(range(1, K.ndim))) for K in tensors],
        "kernel_mean": [moment(K, f) for K in tensors],
        **{name: [row[name] for row in rows] for name in (rows[0] if rows else ())},
    }
    arrays = {name: np.stack(each, axis=1) for name, each in columns.items()}
    arrays |= {"initial_f": f, "initial_kernels": tensors[0]}
    moved = _padded(flow, "kernel", tensors[0], len(ts)) - tensors[0][None]
    arrays["drift"] = (_norms(moved) / _norms(tensors[0])[None]).T
    stops = {
        name: {"reason": run.stop.reason, "message": run.stop.message} for name, run in runs.items()
    }
    lost = int(np.isnan(flow.records["f"]).any(axis=(0, 2)).sum())
    if lost and not flow.stop.failed:
        words = f"not finite for {lost} of {several(len(f), 'seed')}"
        stops["exact gradient flow"] = {"reason": "non-finite", "message": words}
    return Record(arrays, {"solver": flow.choice, "stops": stops})


def moment(
    kernel: Float[np.ndarray, "members ..."], f: Float[np.ndarray, "members N"]
) -> Float[np.ndarray, " members"]:
    r"""The mean entry of $K^{(r)}$ for even r; that of $K^{(r)}_{a \dots c} f_c$ for odd r.

    A readout of either sign is as likely, and odd kernels change theirs with it: their own means
    vanish.
    """
    order = kernel.ndim - 1
    signed = kernel * f.reshape(len(f), *(1,) * (order - 1), -1) if order % 2 else kernel
    return signed.mean(axis=tuple(range(1, kernel.ndim)))


def _errors(
    run: Solution, flow: Solution, levels: Sequence[np.ndarray | Array], T: int
) -> dict[str, np.ndarray]:
    """A row for each member, of errors at all times, and whether it blew up."""
    N = levels[1].shape[-1]
    exact = _padded(flow, "f", levels[0], T)
    f = _padded(run, "f", levels[0], T)
    difference = f - exact
    start = np.asarray(levels[1][:, :N])
    kernel, other = (_padded(each, "kernel", start, T) for each in (run, flow))
    found = {
        "error_f": _rms(difference[:, :, :N]),
        "error_kernel": (_norms(kernel - other) / _norms(start)[None]).T,
        "blown_up": np.isnan(f[: len(run.ts)][-1:]).any(axis=(0, 2)).astype(np.int8),
    }
    tested = f.shape[2] > N
    return found | ({"error_f_test": _rms(difference[:, :, N:])} if tested else {})


def _rms(error: Float[np.ndarray, "T members N"]) -> Float[np.ndarray, "members T"]:
    return np.stack([rms(at_once) for at_once in error], axis=1)


def _norms(kernels: Float[np.ndarray, "... N N"]) -> Float[np.ndarray, "..."]:
    return np.linalg.norm(kernels, axis=(-2, -1))


def _padded(
    run: Solution, name: str, start: np.ndarray | Array, T: int
) -> Float[np.ndarray, "T members ..."]:
    """What was recorded, shaped as at the start; NaN at save times that were not reached."""
    full = np.full((T, *start.shape), np.nan, start.dtype)
    if len(run.ts):
        full[: len(run.ts)] = run.records[name].reshape(len(run.ts), *start.shape)
    return full
