"""A-priori bounds on the error of the frozen kernel, for one run."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from nthsim.dynamics.problem import Problem
from nthsim.dynamics.trajectory import Trajectory
from nthsim.models.activation import ACTIVATIONS, kinked, resolve
from nthsim.models.fcn import FCN
from nthsim.models.resnet import ResNet
from nthsim.results.record import Record, arrays_of
from nthsim.results.terminal import scientific
from nthsim.solvers.phi import phi

Bound = Float[np.ndarray, " T"]


class Bounds(eqx.Module):
    r"""Bounds on the movement of $K^{(2)}$ and on the error of order 2, squared error, over `ts`.

    With n samples, N numbers to learn, $\delta = f - y$, $R = \sqrt N\, |\delta_0| / n$ (`drive`),
    $B_3 = \max |K^{(3)}_0|$ (`third`), $B_4 = \max |K^{(4)}_t|$ (`fourth`) over all entries, and
    $\lambda$ the smallest eigenvalue of $K^{(2)}_0$ (`smallest`),

    $$\max |K^{(2)}_t - K^{(2)}_0| \le D(t) = R B_3 t + \tfrac12 R^2 B_4 t^2, \qquad
    \tfrac{1}{\sqrt N} |f - \tilde f_2| \le R \int_0^t e^{-\lambda (t - s) / n} D(s)\, ds.$$

    Proof: the loss does not rise, so $\frac1n \sum_b |\delta_b| \le R$, which bounds the movement
    of $K^{(3)}$ by $R B_4 t$ and so that of $K^{(2)}$. The error e has
    $e' = -\frac1n K^{(2)}_0 e - \frac1n (K^{(2)}_t - K^{(2)}_0)\, \delta$, whose last term is at
    most $\sqrt N R\, D(t)$ long. For scalar outputs R is $|\delta_0| / \sqrt n$, as in the
    corollaries of Huang & Yau 2019 (arXiv 1909.08156), which state such bounds up to constants.

    `fourth` is the larger of the values at t = 0 and of the trained network: what is largest in
    between is not looked for. `f_bound` and `kernel_bound` are the right-hand sides, `drift_bound`
    is N D relative to the Frobenius norm of $K^{(2)}_0$. `horizon` is the $\sqrt{\lambda m / n}$ up
    to which, up to constants and logarithms, Theorem 2.6 there holds; None for a network without a
    width m. `doubts` are sentences on assumptions that fail.
    """

    drive: float
    third: float
    fourth: float
    smallest: float
    horizon: float | None
    ts: Bound
    f_bound: Bound
    kernel_bound: Bound
    drift_bound: Bound
    doubts: tuple[str, ...]

    def __str__(self) -> str:
        """What the bounds are made of."""
        known = "unknown" if self.horizon is None else f"t = {self.horizon:.3g}, up to constants"
        parts = {"R": self.drive, "|K^(3)|": self.third, "|K^(4)|": self.fourth}
        parts |= {"lambda": self.smallest}
        shown = ", ".join(f"{name} = {scientific(value)}" for name, value in parts.items())
        return f"{shown}; horizon of Theorem 2.6: {known}"

    def record(self) -> Record:
        """All of it, as named arrays and facts."""
        arrays = arrays_of(self)
        names = [field.name for field in dataclasses.fields(self)]
        return Record(arrays, {name: getattr(self, name) for name in names if name not in arrays})

    @staticmethod
    def from_record(record: Record) -> "Bounds":
        """The bounds that `record` described."""
        doubts = tuple(record.facts["doubts"])
        facts = {name: fact for name, fact in record.facts.items() if name != "doubts"}
        return Bounds(**record.arrays, **facts, doubts=doubts)


def bounded(
    problem: Problem, model: PyTree, exact: Trajectory, kernels: tuple[Array, ...]
) -> Bounds:
    r"""The bounds for an exact flow that started with $f, K^{(2)}, K^{(3)}, K^{(4)}$."""
    f, tangent, third, fourth = kernels
    n, N = len(problem.x), tangent.shape[1]
    spectrum = np.linalg.eigvalsh(np.asarray(tangent[:N]))
    smallest = max(float(spectrum[0]), 0.0)
    distance = float(jnp.linalg.norm(f[:N] - problem.residual.y.reshape(-1)))
    trained = problem.kernel(4)(problem.theta_of(exact.model))
    B3 = float(jnp.abs(third[:N]).max())
    B4 = float(np.max([jnp.abs(one[:N]).max() for one in (fourth, trained)]))  # NaN stays NaN
    R, ts = math.sqrt(N) * distance / n, exact.ts
    second, cubic = (np.asarray(one) for one in phi(jnp.asarray(-smallest / n * ts), 3)[2:])
    kernel = R * B3 * ts + R**2 * B4 * ts**2 / 2
    width = model.width if isinstance(model, FCN | ResNet) else None
    horizon = None if width is None else math.sqrt(smallest * width / n)
    with np.errstate(divide="ignore", invalid="ignore"):  # of a kernel that is zero, NaN
        drift_bound = N * kernel / np.linalg.norm(tangent[:N])
    return Bounds(
        drive=R,
        third=B3,
        fourth=B4,
        smallest=smallest,
        horizon=horizon,
        ts=ts,
        f_bound=R * (R * B3 * ts**2 * second + R**2 * B4 * ts**3 * cubic),
        kernel_bound=kernel,
        drift_bound=drift_bound,
        doubts=tuple(_doubts(model, exact, spectrum, horizon)),
    )


def _doubts(
    model: PyTree, exact: Trajectory, spectrum: Float[np.ndarray, " N"], horizon: float | None
) -> list[str]:
    found = []
    if _has_kinks(model) or exact.stats.forced:
        found.append("the network has kinks, where K^(3) and K^(4) miss jumps: this is no bound")
    singular = spectrum[0] <= len(spectrum) * np.finfo(spectrum.dtype).eps * spectrum[-1]
    if singular:
        found.append(
            f"K^(2) is singular to rounding, with eigenvalues from {spectrum[0]:.1e} to "
            f"{spectrum[-1]:.1e}: nothing holds the error back"
        )
    if horizon is None:
        name = type(model).__name__
        found.append(f"{name} has no known width, so the horizon of Theorem 2.6 is unknown too")
    elif len(exact.ts) and exact.ts[-1] > horizon and not singular:
        found.append(
            f"t = {exact.ts[-1]:g} is beyond sqrt(lambda m / n) = {horizon:.3g}, where Theorem 2.6 "
            "ends, up to constants"
        )
    return found


def _has_kinks(model: PyTree) -> bool:
    """Whether the activation of a network, by its name too, or any function in it has a kink."""
    named = getattr(model, "activation", None)
    if isinstance(named, str) and named in ACTIVATIONS:
        return kinked(resolve(named))
    return any(_seems_kinked(leaf) for leaf in jax.tree.leaves(model) if callable(leaf))


def _seems_kinked(function: object) -> bool:
    try:
        return kinked(function)  # pyright: ignore[reportArgumentType]
    except Exception:  # a stranger's function, perhaps no activation at all
        return False
