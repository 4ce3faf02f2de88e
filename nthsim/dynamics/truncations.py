"""The hierarchy of a problem truncated at one order, integrated by either method."""

from collections.abc import Callable

import jax.numpy as jnp
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
    kernel = lambda: system.kernel_shown  # noqa: E731
    return run.integrated(problem, system, kernel, name, method="dense", why=why, progress=progress)


def integrated_series(
    problem: Problem, order: int, run: Run, *, name: str, why: str, progress: bool
) -> Trajectory:
    """Integrate a series of parameters, whose coefficients give the same truncation."""
    system = series_hierarchy(problem, order)

    def kernel() -> Callable[[tuple[PyTree[Array], ...]], Array]:
        evaluate = problem.series_kernel()
        return lambda state: evaluate(system.path(state)[:-1])

    why = f"{why}; {problem.method}"
    return run.integrated(
        problem, system, kernel, name, method="series", why=why, progress=progress
    )


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
