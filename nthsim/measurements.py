"""What one population shows: sizes of kernels, drift, and errors of truncations, by member."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Float

from nthsim.errors import rms
from nthsim.populations import Population
from nthsim.records import Record
from nthsim.solvers.solution import Solution
from nthsim.solvers.solver import AbstractSolver


def measured(
    population: Population,
    orders: Sequence[int],
    kernels: int,
    ts: Float[np.ndarray, " T"],
    solver: AbstractSolver,
) -> Record:
    r"""Measure everything, with one row per member.

    The arrays: `initial_f` (members, N) and `initial_kernels` (members, N, N), f and $K^{(2)}$ on
    training points at t = 0, N = n·k; `kernel_rms`, `kernel_max` and `kernel_mean`, one column for
    each of $K^{(2)}, K^{(3)}, \dots$ at t = 0, the last as `moment` says; `drift` (members, T), the
    movement of $K^{(2)}$ along exact flow, relative in Frobenius norm; `error_f`, `error_f_test`
    (where there are test points) and `error_kernel` (members, orders, T), root mean square errors
    of f and errors of $K^{(2)}$ relative in Frobenius norm. What a member shows after its blow-up
    is NaN, and `blown_up` (members, orders) is 1. The facts say by which steps each dynamics was
    integrated, and why it ended.

    Raises:
        KeyboardInterrupt: At Ctrl-C; half a cell is none.
    """
    N = len(population.problem.x) * population.problem.outputs_per_sample
    levels = [population.outputs(), *(population.kernel(r) for r in range(2, kernels + 1))]
    f, *tensors = (np.asarray(level)[:, :N] for level in levels)
    flow = _heard(population.flow(ts, solver))
    runs, rows = {"exact gradient flow": flow}, []
    for p in orders:
        runs[f"order {p}"] = run = _heard(population.truncation(levels[:p], ts, solver))
        rows.append(_errors(run, flow, levels, len(ts)))
    columns = {
        "kernel_rms": [rms(K) for K in tensors],
        "kernel_max": [np.abs(K).max(axis=tuple(range(1, K.ndim))) for K in tensors],
        "kernel_mean": [moment(K, f) for K in tensors],
        **{name: [row[name] for row in rows] for name in (rows[0] if rows else ())},
    }
    arrays = {name: np.stack(each, axis=1) for name, each in columns.items()}
    arrays |= {"initial_f": f, "initial_kernels": tensors[0]}
    moved = _padded(flow, "kernel", tensors[0], len(ts)) - tensors[0][None]
    arrays["drift"] = (_norms(moved) / _norms(tensors[0])[None]).T
    stops = {name: str(run.stop) for name, run in runs.items()}
    return Record(arrays, {"solver": flow.choice, "stops": stops})


def _heard(run: Solution) -> Solution:
    """A run; or Ctrl-C, which the integration took for a reason to end."""
    if run.stop.reason == "interrupt":
        raise KeyboardInterrupt
    return run


def moment(
    kernel: Float[np.ndarray, "members ..."], f: Float[np.ndarray, "members N"]
) -> Float[np.ndarray, " members"]:
    r"""The mean entry of $K^{(r)}$ for even r; that of $K^{(r)}_{a \dots c} f_c$ for odd r.

    A readout of either sign is as likely, and odd kernels change theirs with it: their own means
    vanish.
    """
    order = kernel.ndim - 1
    signed = kernel * f.reshape(len(f), *(1,) * (order - 1), -1) if order % 2 else kernel
    return signed.mean(axis=tuple(range(1, kernel.ndim)))


def _errors(
    run: Solution, flow: Solution, levels: Sequence[np.ndarray | Array], T: int
) -> dict[str, np.ndarray]:
    """A row for each member, of errors at all times, and whether it blew up."""
    N = levels[1].shape[-1]
    exact = _padded(flow, "f", levels[0], T)
    f = _padded(run, "f", levels[0], T)
    difference = f - exact
    kernel, other = (_padded(each, "kernel", levels[1][:, :N], T) for each in (run, flow))
    found = {
        "error_f": _rms(difference[:, :, :N]),
        "error_kernel": (_norms(kernel - other) / _norms(other)).T,
        "blown_up": np.isnan(f[: len(run.ts)][-1:]).any(axis=(0, 2)).astype(np.int8),
    }
    tested = f.shape[2] > N
    return found | ({"error_f_test": _rms(difference[:, :, N:])} if tested else {})


def _rms(error: Float[np.ndarray, "T members N"]) -> Float[np.ndarray, "members T"]:
    return np.stack([rms(at_once) for at_once in error], axis=1)


def _norms(kernels: Float[np.ndarray, "... N N"]) -> Float[np.ndarray, "..."]:
    return np.linalg.norm(kernels, axis=(-2, -1))


def _padded(
    run: Solution, name: str, start: np.ndarray | Array, T: int
) -> Float[np.ndarray, "T members ..."]:
    """What was recorded, shaped as at the start; NaN at save times that were not reached."""
    full = np.full((T, *start.shape), np.nan, start.dtype)
    if len(run.ts):
        full[: len(run.ts)] = run.records[name].reshape(len(run.ts), *start.shape)
    return full
