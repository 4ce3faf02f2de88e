"""How far one trajectory is from another, or from a tighter solve of the same, over time."""

import dataclasses
import math
from collections.abc import Callable

import equinox as eqx
import numpy as np
from jaxtyping import Float

from nthsim.dynamics.run import Run
from nthsim.dynamics.solve_error import raise_if_interrupted
from nthsim.dynamics.trajectory import Trajectory

Series = Float[np.ndarray, " T"]

#: How errors and movement of the tangent kernel are measured, as an axis says it.
RELATIVE = "Frobenius norm, relative to $K^{(2)}_0$"


class Errors(eqx.Module):
    r"""Errors of a truncation against exact flow at the save times that both reached.

    `train_rms` and `train_max` are the root mean square and the largest error of f over training
    points and outputs, `test_rms` and `test_max` likewise (None without test points); `loss` and
    `test_loss` are absolute differences. `kernel` and `kernel_test` are root mean squares over
    entries, relative to that of $K^{(2)}_0$ on the training points, as `drift` is: for `kernel`
    that is $\|\tilde K^{(2)}_t - K^{(2)}_t\| / \|K^{(2)}_0\|$ in Frobenius norm. They are at the
    times `kernel_ts`, of shape (S,), None if not recorded. All others have shape (T,).
    """

    ts: Series
    train_rms: Series
    train_max: Series
    test_rms: Series | None
    test_max: Series | None
    loss: Series
    test_loss: Series | None
    kernel: Series | None
    kernel_test: Series | None
    kernel_ts: Series | None


def errors(
    truncation: Trajectory, exact: Trajectory, start: Float[np.ndarray, "n ..."] | None = None
) -> Errors:
    r"""Compare two trajectories at the times that both reached.

    `start` is $K^{(2)}_0$ on the training points, without which errors of kernels are None.
    """
    T = min(len(truncation.ts), len(exact.ts))
    pairs = {
        name: (getattr(truncation, name), getattr(exact, name))
        for name in ("f", "f_test", "loss", "test_loss", "kernel", "kernel_test")
    }
    difference = {name: _difference(a, b) for name, (a, b) in pairs.items()}
    f, loss, kernel, clock = difference["f"], difference["loss"], difference["kernel"], None
    if kernel is not None and exact.record_ts is not None:
        clock = exact.record_ts[: len(kernel)]
    assert f is not None
    assert loss is not None
    return Errors(
        ts=exact.ts[:T],
        train_rms=rms(f),
        train_max=_largest(f),
        test_rms=_on(rms, difference["f_test"]),
        test_max=_on(_largest, difference["f_test"]),
        loss=np.abs(loss),
        test_loss=_on(np.abs, difference["test_loss"]),
        kernel=_relative(kernel, start),
        kernel_test=_relative(difference["kernel_test"], start),
        kernel_ts=None if start is None else clock,
    )


def drift(exact: Trajectory, start: Float[np.ndarray, "n ..."] | None) -> Series | None:
    r"""$\|K^{(2)}_t - K^{(2)}_0\| / \|K^{(2)}_0\|$ where `start` is $K^{(2)}_0$, at t = 0.

    At the times `record_ts` of the flow, the first of which may come later. None where either
    kernel is unknown or no time was reached.
    """
    if exact.kernel is None or start is None or not len(exact.kernel):
        return None
    return _relative(exact.kernel - start, start)


def _difference(a: np.ndarray | None, b: np.ndarray | None) -> np.ndarray | None:
    """At the times that both reached; both began at the same."""
    if a is None or b is None:
        return None
    both = min(len(a), len(b))
    return a[:both] - b[:both]


def rms(error: Float[np.ndarray, "T ..."]) -> Series:
    """The root mean square at each time."""
    return np.sqrt(np.mean(_rows(error) ** 2, axis=1))


def _largest(error: Float[np.ndarray, "T ..."]) -> Series:
    return np.abs(_rows(error)).max(axis=1)


def _rows(array: Float[np.ndarray, "T ..."]) -> Float[np.ndarray, "T entries"]:
    # The length of a row is written out, as -1 cannot be resolved when no time was reached.
    return array.reshape(len(array), math.prod(array.shape[1:]))


def _on(measure, difference: np.ndarray | None) -> Series | None:
    return None if difference is None else measure(difference)


def _relative(difference: np.ndarray | None, start: np.ndarray | None) -> Series | None:
    if difference is None or start is None:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):  # of a kernel that is zero, NaN
        return rms(difference) / rms(start[None])


def audited(known: Trajectory, again: Callable[[Run], Trajectory], run: Run) -> Trajectory:
    """A trajectory with its `solver_error`, how far a tighter solve of the same is from it."""
    tighter = raise_if_interrupted(again(run.audit(known.f.dtype)))
    both = min(len(known.ts), len(tighter.ts))
    found = np.full(len(known.ts), np.inf)
    found[:both] = rms(known.f[:both] - tighter.f[:both])
    return dataclasses.replace(known, solver_error=found)


def floor(other: Trajectory, exact: Trajectory) -> Series | None:
    """The solver errors of a run and of exact flow together, at the times that both reached.

    What lies between the two by less says nothing. None for what was not audited.
    """
    if other.solver_error is None or exact.solver_error is None:
        return None
    both = min(len(other.ts), len(exact.ts))
    return other.solver_error[:both] + exact.solver_error[:both]
