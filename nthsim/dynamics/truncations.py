r"""Truncations of one problem's hierarchy, each by its road, from what they start from."""

import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, PyTree

from nthsim.budget.fits import Choice
from nthsim.dynamics.problem import Problem
from nthsim.dynamics.run import Schedule
from nthsim.dynamics.taylor_proof import proven
from nthsim.dynamics.trajectory import Trajectory, trajectory
from nthsim.kernels.derivatives import check_forward
from nthsim.results.terminal import Progress
from nthsim.solvers.dense_hierarchy import DenseHierarchy
from nthsim.solvers.series_hierarchy import SeriesHierarchy

#: What perturbation theory and bounds start from.
FOURTH: Mapping[int, Choice] = MappingProxyType({4: Choice("dense", "as these kernels are wanted")})


class Truncations(eqx.Module):
    r"""The hierarchy of a problem, ready to be truncated at the orders in `choices`.

    `kernels` holds $f, K^{(2)}, \dots$ at t = 0 up to the highest order to be integrated dense,
    training and test points in the first slot, and `seconds` the time that each of
    $K^{(2)}, \dots$ took; both are empty where every order is a series.
    """

    problem: Problem
    choices: Mapping[int, Choice]
    kernels: tuple[Array, ...]
    seconds: tuple[float, ...]

    def integrate(
        self, order: int, course: Schedule, *, name: str | None = None, progress: bool
    ) -> Trajectory:
        """Integrate the truncation at one of the orders."""
        choice, system = self.choices[order], self.system(order)
        name = name or f"order-{order} truncation"
        solution = course.integrated(
            self.problem,
            system,
            lambda: self._tangent_kernel(system),
            name,
            method=choice.method,
            progress=progress,
        )
        method = f"{choice}; {self.problem.road}" if choice.method == "series" else str(choice)
        return trajectory(name, self.problem, solution, method=method)

    def orders(self, method: str | None = None) -> tuple[int, ...]:
        """All orders, or those on one road."""
        return tuple(p for p, choice in self.choices.items() if method in (None, choice.method))

    def initial_kernel(self) -> Float[np.ndarray, "n ..."]:
        r"""$K^{(2)}$ among the training points at t = 0, of shape (n, n) or (n, k, n, k)."""
        problem = self.problem.without_test_points()
        kernel = self.kernels[1] if self.kernels else problem.kernel(2)(problem.theta)
        n, out = len(problem.x), problem.out_shape
        return np.asarray(kernel)[: kernel.shape[1]].reshape(n, *out, n, *out)

    def system(self, order: int) -> DenseHierarchy | SeriesHierarchy:
        """The equations of the truncation at one of the orders."""
        problem = self.problem
        if self.choices[order].method == "dense":
            return dense_hierarchy(problem, self.kernels[:order])
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
        )

    def _tangent_kernel(self, system: DenseHierarchy | SeriesHierarchy):
        if isinstance(system, DenseHierarchy):
            return system.kernel_shown
        evaluate = self.problem.series_kernel()

        def kernel(state: tuple[PyTree[Array], ...]) -> Array:
            return evaluate(system.path(state)[:-1])

        return kernel


def truncations(
    problem: Problem,
    choices: Mapping[int, Choice],
    *,
    known: Truncations | None = None,
    progress: bool,
) -> Truncations:
    """Compute the kernels that the dense orders start from.

    Those of `known`, the same problem at other orders, are not computed again.
    """
    top = max((p for p, choice in choices.items() if choice.method == "dense"), default=0)
    if any(choice.method == "series" for choice in choices.values()):
        problem = proven(problem)
    kernels = [] if known is None else list(known.kernels)
    seconds = [] if known is None else list(known.seconds)
    if top and not kernels:
        kernels.append(problem.outputs())
    for r in range(len(kernels) + 1, top + 1):
        clock = time.perf_counter()
        with Progress(f"K^({r})", progress) as bar:
            kernels.append(jax.block_until_ready(problem.kernel(r)(problem.theta, bar)))
        seconds.append(time.perf_counter() - clock)
    return Truncations(problem, choices, tuple(kernels), tuple(seconds))


def with_fourth(known: Truncations, *, progress: bool) -> Truncations:
    r"""The same with all of $f, K^{(2)}, K^{(3)}, K^{(4)}$ at t = 0 among its `kernels`."""
    started = truncations(known.problem, FOURTH, known=known, progress=progress)
    return Truncations(known.problem, known.choices, started.kernels, started.seconds)


def dense_hierarchy(problem: Problem, kernels: tuple[Array, ...]) -> DenseHierarchy:
    r"""The equations of the truncation at the order of the last of $f, K^{(2)}, \dots$."""
    return DenseHierarchy(
        kernels=kernels,
        residual=problem.residual,
        risk=problem.residual.risk,
        samples=len(problem.x),
        quadratic=problem.quadratic,
        rough=problem.residual.rough,
    )


def check_roads(problem: Problem, roads: Mapping[int, Choice], degrees: Sequence[int] = ()) -> None:
    """Refuse orders and Taylor degrees whose derivatives the model does not allow.

    Raises:
        ValueError: When it holds a `custom_vjp` that stands in their way.
    """
    if problem.forward:
        return
    for p, choice in roads.items():
        if choice.method == "series":
            check_forward(problem.forward, f"order {p} as a series")
        else:
            problem.kernel(p)  # which refuses
    for q in degrees:
        check_forward(problem.forward, f"the Taylor model of degree {q}")
