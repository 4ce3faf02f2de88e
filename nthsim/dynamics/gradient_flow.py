"""Exact training: gradient flow of the network itself."""

from collections.abc import Callable
from typing import Any, TypeVar

from jaxtyping import Array, PyTree
from numpy.typing import ArrayLike

from nthsim.budget.choice import Needs, check_flow
from nthsim.budget.size import Size, flow_bytes
from nthsim.budget.work import gradient_flops, kernel_flops
from nthsim.dynamics.parameter_observables import Movement
from nthsim.dynamics.pose import pose
from nthsim.dynamics.problem import Problem
from nthsim.dynamics.recorder import check_observables
from nthsim.dynamics.run import Run, checked_run, problem_size
from nthsim.dynamics.solve_error import SolveError
from nthsim.dynamics.trajectory import Trajectory
from nthsim.inputs.arrays import concrete
from nthsim.inputs.dataset import Dataset
from nthsim.inputs.loss import Loss, squared_error
from nthsim.network.network import Network
from nthsim.network.regulariser import Regulariser
from nthsim.solvers.momentum import Momentum
from nthsim.solvers.parameter_flow import AbstractParameterFlow, ParameterFlow
from nthsim.solvers.stepped_run import AbstractSteps


def gradient_flow(
    model: PyTree,
    data: Dataset,
    run: Run | ArrayLike,
    *,
    loss: Loss = squared_error,
    rates: PyTree = None,
    regulariser: Regulariser | None = None,
    momentum: Momentum | None = None,
    progress: bool = True,
) -> Trajectory:
    r"""Train `model` by exact gradient flow, $\theta' = -D \nabla (L + R)(\theta)$.

    $L = \frac1n \sum_a \ell(f(x_a), y_a)$ over the training points (the 1/n sets the unit of time);
    D holds the `rates`, and R is the `regulariser`, which losses in results are without. Test
    points are evaluated and never enter.

    Args:
        model: Any Equinox module that maps one input to a scalar or a vector.
        data: Training data and, perhaps, test points.
        run: Save times, shape (T,), or a `Run` of them, a solver, and what to record.
        loss: Differentiable function of one output and one target.
        rates: How fast each array trains: a number of at least 0 for each, in a tree that is a
            prefix of the model, as Equinox's filter specifications are. True is 1; at 0 an array is
            none of the parameters. Left out, an `FCN` or `ResNet` has those of its
            parametrisation, and all else 1.
        regulariser: A function R of the module that returns a scalar, its factor included, such as
            `WeightDecay(0.1)`; none if left out.
        momentum: `HeavyBall(friction)` or `Nesterov(r)`, by which training starts from rest and
            $\theta'' + \gamma \theta' = -D \nabla (L + R)(\theta)$; none if left out.
        progress: Whether to show a progress bar when on a terminal.

    Returns:
        The trajectory, with the trained model.

    Raises:
        ValueError: When an argument is not as above, or something does not fit into memory.
        SolveError: When the run ends early (step limit, not finite, interrupted), unless it is told
            not to throw; its `.trajectory` holds what was computed.
    """
    run = checked_run(run)
    concrete("gradient_flow", model, data, run.ts, regulariser)
    problem = pose(model, data, loss, rates, regulariser, momentum)
    check_flow(problem_size(problem, run))
    flow = exact(problem, run, progress=progress)
    if flow.stop.failed and run.throw:
        raise SolveError(flow)
    return flow


def exact(
    problem: Problem, run: Run, *, name: str = "exact gradient flow", progress: bool
) -> Trajectory:
    """Integrate the network's own gradient flow."""
    return moved(problem, run, parameter_flow(problem), name, progress=progress)


def moved(
    problem: Problem,
    run: Run,
    system: AbstractParameterFlow,
    name: str,
    *,
    steps: AbstractSteps | None = None,
    method: str | None = None,
    progress: bool,
) -> Trajectory:
    """Integrate what moves the parameters of a network, by the run's solver or in `steps`.

    `method` tells files of one name apart.
    """
    parameters = None
    whole, place = problem.moving(system) if steps is None else (system, lambda state: state)
    moved = lambda state: system.moved(place(state))  # noqa: E731
    if isinstance(problem.network, Network):  # and no polynomial, which is another network
        check_observables(run.record or (), problem)
        moving = [each for each in run.record or () if isinstance(each, Movement)]
        if moving and whole is not system:
            raise ValueError(
                "`record` must hold no movement with momentum, whose speeds are others, but does."
            )
        parameters = moved

    def kernel() -> Callable[[PyTree[Array]], Array]:
        evaluate = problem.kernel(2)
        return lambda state: evaluate(moved(state))

    return run.integrated(
        problem,
        whole,
        kernel,
        name,
        parameters=parameters,
        method=method,
        steps=steps,
        progress=progress,
    )


def flow_needs(size: Size) -> Needs:
    """What exact flow takes."""
    return Needs(
        moving=size.parameters,
        frozen=0,
        peak=flow_bytes(size),
        kernels=size.recorded * kernel_flops(size, 2),
        side=gradient_flops(size),
    )


F = TypeVar("F", bound=AbstractParameterFlow)


def parameter_flow(problem: Problem, kind: type[F] = ParameterFlow, **more: Any) -> F:
    """The equations of exact training, or of a `kind` that takes something `more`."""
    return kind(
        network=problem.network,
        residual=problem.residual,
        risk=problem.residual.risk,
        kernel=problem.tangent_kernel,
        theta=problem.theta,
        x=problem.x,
        x_shown=problem.x_first,
        forward=problem.forward,
        rough=problem.rough,
        penalty=problem.penalty,
        **more,
    )
