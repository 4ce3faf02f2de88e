"""Truncated training: the Neural Tangent Hierarchy up to order p."""

import time

import jax
import numpy as np
from jaxtyping import Array, PyTree
from numpy.typing import ArrayLike

from nthsim.checks import choice, count, times
from nthsim.datasets import Dataset
from nthsim.footprints import check_hierarchy
from nthsim.losses import Loss, squared_error
from nthsim.problem import Problem, pose
from nthsim.progress import Progress
from nthsim.solvers.auto import Auto, check_solver
from nthsim.solvers.dense_hierarchy import DenseHierarchy
from nthsim.solvers.explicit import Explicit
from nthsim.solvers.integration import integrate
from nthsim.trajectories import SolveError, Trajectory, trajectory

METHODS = ("auto", "dense")


def hierarchy(
    model: PyTree,
    data: Dataset,
    order: int,
    ts: ArrayLike,
    *,
    method: str = "auto",
    loss: Loss = squared_error,
    solver: Explicit | Auto = Auto(),
    record_kernel: bool = False,
    progress: bool = True,
    throw: bool = True,
) -> Trajectory:
    r"""Integrate the hierarchy truncated at order p: $\tilde f, \tilde K^{(2)}, \dots$ over time.

    $\tilde K^{(p)}$ stays at its value at t = 0, so that order 2 is training with the frozen
    tangent kernel; the residual is its own (Huang & Yau 2019, arXiv 1909.08156). The error
    against exact flow is $O(t^p)$. A truncation may run to infinity in finite time, odd orders
    first: that ends the run with reason "blow-up".

    Args:
        model: Any Equinox module that maps one input to a scalar or a vector.
        data: Training data and, perhaps, test points, which are carried along passively.
        order: The order p, at least 2.
        ts: Save times, shape (T,), non-negative and strictly increasing; time starts at 0.
        method: "dense" integrates the tensors themselves, (n·k)^p numbers; "auto" takes it too.
        loss: Differentiable function of one output and one target.
        solver: Method, tolerances and step limit.
        record_kernel: Whether to record $\tilde K^{(2)}$ at each save time.
        progress: Whether to show progress bars when on a terminal.
        throw: Whether a run that ends early raises, or returns what it has with the reason.

    Returns:
        The trajectory.

    Raises:
        ValueError: When an argument is not as above, or the tensors do not fit into memory.
        SolveError: When the run ends early (step limit, blow-up, not finite, interrupted) and
            `throw`; its `.trajectory` holds what was computed.
    """
    order = count("order", order, 2)
    choice("method", method, METHODS)
    check_solver(solver)
    ts = times(ts)
    problem = pose(model, data, loss)
    check_hierarchy(problem, order, len(ts), recorded=record_kernel)
    kernels = initial_kernels(problem, order, progress=progress)
    truncation = truncated(
        problem, kernels, ts, solver=solver, record_kernel=record_kernel, progress=progress
    )
    if truncation.stop.failed and throw:
        raise SolveError(truncation)
    return truncation


def initial_kernels(problem: Problem, order: int, *, progress: bool) -> tuple[Array, ...]:
    r"""$f, K^{(2)}, \dots, K^{(p)}$ at t = 0, training and test points in the first slot."""
    return timed_kernels(problem, order, progress=progress)[0]


def timed_kernels(
    problem: Problem, order: int, *, progress: bool
) -> tuple[tuple[Array, ...], tuple[float, ...]]:
    r"""`initial_kernels`, and the seconds that each of $K^{(2)}, \dots, K^{(p)}$ took."""
    kernels, seconds = [problem.outputs()], []
    for r in range(2, order + 1):
        clock = time.perf_counter()
        with Progress(f"K^({r})", progress) as bar:
            kernels.append(jax.block_until_ready(problem.kernel(r)(problem.theta, bar)))
        seconds.append(time.perf_counter() - clock)
    return tuple(kernels), tuple(seconds)


def truncated(
    problem: Problem,
    kernels: tuple[Array, ...],
    ts: np.ndarray,
    *,
    solver: Explicit | Auto,
    record_kernel: bool,
    progress: bool,
) -> Trajectory:
    """Integrate the truncation whose frozen top is the last of `kernels`."""
    order = len(kernels)
    system = DenseHierarchy(kernels, problem.residual)
    observe = lambda state: {"kernel": np.asarray(system.tangent_kernel(state))}  # noqa: E731
    with Progress(f"order {order}", progress) as bar:
        report = lambda t: bar.to(t / ts[-1])  # noqa: E731
        solution = integrate(
            system, ts, solver, observe=observe if record_kernel else None, report=report
        )
    return trajectory(f"order-{order} truncation", problem, solution)
