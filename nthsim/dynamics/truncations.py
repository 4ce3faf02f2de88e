"""The hierarchy of a problem truncated at one order, integrated by either method."""

import time
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from nthsim.dynamics.problem import Problem
from nthsim.dynamics.run import Run
from nthsim.dynamics.trajectory import Trajectory
from nthsim.solvers.dense_hierarchy import DenseHierarchy
from nthsim.solvers.series_hierarchy import SeriesHierarchy


def integrated_dense(
    problem: Problem,
    kernels: tuple[Array, ...],
    run: Run,
    *,
    name: str,
    why: str,
    progress: bool,
) -> Trajectory:
    r"""Integrate the tensors, truncated at the order of the last of $f, K^{(2)}, \dots$."""
    system = dense_hierarchy(problem, kernels)
    if problem.momentum is not None and system.linear:
        return oscillating(problem, kernels, run, name=name, why=why)
    whole, place = problem.moving(system)
    kernel = lambda: lambda state: system.kernel_shown(place(state))  # noqa: E731
    return run.integrated(problem, whole, kernel, name, method="dense", why=why, progress=progress)


def oscillating(
    problem: Problem, kernels: tuple[Array, ...], run: Run, *, name: str, why: str
) -> Trajectory:
    r"""Order 2 with momentum and squared loss, $f'' + \gamma f' = -K c - K_*$, in closed form.

    In the eigenbasis of K each mode answers a constant force by S; what test points answer is their
    own force and, by Q, what the training points have moved.
    """
    assert problem.momentum is not None
    clock, n = time.perf_counter(), len(problem.x)
    start, K = (np.asarray(each, float) for each in kernels)
    N = n * problem.outputs_per_sample
    c = np.asarray(problem.residual(kernels[0][:N]), float)
    force = K[:, :N] @ c + K[:, N:].sum(axis=1)
    rates, modes = np.linalg.eigh((K[:N, :N] + K[:N, :N].T) / 2)
    rates = np.maximum(rates, 0) / n  # what lies below is rounding
    ts = np.asarray(run.ts)
    once, twice = problem.momentum.responses(rates, ts)
    free, _ = problem.momentum.responses(np.zeros(1), ts)
    weights = modes.T @ force[:N]
    train = start[:N] - (once * weights) @ modes.T
    answered = (twice * weights) @ modes.T @ K[N:, :N].T / n
    test = start[N:] - free * force[N:] + answered
    f = jnp.asarray(np.concatenate([train, test], axis=1), problem.dtype)
    shown = lambda: jnp.broadcast_to(kernels[1][:, :N], (len(run.recorded_ts), len(K), N))  # noqa: E731
    return run.evaluated(problem, f, shown, name, why=why, clock=clock)


def integrated_series(
    problem: Problem, order: int, run: Run, *, name: str, why: str, progress: bool
) -> Trajectory:
    """Integrate a series of parameters, whose coefficients give the same truncation."""
    system = series_hierarchy(problem, order)
    whole, place = problem.moving(system)

    def kernel() -> Callable[[tuple[PyTree[Array], ...]], Array]:
        evaluate = problem.series_kernel()
        return lambda state: evaluate(system.path(place(state))[:-1])

    why = f"{why}; {problem.method}"
    return run.integrated(problem, whole, kernel, name, method="series", why=why, progress=progress)


def dense_hierarchy(problem: Problem, kernels: tuple[Array, ...]) -> DenseHierarchy:
    r"""The equations of the truncation at the order of the last of $f, K^{(2)}, \dots$."""
    return DenseHierarchy(
        kernels=kernels,
        residual=problem.residual,
        risk=problem.residual.risk,
        samples=len(problem.x),
        quadratic=problem.quadratic,
        rough=problem.residual.rough,
        constant=None if problem.penalty is None else jnp.ones(1, problem.dtype),
    )


def series_hierarchy(problem: Problem, order: int) -> SeriesHierarchy:
    """The equations of the truncation at order p as a series."""
    along = problem.expansion(order)
    return SeriesHierarchy(
        outputs_along=along.outputs,
        gradients_along=along.gradients,
        residual=problem.residual,
        risk=problem.residual.risk,
        kernel=problem.path_kernel,
        theta=problem.theta,
        x=problem.x,
        x_shown=problem.x_first,
        order=order,
        quadratic=problem.quadratic,
        rough=problem.residual.rough,
        penalties_along=None if problem.penalty is None else problem.penalty.gradients,
    )
