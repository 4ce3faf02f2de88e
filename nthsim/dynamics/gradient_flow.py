"""Exact training: gradient flow of the network itself."""

import os
from collections.abc import Callable

from jaxtyping import Array, PyTree
from numpy.typing import ArrayLike

from nthsim.budget.fits import check_flow
from nthsim.dynamics.problem import Problem, pose
from nthsim.dynamics.run import Recorded, Schedule, problem_size, schedule
from nthsim.dynamics.trajectory import SolveError, Trajectory, trajectory
from nthsim.inputs.arrays import concrete
from nthsim.inputs.dataset import Dataset
from nthsim.inputs.loss import Loss, squared_error
from nthsim.solvers.auto import Auto
from nthsim.solvers.parameter_flow import ParameterFlow
from nthsim.solvers.solver import AbstractSolver
from nthsim.solvers.until import Until


def gradient_flow(
    model: PyTree,
    data: Dataset,
    ts: ArrayLike,
    *,
    loss: Loss = squared_error,
    solver: AbstractSolver = Auto(),
    until: Until = Until(),
    checkpoint: str | os.PathLike[str] | None = None,
    record_kernel: Recorded = False,
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
        until: When to stop before the last save time: an `Until` with a loss, a gradient's norm, a
            rate of the loss or seconds. The state there is recorded as one more save time.
        record_kernel: Whether to record $K^{(2)}$ along the flow, at each save time; or at which
            of `ts`.
        checkpoint: A folder that every run is kept in as it goes, made if need be. The same call
            again goes on from there; `until` and the step limit may change in between.
        progress: Whether to show a progress bar when on a terminal.
        throw: Whether a run that ends early raises, or returns what it has with the reason.

    Returns:
        The trajectory, with the trained model.

    Raises:
        ValueError: When an argument is not as above, or something does not fit into memory.
        SolveError: When the run ends early (step limit, not finite, interrupted) and `throw`; its
            `.trajectory` holds what was computed.
    """
    concrete("gradient_flow", model, data, ts)
    course = schedule(ts, solver, record_kernel, until, checkpoint)
    problem = pose(model, data, loss)
    check_flow(problem_size(problem, course))
    flow = exact(problem, course, progress=progress)
    if flow.stop.failed and throw:
        raise SolveError(flow)
    return flow


def exact(
    problem: Problem, course: Schedule, *, name: str = "exact gradient flow", progress: bool
) -> Trajectory:
    """Integrate the network's own gradient flow."""
    system = parameter_flow(problem)

    def kernel() -> Callable[[PyTree[Array]], Array]:
        evaluate = problem.kernel(2)
        return lambda state: evaluate(system.moved(state))

    solution = course.integrated(problem, system, kernel, name, progress=progress)
    model = problem.network.model(system.moved(solution.state))
    return trajectory(name, problem, solution, model=model)


def parameter_flow(problem: Problem) -> ParameterFlow:
    """The equations of exact training."""
    return ParameterFlow(
        network=problem.network,
        residual=problem.residual,
        risk=problem.residual.risk,
        kernel=problem.tangent_kernel,
        theta=problem.theta,
        x=problem.x,
        x_shown=problem.x_first,
        forward=problem.forward,
        rough=problem.rough,
    )
