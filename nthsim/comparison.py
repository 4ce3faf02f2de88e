"""Exact training beside its truncated hierarchies: the main job."""

import dataclasses
from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from numpy.typing import ArrayLike

from nthsim.certificates import Certificate, certified
from nthsim.checks import choice, count, times
from nthsim.datasets import Dataset
from nthsim.errors import Errors, Series, drift, errors
from nthsim.flow import exact
from nthsim.hierarchies import METHODS, initial_kernels, truncated
from nthsim.losses import Loss, squared_error
from nthsim.problem import pose
from nthsim.solvers.auto import Auto
from nthsim.solvers.explicit import Explicit
from nthsim.trajectories import SolveError, Trajectory


class Comparison(eqx.Module):
    """Exact gradient flow of one network, and order-p truncations of its hierarchy.

    `exact` and `truncations` (one per order) are trajectories with their kernels. `certificate`
    holds the fitted small-time slopes, or None (float32, or not wanted). `model`, `data`, `loss`
    and `solver` are what was compared, so that `rerun` can do it again.
    """

    model: PyTree
    data: Dataset
    loss: Loss
    solver: Explicit | Auto
    orders: tuple[int, ...]
    ts: np.ndarray
    exact: Trajectory
    truncations: tuple[Trajectory, ...]
    certificate: Certificate | None

    def truncation(self, order: int) -> Trajectory:
        """The trajectory of one order.

        Raises:
            ValueError: When this order was not compared.
        """
        if order not in self.orders:
            raise ValueError(f"`order` must be one of {self.orders}, but is {order!r}.")
        return self.truncations[self.orders.index(order)]

    def errors(self, order: int) -> Errors:
        """The errors of one order against exact flow, over time."""
        return errors(self.truncation(order), self.exact)

    def drift(self) -> Series | None:
        r"""Relative movement of the tangent kernel, $\|K_t - K_0\| / \|K_0\|$, shape (T,)."""
        return drift(self.exact)


class CompareError(SolveError):
    """A comparison without its whole exact flow; what was computed is in `.comparison`."""

    def __init__(self, comparison: Comparison) -> None:
        """Say why and where it ended."""
        super().__init__(comparison.exact)
        self.comparison = comparison


def compare(
    model: PyTree,
    data: Dataset,
    orders: Sequence[int],
    ts: ArrayLike,
    *,
    loss: Loss = squared_error,
    solver: Explicit | Auto = Auto(),
    method: str = "auto",
    certify: bool = True,
    progress: bool = True,
    throw: bool = True,
) -> Comparison:
    """Train `model` exactly and by the hierarchy truncated at each of `orders`, side by side.

    A truncation that blows up is part of the result. Every trajectory records its tangent kernel.

    Args:
        model: Any Equinox module that maps one input to a scalar or a vector.
        data: Training data and, perhaps, passive test points.
        orders: The truncation orders p, each at least 2.
        ts: Save times, shape (T,), non-negative and strictly increasing; time starts at 0.
        loss: Differentiable function of one output and one target.
        solver: Method, tolerances and step limit, for all dynamics.
        method: As in `hierarchy`.
        certify: Whether to fit the small-time slopes; only done in float64.
        progress: Whether to show progress bars when on a terminal.
        throw: Whether an exact flow that ends early raises, once everything else is done.

    Raises:
        ValueError: When an argument is not as above, or something does not fit into memory.
        CompareError: When the exact flow ends early and `throw`, or at Ctrl-C; its `.comparison`
            holds what was computed.
    """
    orders = checked_orders(orders)
    choice("method", method, METHODS)
    ts = times(ts)
    problem = pose(model, data, loss)
    flow = exact(problem, ts, solver=solver, record_kernel=True, progress=progress)
    study = Comparison(model, data, loss, solver, (), ts, flow, (), None)
    if flow.stop.reason == "interrupt":
        raise CompareError(study)
    try:
        kernels = initial_kernels(problem, max(orders), progress=progress)
        for p in orders:
            truncation = truncated(
                problem, kernels[:p], ts, solver=solver, record_kernel=True, progress=progress
            )
            study = _with(study, p, truncation)
            if truncation.stop.reason == "interrupt":
                raise KeyboardInterrupt
        if certify and problem.x.dtype == jnp.float64:
            slopes = certified(problem, kernels, orders)
            study = dataclasses.replace(study, certificate=slopes)
    except KeyboardInterrupt as interrupt:
        raise CompareError(study) from interrupt
    if flow.stop.failed and throw:
        raise CompareError(study)
    return study


def checked_orders(orders: Sequence[int]) -> tuple[int, ...]:
    """The orders, each an integer of at least 2, in rising order and once each."""
    if not isinstance(orders, Sequence) or not len(orders):
        raise ValueError(
            f"`orders` must be a sequence of orders such as (2, 3), but is {orders!r}."
        )
    return tuple(sorted({count("orders", p, 2) for p in orders}))


def _with(study: Comparison, order: int, truncation: Trajectory) -> Comparison:
    return dataclasses.replace(
        study,
        orders=(*study.orders, order),
        truncations=(*study.truncations, truncation),
    )
