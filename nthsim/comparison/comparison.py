"""Exact training beside its truncated hierarchies: what came out."""

import dataclasses
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import equinox as eqx
import numpy as np
from jaxtyping import Float, PyTree

from nthsim.comparison.asked import Asked
from nthsim.comparison.bounds import Bounds
from nthsim.comparison.certificate import Certificate
from nthsim.comparison.fingerprint import Fingerprint
from nthsim.comparison.report import bound_notes, error_table, notes, work_table
from nthsim.comparison.verdict import verdict
from nthsim.dynamics.curve import EXACT, Curve
from nthsim.dynamics.errors import Errors, Series, drift, errors, floor
from nthsim.dynamics.hierarchy import Order
from nthsim.dynamics.parameters import Parameters, parameters
from nthsim.dynamics.recipes import describe
from nthsim.dynamics.trajectory import Trajectory
from nthsim.inputs.loss import Loss, loss_name
from nthsim.network.rates import in_words
from nthsim.network.regulariser import Regulariser, regulariser_name
from nthsim.results.record import origin
from nthsim.results.terminal import several, wrapped

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.figure import Figure


class Comparison(eqx.Module):
    r"""Exact gradient flow of one network, and curves beside it.

    `asked` is what was to be compared, so that `nthsim.rerun` can do it again; `exact` and `curves`
    (by their keys, such as "order 3", as far as they are finished) are trajectories. By its
    `fingerprint` what is done again is known to be the same. `certificate` holds the fitted
    small-time slopes, or None (float32, or not wanted), and `bounds` the a-priori bounds, None if
    they were not wanted; `origin` says when, where and with which versions.

    `initial_kernel` is $K^{(2)}$ on the training points at t = 0, of shape (n, n) or (n, k, n, k),
    and `kernel_seconds` the time that each of $K^{(2)}, K^{(3)}, \dots$ took: None and empty where
    it was interrupted before they were done, and the first where no kernels were wanted. `ranks`
    says of the curves that start from kernels how far.

    Of one that was loaded without its model, `about` describes that; `recorded` are the names of
    all that was recorded, of which a file keeps the numbers.
    """

    asked: Asked
    exact: Trajectory
    fingerprint: Fingerprint
    curves: dict[str, Trajectory] = eqx.field(default_factory=dict)
    certificate: Certificate | None = None
    bounds: Bounds | None = None
    initial_kernel: Float[np.ndarray, "n ..."] | None = None
    kernel_seconds: tuple[float, ...] = ()
    ranks: dict[str, int] = eqx.field(default_factory=dict)
    about: str | None = None
    recorded: tuple[str, ...] = ()
    origin: dict[str, Any] = eqx.field(default_factory=origin)

    def curve(self, which: int | np.integer | str | Curve) -> Trajectory:
        """The trajectory of a curve: by its order, by itself, such as `Taylor(1)`, or by its key.

        That of exact flow is "exact flow".

        Raises:
            ValueError: When it was not compared.
        """
        if isinstance(which, Curve):
            key = which.key
        else:
            key = which if isinstance(which, str) else f"order {which}"
        known = {EXACT: self.exact, **self.curves}
        found = known.get(key)
        if found is None:
            listed = ", ".join(map(repr, known))
            raise ValueError(f"`which` must be one of {listed}, but is {which!r}.")
        return found

    def errors(self, which: int | np.integer | str | Curve) -> Errors:
        """The errors of a curve against exact flow, over time."""
        return errors(self.curve(which), self.exact, self.initial_kernel)

    @property
    def parameters(self) -> Parameters | None:
        """What of the model trains, array by array, to be printed; None where it is unknown."""
        model = self.asked.model
        return None if model is None else parameters(model)

    def drift(self) -> Series | None:
        r"""Relative movement of the tangent kernel, $\|K_t - K_0\| / \|K_0\|$, shape (S,).

        At the times that it was recorded at. None where it was not, or for a comparison that was
        interrupted before its kernels were done.
        """
        return drift(self.exact, self.initial_kernel)

    def floors(self) -> dict[str, Series]:
        """The solver error of each curve and of exact flow together, where they were audited."""
        found = {key: floor(curve, self.exact) for key, curve in self.curves.items()}
        return {key: series for key, series in found.items() if series is not None}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one netCDF-4 file, whole or not at all; nothing is pickled.

        xarray opens it too, `xarray.open_datatree(path)`: data at the root, and the groups `exact`,
        those of curves (`order_2`, `taylor_1`, `limit_kernel` and so on), `certificate`, `bounds`,
        `parameters` (the initial ones), `trained_parameters`.

        Raises:
            ValueError: When the file cannot be written, or `model` is None.
        """
        from nthsim.comparison.archive import save  # here, as xarray is slow to import

        save({field.name: getattr(self, field.name) for field in dataclasses.fields(self)}, path)

    def to_xarray(self) -> "xr.DataTree":
        """Everything as the labelled tree that a file holds, with the groups that `save` tells."""
        from nthsim.comparison.archive import tree

        return tree({field.name: getattr(self, field.name) for field in dataclasses.fields(self)})

    def to_dataframe(self) -> "pd.DataFrame":
        """A row for each curve, exact flow first, and each time that it reached.

        The columns: `curve`, its key; `t`; `loss`, `test_loss`, `accuracy`, `test_accuracy` and
        `solver_error`; the errors against exact flow, `error_f` (root mean square) and
        `error_f_max` over training points, `error_f_test` and `error_f_test_max` over test points,
        `error_loss` and `error_test_loss` (absolute), `error_kernel` and `error_kernel_test`
        (relative, where kernels were recorded); the `drift` of exact flow; and what else was
        recorded that is a single number. What a curve does not have is NaN, and what none has is no
        column. Outputs are in the frames of curves.
        """
        from nthsim.comparison.frame import frame  # here, as pandas is slow to import

        found = {key: self.errors(key) for key in self._in_order()}
        return frame(self.exact, self._in_order(), found, self.drift())

    @staticmethod
    def load(
        path: str | os.PathLike[str],
        *,
        model: PyTree = None,
        loss: Loss | None = None,
        regulariser: Regulariser | None = None,
    ) -> "Comparison":
        """Read what `save` wrote, bit by bit as it was.

        Args:
            path: The file.
            model: For a network other than FCN or ResNet, any module of its structure, to receive
                the parameters; without it, `model` is None in the result.
            loss: The loss, when it is none of nthsim's own; without it, only its name is known.
            regulariser: Likewise, when there is one other than `WeightDecay`.

        Raises:
            ValueError: When the file cannot be read, is damaged, or does not fit `model` or `loss`,
                which give other outputs or another loss than those of the file, or `regulariser`,
                which is not the one of its name.
        """
        from nthsim.comparison.archive import load

        return Comparison(**load(path, model, loss, regulariser))

    def plot(self, path: str | os.PathLike[str] | None = None) -> "Figure":
        """Draw losses, errors of f, and errors and movement of the tangent kernel, over time.

        Args:
            path: Where to write the figure too, if anywhere: a .png, .pdf or .svg.

        Raises:
            ValueError: When `path` has another suffix, or cannot be written.
        """
        from nthsim.comparison.panels import panels
        from nthsim.results.figure import plotted  # here, as matplotlib is slow to import

        shown = panels(
            self.exact,
            self._in_order(),
            {curve.key: curve for curve in self.asked.curves},
            start=self.initial_kernel,
            drift=self.drift(),
            floors=self.floors(),
            bounds=self.bounds,
            broken=self._broken(),
        )
        return plotted(shown, title="\n".join(self._heading()[:2]), path=path)

    def __str__(self) -> str:
        """What was compared, and what came out, in tables of at most 100 columns."""
        curves, drift, slopes = self._in_order(), self.drift(), self.certificate
        fits = {} if slopes is None else dict(zip(slopes.orders, slopes.slopes, strict=True))
        found = {key: self.errors(key) for key in curves}
        named = {Order(p).key: float(slope) for p, slope in fits.items()}
        every = {EXACT: self.exact, **curves}
        seconds = {key: sum(self.kernel_seconds[: rank - 1]) for key, rank in self.ranks.items()}
        second = found.get(Order(2).key)
        blocks = [
            self._heading(),
            [error_table(found, named, self.floors(), self._broken())],
            [work_table(every, {key: s for key, s in seconds.items() if key in curves})],
            [] if slopes is None else [wrapped(said) for said in slopes.verdicts()],
            [wrapped(said) for said in verdict(self._orders(found), self.exact, drift)],
            [*notes(every, drift), *self._left_out()],
            [] if self.bounds is None else bound_notes(self.bounds, second, drift),
        ]
        return "\n\n".join("\n".join(lines) for lines in blocks if any(lines))

    def __repr__(self) -> str:
        return f"<Comparison of {', '.join([EXACT, *self.curves])}: {self._heading()[0]}>"

    def _in_order(self) -> dict[str, Trajectory]:
        """The finished curves as they were asked for; JAX sorts what it maps."""
        keys = [curve.key for curve in self.asked.curves]
        return {key: self.curves[key] for key in keys if key in self.curves}

    def _orders(self, found: Mapping[str, Errors]) -> dict[int, Errors]:
        """Those of truncations, by their order."""
        orders = [curve for curve in self.asked.curves if isinstance(curve, Order)]
        return {each.p: found[each.key] for each in orders if each.key in found}

    def _broken(self) -> dict[str, str]:
        """What is said beside the curves of orders whose slopes are clearly too small."""
        found = self.certificate
        if found is None:
            return {}
        slopes: dict[int, float] = dict(zip(found.orders, found.slopes.tolist(), strict=True))
        return {Order(p).key: f"slope {slopes[p]:.1f}, not {found.power * p}" for p in found.broken}

    def _left_out(self) -> list[str]:
        asked = self.asked
        missing = [curve.key for curve in asked.curves if curve.key not in self.curves]
        lines = [f"{key}: not started" for key in missing]
        lines += ["bounds: not started"] if asked.bounds and self.bounds is None else []
        dtype = self.exact.f.dtype
        if asked.certify is not False and self.certificate is None and dtype != np.float64:
            lines.append(
                f"no slopes: the small-time certificate needs float64, and this is {dtype}"
            )
        return lines

    def _heading(self) -> list[str]:
        asked = self.asked
        about = describe(asked.model) if self.about is None else self.about
        about += "" if asked.rates is None else f"; {in_words(asked.rates)}"
        ts = self.exact.ts if self.exact.stop.asked else asked.run.ts
        span = f"t = {ts[0]:g} to {ts[-1]:g} at {several(len(ts), 'save time')}"
        added = "" if asked.regulariser is None else f" + {regulariser_name(asked.regulariser)}"
        down = f"{loss_name(asked.loss)}{added}"
        down += "" if asked.momentum is None else f"; {asked.momentum.word}"
        lines = (about, str(asked.data), f"{down}; {self.exact.solver}; {span}")
        return [wrapped(line) for line in lines]
