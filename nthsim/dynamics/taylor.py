"""Taylorised training: gradient flow of the Taylor polynomial of a network in its parameters."""

import dataclasses
import os

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree
from numpy.typing import ArrayLike

from nthsim.budget.fits import check_taylor
from nthsim.dynamics.gradient_flow import exact
from nthsim.dynamics.problem import Problem, pose
from nthsim.dynamics.run import Recorded, Schedule, problem_size, schedule
from nthsim.dynamics.taylor_proof import proven
from nthsim.dynamics.trajectory import SolveError, Trajectory
from nthsim.dynamics.truncations import check_roads
from nthsim.inputs.arrays import concrete
from nthsim.inputs.dataset import Dataset
from nthsim.inputs.integers import count
from nthsim.inputs.loss import Loss, squared_error
from nthsim.network.coefficients import coefficients
from nthsim.network.network import AbstractNetwork
from nthsim.solvers.auto import Auto
from nthsim.solvers.solver import AbstractSolver
from nthsim.solvers.until import Until


class TaylorNetwork(AbstractNetwork):
    r"""The Taylor polynomial of degree q in $\theta - \theta_0$ of a network's outputs.

    As a function of theta it is as good a network as the one it is made of.
    """

    base: AbstractNetwork
    theta0: PyTree[Array]
    degree: int
    nested: bool

    def single(self, theta: PyTree[Array], x: Array) -> Array:
        """The polynomial for one input."""
        move = jax.tree.map(jnp.subtract, theta, self.theta0)
        none = jax.tree.map(jnp.zeros_like, move)
        path = [self.theta0, move, *(none,) * (self.degree - 1)]
        terms = coefficients(lambda at: self.base.single(at, x), path, nested=self.nested)
        return sum(terms[1:], start=terms[0])

    def model(self, theta: PyTree[Array]) -> None:
        """None: the network itself is another function of these parameters."""
        del theta

    def expandable(self, theta: PyTree, x: object) -> "TaylorNetwork":
        """The same: it is made of an expandable one."""
        del theta, x
        return self


def taylor(
    model: PyTree,
    data: Dataset,
    degree: int,
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
    r"""Train the degree-q Taylor polynomial of `model` in its parameters by gradient flow.

    $f_q(\theta) = \sum_{j \le q} \frac{1}{j!} D^j f(\theta_0)[(\theta - \theta_0)^j]$, so that
    degree 1 is the linearised network, the same as the hierarchy at order 2. From degree 2 on the
    polynomial is a model of its own, with its own tangent kernel, where a truncation of the
    hierarchy expands the solution (Bai, Krause, Wang, Xiong & Socher 2020, arXiv 2002.04010).

    Args:
        model: Any Equinox module that maps one input to a scalar or a vector.
        data: Training data and, perhaps, test points.
        degree: The degree q, at least 1.
        ts: Save times, shape (T,), non-negative and strictly increasing; time starts at 0.
        loss: Differentiable function of one output and one target.
        solver: Method, tolerances and step limit.
        until: When to stop before the last save time: an `Until` with a loss, a gradient's norm, a
            rate of the loss or seconds. The state there is recorded as one more save time.
        record_kernel: Whether to record the polynomial's own tangent kernel, by nested
            derivatives, at each save time; or at which of `ts`.
        checkpoint: A folder that every run is kept in as it goes, made if need be. The same call
            again goes on from there; `until` and the step limit may change in between.
        progress: Whether to show a progress bar when on a terminal.
        throw: Whether a run that ends early raises, or returns what it has with the reason.

    Returns:
        The trajectory.

    Raises:
        ValueError: When an argument is not as above, or something does not fit into memory.
        SolveError: When the run ends early (step limit, not finite, interrupted) and `throw`; its
            `.trajectory` holds what was computed.
    """
    concrete("taylor", model, data, ts)
    degree = count("degree", degree, 1)
    course = schedule(ts, solver, record_kernel, until, checkpoint)
    problem = pose(model, data, loss)
    check_taylor(problem_size(problem, course), degree)
    check_roads(problem, {}, (degree,))
    run = taylorised(problem, degree, course, progress=progress)
    if run.stop.failed and throw:
        raise SolveError(run)
    return run


def taylorised(problem: Problem, degree: int, course: Schedule, *, progress: bool) -> Trajectory:
    """Integrate the gradient flow of the Taylor polynomial."""
    problem = proven(problem, whole=True)
    way, network = problem.road, problem.network
    network = network if way.obstacle else network.expandable(problem.theta, problem.x)
    polynomial = TaylorNetwork(network, problem.theta, degree, way.obstacle is not None)
    expanded = dataclasses.replace(problem, network=polynomial)
    run = exact(expanded, course, name=f"degree-{degree} Taylor model", progress=progress)
    return dataclasses.replace(run, method=str(way))
