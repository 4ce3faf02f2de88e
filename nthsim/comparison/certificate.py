"""The small-time certificate: the error of order p must vanish like t to the p."""

import warnings
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from nthsim.dynamics.errors import rms
from nthsim.dynamics.gradient_flow import exact
from nthsim.dynamics.hierarchy import Order
from nthsim.dynamics.pose import pose
from nthsim.dynamics.problem import Problem
from nthsim.dynamics.run import Run, problem_size
from nthsim.dynamics.solve_error import raise_if_interrupted
from nthsim.dynamics.start import Start
from nthsim.inputs.arrays import concrete
from nthsim.inputs.dataset import Dataset
from nthsim.inputs.loss import Loss, squared_error
from nthsim.network.regulariser import Regulariser
from nthsim.results.terminal import Progress, wrapped
from nthsim.solvers.curvature import largest_curvature
from nthsim.solvers.explicit import Explicit
from nthsim.solvers.momentum import Momentum

#: Save times per certificate, from the first fraction of the fastest time scale to the second.
TIMES, FROM, TO = 49, 1e-4, 1.0

#: A slope is fitted where the error has just left rounding, over this factor in time.
WINDOW = 4.0

#: Slopes of sound networks of all kinds came within 0.2 of the order where they were fitted before
#: `SOON` of the last time, and those of functions whose derivatives are not their own were whole
#: numbers below it: half a power tells them apart. Later, further powers of t have a part in it:
#: half a power at a third of the last time, two at the last.
NEAR, SOON = 0.5, 0.1

#: Errors below this many roundings of f are noise.
ROUNDINGS = 200.0


#: What is said of slopes, and of their absence.
BROKEN = (
    "not the order, which a truncation of this network's hierarchy must give: its field and its "
    "kernels do not belong together (a function whose derivative is not its own, kinks that are "
    "crossed at once, a method that is wrong for it); do not trust this order"
)
LARGER = (
    "larger than the order: the term of the error in t^order vanishes or is small, or the error "
    "jumps within these times, as at a kink"
)
LATE = (
    "says little, as the error leaves rounding too late for a single power of t to be seen; higher "
    "orders, and weak non-linearity, are hard to certify"
)
EARLY = "no slope, as it was not integrated to the first of the small times"
EXACT = (
    "no slope, as the error hardly leaves rounding at small times: the order is exact there, or as "
    "good as exact"
)


class SlopeWarning(UserWarning):
    """An order leaves exact training sooner than a truncation of its hierarchy can."""


class Certificate(eqx.Module):
    r"""Fitted slopes of log error of f against log t, one per order; order p must give about p.

    A smaller slope says that the order is no truncation of the network's own hierarchy; a larger
    one that the next term of the error vanishes, or is hidden at small times by a later one.

    `errors` (orders, T) are root mean squares over the training points at times `ts`; `windows`
    (orders, 2) are the times between which each slope was fitted. A slope is NaN where the error
    never leaves rounding, as for a truncation that is exact. By momentum, from rest, each is twice
    the order: `power` is 2.
    """

    orders: tuple[int, ...]
    ts: Float[np.ndarray, " T"]
    errors: Float[np.ndarray, "orders T"]
    slopes: Float[np.ndarray, " orders"]
    windows: Float[np.ndarray, "orders 2"]
    power: int = 1

    def __str__(self) -> str:
        """One line per order, and one for each slope that is not near it."""
        lines = ["small-time certificate: error of f ~ t^slope"]
        for p, slope, (low, high) in zip(self.orders, self.slopes, self.windows, strict=True):
            fitted = f"{slope:.2f}  (t = {low:.2e} to {high:.2e})"
            lines.append(f"  order {p}: {fitted if np.isfinite(slope) else 'below rounding'}")
        return "\n".join([*lines, *map(wrapped, self.verdicts())])

    @property
    def broken(self) -> tuple[int, ...]:
        """The orders whose slope is clearly smaller than it must be."""
        rows = zip(self.orders, self.slopes, self.windows[:, 1], strict=True)
        return tuple(
            p for p, s, end in rows if s < self.power * p - NEAR and end <= SOON * self.ts[-1]
        )

    def verdicts(self) -> list[str]:
        """A sentence on the orders with slopes too small, one on those too large, or without."""
        slopes: dict[int, float] = dict(zip(self.orders, self.slopes.tolist(), strict=True))
        ends: dict[int, float] = dict(zip(self.orders, self.windows[:, 1].tolist(), strict=True))
        reached = [p for p, row in zip(self.orders, self.errors, strict=True) if any(row >= 0)]
        far = [p for p, s in slopes.items() if abs(s - self.power * p) > NEAR]
        late = [p for p in far if not ends[p] <= SOON * self.ts[-1]]
        larger = [p for p in far if p not in (*late, *self.broken)]
        missing = [p for p, s in slopes.items() if np.isnan(s)]
        early = [p for p in missing if p not in reached]
        exact = [p for p in missing if p in reached]
        found = [(self.broken, BROKEN), (larger, LARGER), (late, LATE), (early, EARLY)]
        return [f"{self._listed(ps)}: {said}" for ps, said in [*found, (exact, EXACT)] if ps]

    def _listed(self, orders: Sequence[int]) -> str:
        """Orders with their slopes, as far as they have any."""
        slopes: dict[int, float] = dict(zip(self.orders, self.slopes.tolist(), strict=True))
        shown = [f"slope {slopes[p]:.2f} at order {p}" for p in orders if not np.isnan(slopes[p])]
        return ", ".join(shown or [f"order {p}" for p in orders])


def certificate(
    model: PyTree,
    data: Dataset,
    orders: Sequence[int | Order],
    *,
    loss: Loss = squared_error,
    rates: PyTree = None,
    regulariser: Regulariser | None = None,
    momentum: Momentum | None = None,
    progress: bool = True,
) -> Certificate:
    """Compare each order with exact flow at small times and fit the power of t.

    Times run up to the fastest time scale of the linearised flow. Works in float64 only: in
    float32 rounding hides the errors of all but the lowest orders.

    Args:
        model: Any Equinox module that maps one input to a scalar or a vector, in float64.
        data: Training data; test points are not used.
        orders: The orders p, each at least 2, or `Order(p, method=...)`.
        loss: Differentiable function of one output and one target.
        rates: As in `gradient_flow`.
        regulariser: As there.
        momentum: As there.
        progress: Whether to show progress bars when on a terminal.

    Raises:
        ValueError: When an argument is not as above.

    Warns:
        nthsim.comparison.certificate.SlopeWarning: When a slope is clearly smaller than the order.
    """
    concrete("certificate", model, data, regulariser)
    curves = [each if isinstance(each, Order) else Order(each) for each in orders]
    if not curves:
        raise ValueError(f"`orders` must hold an order, but is {orders!r}.")
    problem = pose(model, data, loss, rates, regulariser, momentum).without_test_points()
    if problem.dtype != jnp.float64:
        raise ValueError(f"`model` must be in float64 to be certified, but is {problem.dtype}.")
    size = problem_size(problem)
    for curve in curves:
        curve.check_memory(size)
    settled = [curve.settled(size) for curve in curves]
    for curve in settled:
        curve.check(problem)
    return certified(Start(problem, progress=progress), settled, progress=progress)


def certified(start: Start, orders: Sequence[Order], *, progress: bool) -> Certificate:
    """The certificate of these orders.

    Test points are carried along, though they say nothing here: the programs that integrate them
    are compiled already where a comparison took explicit steps.

    Raises:
        KeyboardInterrupt: At Ctrl-C; half a certificate is none.
    """
    problem = start.problem
    start.kernels(max(order.rank for order in orders))  # which holds the tangent kernel, if any
    power = 1 if problem.momentum is None else 2
    fastest = fastest_time(problem, start.tangent_kernel()) ** (1 / power)
    ts = fastest * np.geomspace(FROM, TO, TIMES)
    run = Run(ts, solver=Explicit(rtol=1e-13, atol=1e-15), record=())
    errors = np.full((len(orders), TIMES), np.nan)
    with Progress("certificate", progress) as bar:
        flow = raise_if_interrupted(exact(problem, run, progress=False))
        for row, order in zip(errors, orders, strict=True):
            bar.forward(1 / (1 + len(orders)))
            truncation = raise_if_interrupted(order.trajectory(run, start, progress=False))
            reached = min(len(truncation.ts), len(flow.ts))
            row[:reached] = rms(truncation.f[:reached] - flow.f[:reached])
    size = float(jnp.sqrt(jnp.mean(problem.without_test_points().outputs() ** 2)))
    moved = np.ptp(flow.f) if flow.f.size else 0.0
    noise = ROUNDINGS * np.finfo(errors.dtype).eps * (size + moved)
    fits = [_fit(ts, row, noise) for row in errors]
    slopes, windows = (np.array(column) for column in zip(*fits, strict=True))
    ps = tuple(order.p for order in orders)
    found = Certificate(ps, ts, errors, slopes, windows, power)
    if found.broken:
        warnings.warn(found.verdicts()[0], SlopeWarning, stacklevel=3)
    return found


def fastest_time(problem: Problem, kernel: Float[np.ndarray, "n ..."]) -> float:
    r"""The shortest time scale of the flow, $n / (\lambda_{\max}(K^{(2)}) \max_a |\ell''_a|)$.

    A regulariser's largest curvature adds to the rate.

    Where the loss has no curvature, the time in which f moves by about its size, $|f| / |f'|$.
    """
    residual, start = problem.residual, problem.without_test_points().outputs()
    f = start.reshape(len(problem.x), *problem.out_shape)
    square = jnp.asarray(kernel, start.dtype).reshape(start.size, start.size)
    curvature = jax.vmap(jax.hessian(residual.loss))(f, residual.y).reshape(len(f), -1)
    rate = jnp.linalg.norm(square, 2) * jnp.linalg.norm(curvature, axis=1).max() / len(f)
    if problem.penalty is not None:
        rate = rate + largest_curvature(problem.penalty, problem.theta)
    velocity = jnp.linalg.norm(square @ residual(start))
    for fastest in (float(rate), float(velocity / (1 + jnp.linalg.norm(start)))):
        if np.isfinite(fastest) and fastest > 0:
            return 1 / fastest
    return 1.0


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
