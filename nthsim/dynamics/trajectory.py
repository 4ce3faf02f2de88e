"""What a solve returns: outputs, losses and kernels over time."""

import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from nthsim.dynamics.accuracy import accuracy
from nthsim.dynamics.ladder import Ladder
from nthsim.dynamics.problem import Problem
from nthsim.dynamics.recipes import restore, store
from nthsim.results.record import Label, Record, arrays_of, origin
from nthsim.results.terminal import several
from nthsim.solvers.solution import Solution, Stats
from nthsim.solvers.stop import Stop

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


class Trajectory(eqx.Module):
    r"""One dynamics at its save times; T of them were reached.

    `f` has shape (T, n) or (T, n, k), `f_test` likewise (None without test points); `loss` (T,) is
    the mean per-sample loss, `test_loss` (None without test targets). Where targets are classes,
    `accuracy` (T,) and `test_accuracy` are the parts of the points whose class f tells (a tie tells
    none). `model` is the network at `stop.t`, for exact gradient flow only.

    `records` holds what else was asked for, by name, at the times `record_ts` (None if nothing
    was): `kernel` is $K^{(2)}$, (S, n, n) or (S, n, k, n, k), and `kernel_test` its test-by-train
    block; a user's own quantities follow, whose axes and units `labels` has.

    A truncation of order p that was integrated as a series has `contributions` (T, p, n) or
    (T, p, n, k), and `contributions_test`: the terms $[\epsilon^j] f$ whose sum f is. The last
    one tells how far the truncation may still be from exact flow. `method` says how a
    truncation was integrated and why, and `ladder` how its order was found if that was left open.
    Of a dynamics with noise `path_f` (T, paths, n) or (T, paths, n, k), `path_f_test`, `path_loss`
    (T, paths) and `path_test_loss` are those of each path, of which all else are the means.
    `solver_error` (T,), if it was asked for, is the root mean square over the training points of
    what solving ten times as tightly changes in f. `origin` says when, where and with which
    versions it was computed.
    """

    name: str
    ts: Float[np.ndarray, " T"]
    f: Float[np.ndarray, "T n ..."]
    f_test: Float[np.ndarray, "T t ..."] | None
    loss: Float[np.ndarray, " T"]
    test_loss: Float[np.ndarray, " T"] | None
    stop: Stop
    stats: Stats
    solver: str
    model: PyTree = None
    path_f: Float[np.ndarray, "T paths n ..."] | None = None
    path_f_test: Float[np.ndarray, "T paths t ..."] | None = None
    path_loss: Float[np.ndarray, "T paths"] | None = None
    path_test_loss: Float[np.ndarray, "T paths"] | None = None
    accuracy: Float[np.ndarray, " T"] | None = None
    test_accuracy: Float[np.ndarray, " T"] | None = None
    contributions: Float[np.ndarray, "T p n ..."] | None = None
    contributions_test: Float[np.ndarray, "T p t ..."] | None = None
    method: str | None = None
    ladder: Ladder | None = None
    solver_error: Float[np.ndarray, " T"] | None = None
    records: dict[str, np.ndarray] = eqx.field(default_factory=dict)
    record_ts: Float[np.ndarray, " S"] | None = None
    labels: dict[str, Label] = eqx.field(default_factory=dict)
    origin: dict[str, Any] = eqx.field(default_factory=origin)

    @property
    def kernel(self) -> Float[np.ndarray, "S n ..."] | None:
        """The recorded tangent kernels among training points; None if there are none."""
        return self.records.get("kernel")

    @property
    def kernel_test(self) -> Float[np.ndarray, "S t ..."] | None:
        """Those of test by training points."""
        return self.records.get("kernel_test")

    def quantiles(self, q: float | Sequence[float], of: str = "f") -> Float[np.ndarray, "..."]:
        """Quantiles over the paths of a dynamics with noise, along a first axis if `q` has several.

        `of` is "f", "f_test", "loss" or "test_loss".

        Raises:
            ValueError: When there are no paths, no such numbers, or `q` is not from 0 to 1.
        """
        values = getattr(self, f"path_{of}", None) if isinstance(of, str) else None
        if values is None:
            words = "something that paths with noise have"
            raise ValueError(f"`of` must be {words}, but is {of!r} of {self.name}.")
        if not np.all((np.asarray(q) >= 0) & (np.asarray(q) <= 1)):
            raise ValueError(f"`q` must be from 0 to 1, but is {q!r}.")
        return np.quantile(values, q, axis=1)

    def __str__(self) -> str:
        """What happened, in a few lines."""
        s = self.stats
        missed = ""
        if s.forced:
            missed = f", {s.forced} forced at kinks, where errors may exceed the tolerance"
        steps = f", {several(s.steps, 'step')} ({s.rejected} rejected{missed})" if s.steps else ""
        sides = several(s.evaluations, "right-hand side")
        lines = [
            f"{self.name}: {self.stop}{self._change('loss')}{self._change('accuracy')}",
            f"{several(len(self.ts), 'save time')}{steps}, {sides}, "
            f"{s.seconds:.2f} s, {self.solver}",
        ]
        lines += [] if self.method is None else [f"method {self.method}"]
        lines += [] if self.ladder is None else [str(self.ladder)]
        return "\n".join([*lines, *self.recorded()])

    def _change(self, name: str) -> str:
        """Its value at the first save time and at the last, should there be one."""
        values = getattr(self, name)
        if values is None or not len(values):
            return ""
        since = f" at t = {self.ts[0]:g}" if len(values) > 1 and self.ts[0] > 0 else ""
        last = f" to {values[-1]:.4g}" if len(values) > 1 else ""
        return f", {name} {values[0]:.4g}{since}{last}"

    def recorded(self) -> list[str]:
        """A line on each of a user's own quantities: at the first time and at the last."""
        lines = []
        for name, label in self.labels.items():
            values = self.records.get(name, np.empty(0))
            if self.record_ts is None or not len(values):
                continue
            unit = "" if label.unit == "1" else f" {label.unit}"
            shown = [
                f"{_range(np.asarray(values[at]))}{unit} at t = {self.record_ts[at]:g}"
                for at in (0, -1)
            ]
            lines.append(f"{name}: {', '.join(dict.fromkeys(shown))}")
        return lines

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one netCDF-4 file, whole or not at all.

        Raises:
            ValueError: When the file cannot be written.
        """
        from nthsim.results.netcdf import write  # here, as xarray is slow to import

        write(path, "Trajectory", *self._parts())

    def to_xarray(self) -> "xr.Dataset":
        """Everything but the model as the labelled dataset that a file holds."""
        from nthsim.results.labelled import labelled

        return labelled("Trajectory", *self._parts())["/"]

    def to_dataframe(self) -> "pd.DataFrame":
        """All numbers but kernels: a row for each time, and for each time, point, output and power.

        As in `nthsim.Scaling.to_dataframe`; what was recorded at other times has rows of its own.
        """
        from nthsim.results.frame import frame

        return frame(self.to_xarray())

    @staticmethod
    def load(path: str | os.PathLike[str], *, model: PyTree = None) -> "Trajectory":
        """Read what `save` wrote.

        Args:
            path: The file.
            model: For a network other than FCN or ResNet, any module of its structure, to receive
                the trained parameters; without it, the trajectory's `model` is None. What it
                computes of them is not compared, as a run's file holds no inputs.

        Raises:
            ValueError: When the file cannot be read, is damaged, or does not fit `model`.
        """
        from nthsim.results.netcdf import decoding, read

        root, groups = read(path, "Trajectory")
        with decoding(path):
            trajectory = from_record(root)
        trained = groups.get("trained_parameters")
        restored = None if trained is None else restore(trained, model)
        return dataclasses.replace(trajectory, model=restored)

    def record(self) -> Record:
        """All but the model, as named arrays and facts."""
        facts = {
            "name": self.name,
            "solver": self.solver,
            "stop": dataclasses.asdict(self.stop),
            "stats": dataclasses.asdict(self.stats),
            "method": self.method,
            "ladder": None if self.ladder is None else dataclasses.asdict(self.ladder),
            "records": list(self.records),
            "labels": {name: label.facts() for name, label in self.labels.items()},
            "origin": self.origin,
        }
        return Record(arrays_of(self) | self.records, facts, self.labels)

    def _parts(self) -> tuple[Record, dict[str, Record]]:
        """What a file of this run alone holds."""
        groups = {} if self.model is None else {"trained_parameters": store(self.model)}
        return self.record(), groups


def trajectory(
    name: str,
    problem: Problem,
    solution: Solution,
    *,
    model: PyTree = None,
    method: str | None = None,
    labels: dict[str, Label] | None = None,
) -> Trajectory:
    """Separate training from test points, which share the first axis, and evaluate the losses."""
    n, out, T = len(problem.x), problem.out_shape, len(solution.ts)
    first = n if problem.x_test is None else n + len(problem.x_test)
    records = dict(solution.records)
    f = records.pop("f", np.empty((0, first))).reshape(T, first, *out)
    noisy, seen = "path_f" in records, records.pop("path_f", f[:, None])
    seen = seen.reshape(T, seen.shape[1], first, *out)
    terms, record_ts = records.pop("contributions", None), records.pop("record_ts", None)
    if terms is not None:
        terms = terms.reshape(T, terms.shape[1], first, *out)
    tested = problem.x_test is not None
    y_test, losses = problem.y_test, _losses(problem, seen[:, :, :n], problem.residual.y)
    test_losses = None if y_test is None else _losses(problem, seen[:, :, n:], y_test)
    loss = losses.mean(axis=1)
    return Trajectory(
        name=name,
        ts=solution.ts,
        f=f[:, :n],
        f_test=f[:, n:] if tested else None,
        loss=loss,
        test_loss=None if test_losses is None else test_losses.mean(axis=1),
        path_f=seen[:, :, :n] if noisy else None,
        path_f_test=seen[:, :, n:] if noisy and tested else None,
        path_loss=losses if noisy else None,
        path_test_loss=test_losses if noisy else None,
        accuracy=accuracy(seen[:, :, :n], problem.residual.y, problem.residual),
        test_accuracy=accuracy(seen[:, :, n:], problem.y_test, problem.residual),
        records=records,
        record_ts=record_ts,
        labels={} if labels is None else labels,
        contributions=None if terms is None else terms[:, :, :n],
        contributions_test=terms[:, :, n:] if terms is not None and tested else None,
        stop=_finite(solution.stop, solution.ts, loss),
        stats=solution.stats,
        solver=solution.choice,
        model=model,
        method=method,
    )


def from_record(record: Record) -> Trajectory:
    """The trajectory that `Trajectory.record` described, without its model."""
    facts, arrays = record.facts, dict(record.arrays)
    records = {name: arrays.pop(name) for name in facts["records"]}
    labels = {name: Label.from_facts(label) for name, label in facts["labels"].items()}
    ladder = facts["ladder"]
    return Trajectory(
        **{**dict.fromkeys(("f_test", "test_loss")), **arrays},
        records=records,
        labels=labels,
        name=facts["name"],
        solver=facts["solver"],
        stop=Stop(**facts["stop"]),
        stats=Stats(**facts["stats"]),
        method=facts["method"],
        ladder=None if ladder is None else Ladder.from_facts(ladder),
        origin=facts["origin"],
    )


def _finite(stop: Stop, ts: Float[np.ndarray, " T"], loss: Float[np.ndarray, " T"]) -> Stop:
    """A run whose loss is no number has not gone well, even if its gradient is one."""
    bad = np.flatnonzero(~np.isfinite(loss))
    if stop.failed or not len(bad):
        return stop
    t = float(ts[bad[0]])
    return Stop("non-finite", t, f"the loss is not finite at t = {t:.6g}")


def _range(values: np.ndarray) -> str:
    """One number, or the smallest and the largest of several."""
    ends = dict.fromkeys(f"{end:.4g}" for end in (values.min(), values.max()))
    return " to ".join(ends)


def _losses(
    problem: Problem, f: Float[np.ndarray, "T paths n ..."], y: Array
) -> Float[np.ndarray, "T paths"]:
    """The mean loss of each path at each time."""
    rows = jnp.asarray(f.reshape(-1, *f.shape[2:]), problem.dtype)
    return np.asarray(problem.residual.means(rows, y)).reshape(f.shape[:2])
