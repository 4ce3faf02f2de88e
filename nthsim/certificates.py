"""The small-time certificate: the error of order p must vanish like t to the p."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from nthsim.checks import count
from nthsim.datasets import Dataset
from nthsim.errors import rms
from nthsim.flow import exact
from nthsim.footprints import check_hierarchy
from nthsim.hierarchies import initial_kernels, truncated
from nthsim.losses import Loss, squared_error
from nthsim.problem import Problem, pose
from nthsim.solvers.explicit import Explicit

#: Save times per certificate, from the first fraction of the fastest time scale to the second.
TIMES, FROM, TO = 49, 1e-4, 1.0

#: A slope is fitted where the error has just left rounding, over this factor in time.
WINDOW = 4.0

#: Errors below this many roundings of f are noise.
ROUNDINGS = 200.0


class Certificate(eqx.Module):
    r"""Fitted slopes of log error of f against log t, one per order; order p must give about p.

    `errors` (orders, T) are root mean squares over the training points at times `ts`; `windows`
    (orders, 2) are the times between which each slope was fitted. A slope is NaN where the error
    never leaves rounding, as for a truncation that is exact.
    """

    orders: tuple[int, ...]
    ts: Float[np.ndarray, " T"]
    errors: Float[np.ndarray, "orders T"]
    slopes: Float[np.ndarray, " orders"]
    windows: Float[np.ndarray, "orders 2"]

    def __str__(self) -> str:
        """One line per order."""
        lines = ["small-time certificate: error of f ~ t^slope"]
        for p, slope, (low, high) in zip(self.orders, self.slopes, self.windows, strict=True):
            fitted = f"{slope:.3f}  (t = {low:.2e} to {high:.2e})"
            lines.append(f"  order {p}: {fitted if np.isfinite(slope) else 'below rounding'}")
        return "\n".join(lines)


def certificate(
    model: PyTree,
    data: Dataset,
    orders: tuple[int, ...],
    *,
    loss: Loss = squared_error,
    progress: bool = True,
) -> Certificate:
    """Compare each order with exact flow at small times and fit the power of t.

    Times run up to the fastest time scale of the linearised flow. Works in float64 only: in
    float32 rounding hides the errors of all but the lowest orders.

    Args:
        model: Any Equinox module that maps one input to a scalar or a vector, in float64.
        data: Training data; test points are not used.
        orders: The orders p, each at least 2.
        loss: Differentiable function of one output and one target.
        progress: Whether to show progress bars when on a terminal.

    Raises:
        ValueError: When an argument is not as above.
    """
    orders = tuple(count("orders", p, 2) for p in orders)
    problem = pose(model, Dataset(data.x, data.y), loss)
    if problem.x.dtype != jnp.float64:
        raise ValueError(f"`model` must be in float64 to be certified, but is {problem.x.dtype}.")
    check_hierarchy(problem, max(orders), 0, recorded=False, name="orders")
    kernels = initial_kernels(problem, max(orders), progress=progress)
    return certified(problem, kernels, orders)


def certified(problem: Problem, kernels: tuple[Array, ...], orders: tuple[int, ...]) -> Certificate:
    """The certificate of a problem whose kernels are known."""
    N = kernels[-1].shape[-1]
    passive = eqx.tree_at(
        lambda p: (p.x_test, p.y_test), problem, (None, None), is_leaf=lambda a: a is None
    )
    kernels = tuple(k[:N] for k in kernels)
    ts = fastest_time(problem, kernels) * np.geomspace(FROM, TO, TIMES)
    solver = Explicit(rtol=1e-13, atol=1e-15)
    f = exact(passive, ts, solver=solver, record_kernel=False, progress=False).f
    errors = np.full((len(orders), TIMES), np.nan)
    for row, p in zip(errors, orders, strict=True):
        truncation = truncated(
            passive, kernels[:p], ts, solver=solver, record_kernel=False, progress=False
        )
        reached = len(truncation.ts)
        row[:reached] = rms(truncation.f - f[:reached])
    noise = ROUNDINGS * np.finfo(f.dtype).eps * (rms(f[:1])[0] + np.ptp(f))
    fits = [_fit(ts, row, noise) for row in errors]
    slopes, windows = (np.array(column) for column in zip(*fits, strict=True))
    return Certificate(orders, ts, errors, slopes, windows)


def fastest_time(problem: Problem, kernels: tuple[Array, ...]) -> float:
    r"""The shortest time scale of the flow, $n / (\lambda_{\max}(K^{(2)}) \max_a |\ell''_a|)$."""
    residual = problem.residual
    f = kernels[0].reshape(len(problem.x), *problem.out_shape)
    curvature = jax.vmap(jax.hessian(residual.loss))(f, residual.y).reshape(len(f), -1)
    largest = jnp.linalg.norm(kernels[1], 2) * jnp.linalg.norm(curvature, axis=1).max()
    return float(len(f) / largest)


def _fit(
    ts: Float[np.ndarray, " T"], errors: Float[np.ndarray, " T"], noise: float
) -> tuple[float, tuple[float, float]]:
    clean = ~(errors <= noise) & np.isfinite(errors)
    start = len(ts) - int(np.argmin(clean[::-1])) if not clean.all() else 0
    window = np.arange(len(ts)) >= start
    window &= clean & (ts <= WINDOW * ts[min(start, len(ts) - 1)])
    if window.sum() < 4:
        return np.nan, (np.nan, np.nan)
    slope = np.polyfit(np.log(ts[window]), np.log(errors[window]), 1)[0]
    return float(slope), (float(ts[window][0]), float(ts[window][-1]))
