"""Exact training: gradient flow of the network itself."""

import equinox as eqx
import numpy as np
from jaxtyping import PyTree
from numpy.typing import ArrayLike

from nthsim.checks import times
from nthsim.datasets import Dataset
from nthsim.footprints import check_flow
from nthsim.losses import Loss, squared_error
from nthsim.problem import Problem, pose
from nthsim.progress import Progress
from nthsim.solvers.auto import Auto, check_solver
from nthsim.solvers.explicit import Explicit
from nthsim.solvers.integration import Observer, integrate
from nthsim.solvers.parameter_flow import ParameterFlow
from nthsim.trajectories import SolveError, Trajectory, trajectory


def gradient_flow(
    model: PyTree,
    data: Dataset,
    ts: ArrayLike,
    *,
    loss: Loss = squared_error,
    solver: Explicit | Auto = Auto(),
    record_kernel: bool = False,
    progress: bool = True,
    throw: bool = True,
) -> Trajectory:
    r"""Train `model` by exact gradient flow, $\theta' = -\nabla L(\theta)$.

    $L = \frac1n \sum_a \ell(f(x_a), y_a)$ over the training points (the 1/n sets the unit of time);
    all parameters move at unit rate. Test points are evaluated and never enter.

    Args:
        model: Any Equinox module that maps one input to a scalar or a vector.
        data: Training data and, perhaps, test points.
        ts: Save times, shape (T,), non-negative and strictly increasing; time starts at 0.
        loss: Differentiable function of one output and one target.
        solver: Method, tolerances and step limit.
        record_kernel: Whether to record $K^{(2)}$ along the flow, at each save time.
        progress: Whether to show a progress bar when on a terminal.
        throw: Whether a run that ends early raises, or returns what it has with the reason.

    Returns:
        The trajectory, with the trained model.

    Raises:
        ValueError: When an argument is not as above, or something does not fit into memory.
        SolveError: When the run ends early (step limit, not finite, interrupted) and `throw`; its
            `.trajectory` holds what was computed.
    """
    check_solver(solver)
    ts = times(ts)
    problem = pose(model, data, loss)
    check_flow(problem, len(ts), recorded=record_kernel)
    flow = exact(problem, ts, solver=solver, record_kernel=record_kernel, progress=progress)
    if flow.stop.failed and throw:
        raise SolveError(flow)
    return flow


def exact(
    problem: Problem,
    ts: np.ndarray,
    *,
    solver: Explicit | Auto,
    record_kernel: bool,
    progress: bool,
) -> Trajectory:
    """Integrate the network's own gradient flow."""
    system = ParameterFlow(
        problem.network, problem.residual, problem.theta, problem.x, problem.x_first
    )
    observe = _kernel_along(problem, system) if record_kernel else None
    with Progress("exact flow", progress) as bar:
        report = lambda t: bar.to(t / ts[-1])  # noqa: E731
        solution = integrate(system, ts, solver, observe=observe, report=report)
    model = eqx.combine(system.moved(solution.state), problem.network.static)
    return trajectory("exact gradient flow", problem, solution, model)


def _kernel_along(problem: Problem, system: ParameterFlow) -> Observer:
    evaluate = problem.kernel(2)
    return lambda state: {"kernel": np.asarray(evaluate(system.moved(state)))}
