"""Exact training beside its truncated hierarchies: what came out."""

import dataclasses
import os
from typing import TYPE_CHECKING, Any

import equinox as eqx
import numpy as np
from jaxtyping import Float, PyTree

from nthsim.comparison.asked import THEORIES
from nthsim.comparison.bounds import Bounds
from nthsim.comparison.certificate import Certificate
from nthsim.comparison.report import bound_notes, error_table, notes, work_table
from nthsim.dynamics.errors import Errors, Series, drift, errors, floor
from nthsim.dynamics.parameters import Parameters, parameters
from nthsim.dynamics.recipes import describe
from nthsim.dynamics.trajectory import Trajectory
from nthsim.inputs.dataset import Dataset
from nthsim.inputs.loss import Loss, loss_name
from nthsim.results.record import origin
from nthsim.results.terminal import wrapped
from nthsim.solvers.solver import AbstractSolver
from nthsim.solvers.until import Until

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Comparison(eqx.Module):
    r"""Exact gradient flow of one network, order-p truncations of its hierarchy, and other models.

    `exact`, `truncations` (one per order) and `further` (Taylor models and theories, by the names
    that `runs` has for them) are trajectories with their kernels. `certificate` holds the fitted
    small-time slopes, or None (float32, or not wanted), and `bounds` the a-priori bounds, None if
    they were not wanted. `model`, `data`, `loss`, `solver`, `method`, `wanted` (the orders asked
    for, of which `orders` are finished), `wanted_degrees`, `wanted_theories` and `wanted_bounds`
    likewise, `kernel_ts`, `until`, `certify` and `audit` are what was to be compared, so that
    `nthsim.rerun` can do it again; `origin` says when, where and with which versions.

    `initial_kernel` is $K^{(2)}$ on the training points at t = 0, of shape (n, n) or (n, k, n, k),
    and `kernel_seconds` the time that each of $K^{(2)}, K^{(3)}, \dots$ took: None and empty where
    it was interrupted before they were done, and the first where no kernels were wanted.

    In one that was loaded, what the file alone cannot restore is None (`model`, which `about`
    describes in its place) or a name (`loss`, `solver`).
    """

    model: PyTree
    data: Dataset
    loss: Loss | str
    solver: AbstractSolver | str
    orders: tuple[int, ...]
    ts: np.ndarray
    exact: Trajectory
    truncations: tuple[Trajectory, ...]
    certificate: Certificate | None
    wanted: tuple[int, ...]
    certify: bool | None
    until: Until
    audit: bool
    kernel_ts: tuple[float, ...]
    further: dict[str, Trajectory] = eqx.field(default_factory=dict)
    wanted_degrees: tuple[int, ...] = ()
    wanted_theories: tuple[str, ...] = ()
    wanted_bounds: bool = False
    bounds: Bounds | None = None
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

    def taylor_model(self, degree: int) -> Trajectory:
        """The trajectory of the Taylor model of one degree.

        Raises:
            ValueError: When this degree was not compared.
        """
        found = self.further.get(f"Taylor {degree}")
        if found is None:
            done = tuple(q for q in self.wanted_degrees if f"Taylor {q}" in self.further)
            raise ValueError(f"`degree` must be one of {done}, but is {degree!r}.")
        return found

    def errors(self, order: int) -> Errors:
        """The errors of one order against exact flow, over time."""
        return errors(self.truncation(order), self.exact)

    def runs(self) -> dict[str, Trajectory]:
        """All that was compared with exact flow, by the names that table and figure use."""
        orders = zip(self.orders, self.truncations, strict=True)
        named = {f"order {p}": run for p, run in orders}
        found = self.further
        return named | {name: found[name] for name in self._wanted_further() if name in found}

    @property
    def parameters(self) -> Parameters | None:
        """What of `model` trains, array by array, to be printed; None where it is unknown."""
        return None if self.model is None else parameters(self.model)

    def drift(self) -> Series | None:
        r"""Relative movement of the tangent kernel, $\|K_t - K_0\| / \|K_0\|$, shape (T,).

        None for a comparison that was interrupted before its kernels were done.
        """
        return drift(self.exact, self.initial_kernel)

    def floors(self) -> dict[str, Series]:
        """The solver error of each run and of exact flow together, where they were audited."""
        found = {name: floor(run, self.exact) for name, run in self.runs().items()}
        return {name: series for name, series in found.items() if series is not None}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one netCDF-4 file, whole or not at all; nothing is pickled.

        xarray opens it too, `xarray.open_datatree(path)`: data at the root, and the groups `exact`,
        `order_2` and so on, `taylor_1` and so on, `limit_kernel`, `perturbation`, `certificate`,
        `bounds`, `parameters` (the initial ones), `trained_parameters`.

        Raises:
            ValueError: When the file cannot be written, or `model` is None.
        """
        from nthsim.comparison.archive import save  # here, as xarray is slow to import

        save({field.name: getattr(self, field.name) for field in dataclasses.fields(self)}, path)

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
        from nthsim.comparison.archive import load

        return Comparison(**load(path, model, loss))

    def plot(self, path: str | os.PathLike[str] | None = None) -> "Figure":
        """Draw losses, errors of f, and errors and movement of the tangent kernel, over time.

        Args:
            path: Where to write the figure too, if anywhere: a .png, .pdf or .svg.

        Raises:
            ValueError: When `path` has another suffix, or cannot be written.
        """
        from nthsim.comparison.panels import panels
        from nthsim.results.figure import (  # here, as matplotlib is slow to import
            check_suffix,
            draw,
            save,
        )

        if path is not None:
            check_suffix(path)
        shown = panels(
            self.exact, self.runs(), self.drift(), self.floors(), self.bounds, self._broken()
        )
        figure = draw(shown, title="\n".join(self._heading()[:2]))
        if path is not None:
            save(figure, path)
        return figure

    def __str__(self) -> str:
        """What was compared, and what came out, in tables of at most 100 columns."""
        runs, drift = self.runs(), self.drift()
        slopes = self.certificate
        fits = {} if slopes is None else dict(zip(slopes.orders, slopes.slopes, strict=True))
        found = {name: errors(run, self.exact) for name, run in runs.items()}
        named = {f"order {p}": float(slope) for p, slope in fits.items()}
        every = {"exact flow": self.exact, **runs}
        blocks = [
            self._heading(),
            [error_table(found, named, self.floors(), self._broken())],
            [work_table(every, self._kernel_seconds())],
            [] if slopes is None else [wrapped(said) for said in slopes.verdicts()],
            [*notes(every, drift), *self._left_out()],
            [] if self.bounds is None else bound_notes(self.bounds, found.get("order 2"), drift),
        ]
        return "\n\n".join("\n".join(lines) for lines in blocks if any(lines))

    def __repr__(self) -> str:
        return f"<Comparison of {', '.join(['exact flow', *self.runs()])}: {self._heading()[0]}>"

    def _kernel_seconds(self) -> dict[str, float]:
        """The time spent on what each order starts from; a series needs no kernels."""
        pairs = zip(self.orders, self.truncations, strict=True)
        dense = [p for p, run in pairs if (run.method or "").startswith("dense")]
        found = {f"order {p}": sum(self.kernel_seconds[: p - 1]) for p in dense}
        theory = THEORIES["perturbation"]
        return found | ({theory: sum(self.kernel_seconds[:3])} if theory in self.further else {})

    def _broken(self) -> dict[str, str]:
        """What is said beside the curves of orders whose slopes are clearly too small."""
        found = self.certificate
        if found is None:
            return {}
        slopes: dict[int, float] = dict(zip(found.orders, found.slopes.tolist(), strict=True))
        return {f"order {p}": f"slope {slopes[p]:.1f}, not {p}" for p in found.broken}

    def _wanted_further(self) -> list[str]:
        """The names of all but the orders."""
        theories = [THEORIES[word] for word in self.wanted_theories]
        return [*(f"Taylor {q}" for q in self.wanted_degrees), *theories]

    def _left_out(self) -> list[str]:
        lines = [f"order {p}: not started" for p in self.wanted if p not in self.orders]
        missing = [name for name in self._wanted_further() if name not in self.further]
        lines += [f"{name}: not started" for name in missing]
        lines += ["bounds: not started"] * (self.wanted_bounds and self.bounds is None)
        dtype = self.exact.f.dtype
        if self.certify is not False and self.certificate is None and dtype != np.float64:
            lines.append(
                f"no slopes: the small-time certificate needs float64, and this is {dtype}"
            )
        return lines

    def _heading(self) -> list[str]:
        about = describe(self.model) if self.about is None else self.about
        ts = self.exact.ts if self.exact.stop.asked else self.ts
        span = f"t = {ts[0]:g} to {ts[-1]:g} at {len(ts)} save times"
        lines = (about, str(self.data), f"{loss_name(self.loss)}; {self.exact.solver}; {span}")
        return [wrapped(line) for line in lines]
