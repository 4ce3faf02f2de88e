"""Training with the kernel of the infinitely wide network."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree
from numpy.typing import ArrayLike

from nthsim.budget.fits import Choice, check_hierarchy
from nthsim.dynamics.problem import Problem, pose
from nthsim.dynamics.run import Recorded, Schedule, problem_size, schedule
from nthsim.dynamics.trajectory import SolveError, Trajectory
from nthsim.dynamics.truncations import Truncations
from nthsim.inputs.arrays import choice, concrete
from nthsim.inputs.dataset import Dataset
from nthsim.inputs.loss import Loss, squared_error
from nthsim.kernels.limit_kernel import limit_kernel
from nthsim.models.fcn import FCN
from nthsim.models.resnet import ResNet
from nthsim.solvers.auto import Auto
from nthsim.solvers.solver import AbstractSolver
from nthsim.solvers.until import Until

STARTS = ("network", "zero")

#: The networks whose limits are known.
KINDS = {FCN: "fcn", ResNet: "resnet"}

#: What a limit shares with its network, by the names that both have for it.
SHARED = ("depth", "activation", "c_sigma", "weight_scale", "readout_scale")


def limit_flow(
    model: PyTree,
    data: Dataset,
    ts: ArrayLike,
    *,
    start: str = "network",
    loss: Loss = squared_error,
    solver: AbstractSolver = Auto(),
    until: Until = Until(),
    record_kernel: Recorded = False,
    progress: bool = True,
    throw: bool = True,
) -> Trajectory:
    r"""Train with the tangent kernel that `model` would have at infinite width, $K_\infty$.

    $f' = -K_\infty(\cdot, X)\, c(f)$ with the residual $c = \partial\ell/\partial f / n$, where
    $K_\infty$ is `limit_kernel` of the network's depth, activation and scales, between equal
    outputs; it never moves. For squared error that is kernel regression by gradient flow, solved
    in closed form.

    Args:
        model: An `FCN` or a `ResNet`.
        data: Training data and, perhaps, passive test points.
        ts: Save times, shape (T,), non-negative and strictly increasing; time starts at 0.
        start: "network" starts at the outputs of `model`, so that nothing but the kernel differs
            from the order-2 truncation; "zero" at the mean of all initial networks.
        loss: Differentiable function of one output and one target.
        solver: Method, tolerances and step limit.
        until: When to stop before the last save time, as in `gradient_flow`.
        record_kernel: Whether to record $K_\infty$ at each save time; or at which of `ts`.
        progress: Whether to show a progress bar when on a terminal.
        throw: Whether a run that ends early raises, or returns what it has with the reason.

    Returns:
        The trajectory.

    Raises:
        ValueError: When an argument is not as above, or something does not fit into memory.
        SolveError: When the run ends early (step limit, not finite, interrupted) and `throw`; its
            `.trajectory` holds what was computed.
    """
    concrete("limit_flow", model, data, ts)
    choice("start", start, STARTS)
    course = schedule(ts, solver, record_kernel, until)
    check_limit(model)
    problem = pose(model, data, loss)
    check_hierarchy(problem_size(problem, course), 2, "dense", name="data")
    run = limiting(problem, model, course, start=start, progress=progress)
    if run.stop.failed and throw:
        raise SolveError(run)
    return run


def check_limit(model: PyTree) -> None:
    """Refuse a model whose limit is not known.

    Raises:
        ValueError: When it is neither an `FCN` nor a `ResNet`.
    """
    if type(model) not in KINDS:
        raise ValueError(
            "`model` must be an FCN or a ResNet of nthsim.models to have a limit kernel, but is "
            f"{type(model).__name__}."
        )


def limiting(
    problem: Problem,
    model: FCN | ResNet,
    course: Schedule,
    *,
    start: str = "network",
    progress: bool,
) -> Trajectory:
    """Integrate with the limit's kernel as if it were the network's frozen one."""
    f = problem.outputs()
    kernels = (f if start == "network" else jnp.zeros_like(f), _flat_kernel(problem, model))
    words = f"tangent kernel of infinite width, from {_START[start]}"
    frozen = Truncations(problem, {2: Choice("dense", words)}, kernels, ())
    run = frozen.integrate(2, course, name="limit kernel", progress=progress)
    return dataclasses.replace(run, method=words)


_START = {"network": "the network's own outputs", "zero": "outputs of zero"}


def _flat_kernel(problem: Problem, model: FCN | ResNet) -> Float[Array, "N_first N"]:
    options = {name: getattr(model, name) for name in SHARED}
    if isinstance(model, ResNet):
        options["c_res"] = model.c_res
    x, first = problem.x, problem.x_test
    kind = KINDS[type(model)]
    kernel = limit_kernel(kind, x, **options)
    if first is not None:
        kernel = jnp.concatenate([kernel, limit_kernel(kind, x, x_first=first, **options)])
    return jnp.kron(kernel, jnp.eye(problem.outputs_per_sample)).astype(problem.x.dtype)
