"""Exact training beside its truncated hierarchies: the main job."""

import dataclasses
import os
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree
from numpy.typing import ArrayLike

from nthsim.certificates import Certificate, certified
from nthsim.checks import checked_orders, choice, times
from nthsim.datasets import Dataset
from nthsim.errors import Errors, Series, drift, errors
from nthsim.flow import exact
from nthsim.footprints import check_comparison
from nthsim.hierarchies import METHODS, timed_kernels, truncated
from nthsim.losses import Loss, squared_error
from nthsim.problem import Problem, pose
from nthsim.recipes import (
    describe,
    fingerprint,
    loss_name,
    restore,
    restore_loss,
    restore_solver,
    store,
    store_loss,
    store_solver,
)
from nthsim.records import Record, arrays_of, origin
from nthsim.solvers.auto import Auto, check_solver
from nthsim.solvers.explicit import Explicit
from nthsim.summaries import error_table, notes, work_table
from nthsim.tables import COLUMNS
from nthsim.trajectories import SolveError, Trajectory, from_record

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Comparison(eqx.Module):
    r"""Exact gradient flow of one network, and order-p truncations of its hierarchy.

    `exact` and `truncations` (one per order) are trajectories with their kernels. `certificate`
    holds the fitted small-time slopes, or None (float32, or not wanted). `model`, `data`, `loss`,
    `solver`, `method`, `wanted` (the orders asked for, of which `orders` are finished) and
    `certify` are what was to be compared, so that `rerun` can do it again; `origin` says when,
    where and with which versions.

    `initial_kernel` is $K^{(2)}$ on the training points at t = 0, of shape (n, n) or (n, k, n, k),
    and `kernel_seconds` the time that each of $K^{(2)}, K^{(3)}, \dots$ took: None and empty where
    it was interrupted before they were done.

    In one that was loaded, what the file alone cannot restore is None (`model`, which `about`
    describes in its place) or a name (`loss`, `solver`).
    """

    model: PyTree
    data: Dataset
    loss: Loss | str
    solver: Explicit | Auto | str
    orders: tuple[int, ...]
    ts: np.ndarray
    exact: Trajectory
    truncations: tuple[Trajectory, ...]
    certificate: Certificate | None
    wanted: tuple[int, ...]
    certify: bool
    initial_kernel: Float[np.ndarray, "n ..."] | None = None
    kernel_seconds: tuple[float, ...] = ()
    method: str = "auto"
    about: str | None = None
    origin: dict[str, Any] = eqx.field(default_factory=origin)

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
        r"""Relative movement of the tangent kernel, $\|K_t - K_0\| / \|K_0\|$, shape (T,).

        None for a comparison that was interrupted before its kernels were done.
        """
        return drift(self.exact, self.initial_kernel)

    def rerun(self, *, progress: bool = True) -> "Comparison":
        """Compute all of it again, from the initial parameters.

        Raises:
            ValueError: When the file that this was loaded from could not restore all that it takes.
        """
        loss, solver = self.loss, self.solver
        if self.model is None:
            raise ValueError(
                "`model` must be known to compute this again, but is None: load the file with "
                "`model=`, a module of the same structure."
            )
        if isinstance(loss, str):
            raise ValueError(
                f"`loss` must be a function to compute this again, but only its name is known: "
                f"load the file with `loss=`, the function {loss}."
            )
        if isinstance(solver, str):
            raise ValueError(
                f"`solver` must be one of nthsim's to compute this again, but is {solver}."
            )
        return compare(
            self.model,
            self.data,
            self.wanted,
            self.ts,
            loss=loss,
            solver=solver,
            method=self.method,
            certify=self.certify,
            progress=progress,
            throw=False,
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one netCDF-4 file, whole or not at all; nothing is pickled.

        xarray opens it too, `xarray.open_datatree(path)`: data at the root, and the groups `exact`,
        `order_2` and so on, `certificate`, `parameters` (the initial ones), `trained_parameters`.

        Raises:
            ValueError: When the file cannot be written, or `model` is None.
        """
        from nthsim.results import write  # here, as xarray is slow to import

        if self.model is None:
            raise ValueError(
                "`model` must be known to save this again, but is None: copy the file that it "
                "was loaded from, or load that with `model=`."
            )
        facts = {
            "orders": self.orders,
            "wanted": self.wanted,
            "certify": self.certify,
            "kernel_seconds": self.kernel_seconds,
            "loss": store_loss(self.loss),
            "solver": store_solver(self.solver),
            "method": self.method,
            "origin": self.origin,
        }
        groups = {"exact": self.exact.record(), "parameters": store(self.model)}
        if self.exact.model is not None:
            groups["trained_parameters"] = store(self.exact.model)
        for p, truncation in zip(self.orders, self.truncations, strict=True):
            groups[f"order_{p}"] = truncation.record()
        if self.certificate is not None:
            facts_of_fits = {"orders": self.certificate.orders}
            groups["certificate"] = Record(arrays_of(self.certificate), facts_of_fits)
        arrays = arrays_of(self.data) | {"ts": self.ts}
        if self.initial_kernel is not None:
            arrays["initial_kernel"] = self.initial_kernel
        write(path, "Comparison", Record(arrays, facts), groups)

    @staticmethod
    def load(
        path: str | os.PathLike[str], *, model: PyTree = None, loss: Loss | None = None
    ) -> "Comparison":
        """Read what `save` wrote, bit by bit as it was.

        Args:
            path: The file.
            model: For a network other than FCN or ResNet, any module of its structure, to receive
                the parameters; without it, `model` is None in the result.
            loss: The loss, when it is none of nthsim's own; without it, only its name is known.

        Raises:
            ValueError: When the file cannot be read, is damaged, or does not fit `model` or `loss`.
        """
        from nthsim.results import decoding, read

        root, groups = read(path, "Comparison")
        with decoding(path):
            study = _decoded(root, groups)
        trained = groups.get("trained_parameters")
        flow = (
            study.exact
            if trained is None
            else dataclasses.replace(study.exact, model=restore(trained, model))
        )
        initial = restore(groups["parameters"], model)
        return dataclasses.replace(
            study,
            model=initial,
            about=study.about if initial is None else None,
            loss=restore_loss(root.facts["loss"], loss),
            exact=flow,
        )

    def plot(self, path: str | os.PathLike[str] | None = None) -> "Figure":
        """Draw losses, errors of f, and errors and movement of the tangent kernel, over time.

        Args:
            path: Where to write the figure too, if anywhere: a .png, .pdf or .svg.

        Raises:
            ValueError: When `path` has another suffix, or cannot be written.
        """
        from nthsim.figures import check_suffix, draw, save  # here, as matplotlib is slow to import
        from nthsim.panels import panels

        if path is not None:
            check_suffix(path)
        runs = dict(zip(self.orders, self.truncations, strict=True))
        figure = draw(panels(self.exact, runs, self.drift()), title="\n".join(self._heading()[:2]))
        if path is not None:
            save(figure, path)
        return figure

    def __str__(self) -> str:
        """What was compared, and what came out, in tables of at most 100 columns."""
        names = ["exact flow", *(f"order {p}" for p in self.orders)]
        runs = dict(zip(names, (self.exact, *self.truncations), strict=True))
        slopes = self.certificate
        fits = (
            {} if slopes is None else dict(zip(slopes.orders, slopes.slopes.tolist(), strict=True))
        )
        kernels = {f"order {p}": sum(self.kernel_seconds[: p - 1]) for p in self.orders}
        blocks = [
            self._heading(),
            [error_table({p: self.errors(p) for p in self.orders}, fits)],
            [work_table(runs, kernels)],
            [*notes(runs, self.drift()), *self._left_out()],
        ]
        return "\n\n".join("\n".join(lines) for lines in blocks if any(lines))

    def _left_out(self) -> list[str]:
        lines = [f"order {p}: not started" for p in self.wanted if p not in self.orders]
        dtype = self.exact.f.dtype
        if self.certify and self.certificate is None and dtype != np.float64:
            lines.append(
                f"no slopes: the small-time certificate needs float64, and this is {dtype}"
            )
        return lines

    def _heading(self) -> list[str]:
        about = describe(self.model) if self.about is None else self.about
        span = f"t = {self.ts[0]:g} to {self.ts[-1]:g} at {len(self.ts)} save times"
        lines = (about, str(self.data), f"{loss_name(self.loss)}; {self.exact.solver}; {span}")
        return [textwrap.fill(line, COLUMNS, subsequent_indent="  ") for line in lines]


class CompareError(SolveError):
    """A comparison without its whole exact flow; what was computed is in `.comparison`."""

    def __init__(self, comparison: Comparison) -> None:
        """Say why and where it ended."""
        super().__init__(comparison.exact)
        self.comparison = comparison


def compare(
    model: PyTree,
    data: Dataset,
    orders: Sequence[int] | Int[np.ndarray, " orders"],
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
    check_solver(solver)
    ts = times(ts)
    problem = pose(model, data, loss)
    slopes = certify and problem.x.dtype == jnp.float64
    check_comparison(problem, orders, len(ts), certified=slopes)
    flow = exact(problem, ts, solver=solver, record_kernel=True, progress=progress)
    study = Comparison(
        model, data, loss, solver, (), ts, flow, (), None, orders, certify, method=method
    )
    if flow.stop.reason == "interrupt":
        raise CompareError(study)
    try:
        kernels, seconds = timed_kernels(problem, max(orders), progress=progress)
        study = dataclasses.replace(
            study, initial_kernel=_among_training(problem, kernels[1]), kernel_seconds=seconds
        )
        for p in orders:
            truncation = truncated(
                problem, kernels[:p], ts, solver=solver, record_kernel=True, progress=progress
            )
            study = _with(study, p, truncation)
            if truncation.stop.reason == "interrupt":
                raise KeyboardInterrupt
        if slopes:
            fitted = certified(problem, kernels, orders, progress=progress)
            study = dataclasses.replace(study, certificate=fitted)
    except KeyboardInterrupt as interrupt:
        raise CompareError(study) from interrupt
    if flow.stop.failed and throw:
        raise CompareError(study)
    return study


def _among_training(problem: Problem, kernel: Array) -> Float[np.ndarray, "n ..."]:
    """The tangent kernel without its test rows, its axes as those of a trajectory's."""
    n, out = len(problem.x), problem.out_shape
    return np.asarray(kernel)[: kernel.shape[1]].reshape(n, *out, n, *out)


def _with(study: Comparison, order: int, truncation: Trajectory) -> Comparison:
    return dataclasses.replace(
        study,
        orders=(*study.orders, order),
        truncations=(*study.truncations, truncation),
    )


def _decoded(root: Record, groups: dict[str, Record]) -> Comparison:
    """The comparison of a file, its models still missing."""
    facts, data = root.facts, dict(root.arrays)
    ts, initial_kernel = data.pop("ts"), data.pop("initial_kernel", None)
    checked = Dataset(**data)
    # A Dataset takes JAX's default precision; what was saved may be of another.
    kept = [jnp.asarray(array) for array in data.values()]
    checked = eqx.tree_at(lambda d: [getattr(d, name) for name in data], checked, kept)
    for name in ("parameters", "trained_parameters"):
        if name in groups and fingerprint(groups[name].arrays) != groups[name].facts["sha256"]:
            raise ValueError(f"the {name} are not those that were saved")
    orders = tuple(facts["orders"])
    slopes = groups.get("certificate")
    return Comparison(
        model=None,
        data=checked,
        loss=facts["loss"]["name"],
        solver=restore_solver(facts["solver"]),
        orders=orders,
        ts=ts,
        exact=from_record(groups["exact"]),
        truncations=tuple(from_record(groups[f"order_{p}"]) for p in orders),
        certificate=None
        if slopes is None
        else Certificate(orders=tuple(slopes.facts["orders"]), **slopes.arrays),
        wanted=tuple(facts["wanted"]),
        certify=facts["certify"],
        initial_kernel=initial_kernel,
        kernel_seconds=tuple(facts["kernel_seconds"]),
        method=facts["method"],
        about=groups["parameters"].facts["description"],
        origin=facts["origin"],
    )
