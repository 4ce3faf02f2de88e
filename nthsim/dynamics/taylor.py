"""Taylorised training: gradient flow of the Taylor polynomial of a network in its parameters."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree
from numpy.typing import ArrayLike

from nthsim.budget.choice import Needs, check_taylor
from nthsim.budget.size import Size, taylor_bytes
from nthsim.budget.work import taylor_side_flops
from nthsim.dynamics.curve import Curve
from nthsim.dynamics.gradient_flow import exact
from nthsim.dynamics.pose import pose
from nthsim.dynamics.problem import Problem
from nthsim.dynamics.recorder import check_everywhere
from nthsim.dynamics.run import Run, checked_run, problem_size
from nthsim.dynamics.solve_error import SolveError
from nthsim.dynamics.start import Start
from nthsim.dynamics.taylor_proof import proven
from nthsim.dynamics.trajectory import Trajectory
from nthsim.inputs.arrays import concrete
from nthsim.inputs.dataset import Dataset
from nthsim.inputs.integers import count
from nthsim.inputs.loss import Loss, squared_error
from nthsim.kernels.derivatives import check_forward
from nthsim.network.coefficients import coefficients
from nthsim.network.network import AbstractNetwork
from nthsim.network.regulariser import Regulariser
from nthsim.solvers.momentum import Momentum


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
        """There is none: the network itself is another function of these parameters."""
        del theta

    def expandable(self, theta: PyTree, x: object) -> "TaylorNetwork":
        """The same: it is made of an expandable one."""
        del theta, x
        return self


class Taylor(Curve):
    """The Taylor model of degree q, trained as in `taylor`.

    Raises:
        ValueError: When q is no integer of at least 1.
    """

    q: int = eqx.field(converter=lambda q: count("degree", q, 1))

    @property
    def key(self) -> str:
        """Such as "Taylor 1"."""
        return f"Taylor {self.q}"

    @property
    def dotted(self) -> bool:
        """That of degree 1 is order 2, where there is no regulariser."""
        return True

    def check(self, problem: Problem) -> None:
        """Refuse a model without forward derivatives."""
        check_forward(problem.forward, f"the Taylor model of degree {self.q}")

    def check_memory(self, size: Size) -> None:
        """All its terms are evaluated at once."""
        check_taylor(size, self.q)

    def needs(self, size: Size) -> Needs:
        """The parameters move as in exact flow."""
        return Needs(
            moving=size.parameters,
            frozen=size.parameters,
            peak=taylor_bytes(size, self.q),
            kernels=size.recorded * size.kernel.work.nested(size.points, size.n * size.kernel.k, 2),
            side=taylor_side_flops(size, self.q),
        )

    def trajectory(self, run: Run, start: Start, *, progress: bool) -> Trajectory:
        """The gradient flow of the polynomial."""
        problem = proven(start.problem, self.q + 1, whole=True)
        method, network = problem.method, problem.network
        nested = method.obstacle is not None
        network = network if nested else network.expandable(problem.theta, problem.x)
        polynomial = TaylorNetwork(network, problem.theta, self.q, nested)
        expanded = dataclasses.replace(problem, network=polynomial)
        name = f"degree-{self.q} Taylor model"
        return dataclasses.replace(
            exact(expanded, run, name=name, progress=progress), method=str(method)
        )


def taylor(
    model: PyTree,
    data: Dataset,
    degree: int,
    run: Run | ArrayLike,
    *,
    loss: Loss = squared_error,
    rates: PyTree = None,
    regulariser: Regulariser | None = None,
    momentum: Momentum | None = None,
    progress: bool = True,
) -> Trajectory:
    r"""Train the degree-q Taylor polynomial of `model` in its parameters by gradient flow.

    $f_q(\theta) = \sum_{j \le q} \frac{1}{j!} D^j f(\theta_0)[(\theta - \theta_0)^j]$, so that
    degree 1 is the linearised network: without a regulariser the same as the hierarchy at order 2.
    From degree 2 on the polynomial is a model of its own, with its own tangent kernel, where a
    truncation of the hierarchy expands the solution (Bai, Krause, Wang, Xiong & Socher 2020, arXiv
    2002.04010).

    A kernel that is recorded is the polynomial's own, by nested derivatives; what is not told here
    is as in `gradient_flow`.

    Args:
        model: It is expanded about its parameters.
        data: As there.
        degree: The degree q, at least 1.
        run: As there.
        loss: As there.
        rates: As there.
        regulariser: As there, of the parameters themselves.
        momentum: As there.
        progress: As there.

    Raises:
        ValueError: When the model does not allow forward derivatives, or memory does not suffice.
        SolveError: As there.
    """
    run = checked_run(run)
    concrete("taylor", model, data, run.ts, regulariser)
    curve = Taylor(degree)
    check_everywhere(run.record, "a Taylor model")
    problem = pose(model, data, loss, rates, regulariser, momentum)
    curve.check(problem)
    curve.check_memory(problem_size(problem, run))
    solved = curve.trajectory(run, Start(problem, progress=progress), progress=progress)
    if solved.stop.failed and run.throw:
        raise SolveError(solved)
    return solved
