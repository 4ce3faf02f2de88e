"""How kernels, drift and errors change with the width or depth of networks: what came out."""

import dataclasses
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int, Int8

from nthsim.inputs.arrays import choice
from nthsim.inputs.dataset import Dataset
from nthsim.inputs.loss import Loss, loss_name, squared_error
from nthsim.results.record import Record, origin
from nthsim.results.terminal import several, wrapped
from nthsim.scaling.exponents import Estimate
from nthsim.scaling.predictions import (
    drift_exponent,
    error_exponent,
    kernel_exponent,
    mean_exponent,
    unpredicted,
)
from nthsim.scaling.quantity import Integers, Quantity
from nthsim.solvers.solver import AbstractSolver

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.figure import Figure

ErrorArrays = Float[np.ndarray, "families sizes seeds orders T"]


class Scaling(eqx.Module):
    r"""Kernels, drift and errors for families of networks at several sizes, with many seeds.

    All arrays begin with the axes (family, size, seed). `sizes` are widths or depths, as `axis`
    says; N = n·k, and T is the number of save times `ts`.

    `kernel_rms`, `kernel_max` and `kernel_mean` (..., R-1) are the root mean square and the largest
    absolute entry of $K^{(2)}, \dots, K^{(R)}$ on the training points at t = 0, and the mean entry
    for even r, but that of $K^{(r)}_{a \dots c} f_c$ for odd r, whose own mean vanishes.
    `initial_f` (..., N) and `initial_kernels` (..., N, N) are f and $K^{(2)}$ there.

    `drift` (..., T) is $\|K^{(2)}_t - K^{(2)}_0\| / \|K^{(2)}_0\|$ along exact flow. `error_f`,
    `error_f_test` (None without test points) and `error_kernel` (..., orders, T) are the errors of
    each truncation against exact flow: root mean squares for f, $\|\tilde K^{(2)}_t - K^{(2)}_t\|
    / \|K^{(2)}_0\|$ for $K^{(2)}$; NaN once its steps have ended, of which `blown_up` (..., orders)
    tells. They are None without orders.

    `seconds` (family, size) is what all seeds took together, compilation included. `subject` tells
    studies apart, `networks` describes a network of each family, `predicted` is the parametrisation
    of those families for which theory predicts exponents, as `width_scaling` has it, else None,
    `steps` says how flows were integrated, and `remarks` which of them ended early.

    In one that was loaded, a `loss` that the file cannot restore is its name.
    """

    axis: str
    families: tuple[str, ...]
    sizes: Int[np.ndarray, " sizes"]
    seeds: Int[np.ndarray, " seeds"]
    orders: tuple[int, ...]
    ts: Float[np.ndarray, " T"]
    data: Dataset
    loss: Loss | str
    solver: AbstractSolver
    initial_f: Float[np.ndarray, "families sizes seeds N"]
    initial_kernels: Float[np.ndarray, "families sizes seeds N N"]
    kernel_rms: Float[np.ndarray, "families sizes seeds ranks"]
    kernel_max: Float[np.ndarray, "families sizes seeds ranks"]
    kernel_mean: Float[np.ndarray, "families sizes seeds ranks"]
    drift: Float[np.ndarray, "families sizes seeds T"]
    seconds: Float[np.ndarray, "families sizes"]
    networks: tuple[str, ...]
    steps: str
    subject: Mapping[str, Any]
    predicted: tuple[str | None, ...]
    error_f: ErrorArrays | None = None
    error_f_test: ErrorArrays | None = None
    error_kernel: ErrorArrays | None = None
    blown_up: Int8[np.ndarray, "families sizes seeds orders"] | None = None
    remarks: tuple[str, ...] = ()
    origin: Mapping[str, Any] = eqx.field(default_factory=origin)

    def quantities(self, family: str | None = None) -> dict[str, Quantity]:
        """All that is measured of a family, the first one by default, by the names in the table.

        Drift and errors are the largest over time.

        Raises:
            ValueError: When there is no such family.
        """
        at = 0 if family is None else self.families.index(choice("family", family, self.families))
        found, sizes = {}, self.sizes
        known = self.predicted[at]
        trained = known if self.loss is squared_error else None
        for i in range(self.kernel_rms.shape[-1]):
            r = i + 2
            exponent = kernel_exponent(r, known) if known else None
            mean_power = mean_exponent(r, known) if known else None
            rms, largest, mean = (
                array[at, ..., i] for array in (self.kernel_rms, self.kernel_max, self.kernel_mean)
            )
            label = f"$K^{{({r})}}$"
            found[f"rms K^({r})"] = Quantity(sizes, rms, exponent, panel="kernel", label=label)
            found[f"max K^({r})"] = Quantity(sizes, largest, exponent)
            name = f"E K^({r}) f" if r % 2 else f"E K^({r})"
            found[name] = Quantity(sizes, mean, mean_power, signed=True)
        if self.ts[-1] > 0:
            worst, exponent = (
                self.drift[at].max(axis=-1),
                drift_exponent(trained) if trained else None,
            )
            found["drift"] = Quantity(sizes, worst, exponent, panel="drift", label="drift")
        for name, errors in self.errors().items():
            for i, p in enumerate(self.orders):
                exponent = error_exponent(p, trained) if trained else None
                worst = errors[at, ..., i, :].max(axis=-1)
                each = Quantity(sizes, worst, exponent, panel=name, label=f"order {p}")
                found[f"{name}, p = {p}"] = each
        return found

    def errors(self) -> dict[str, ErrorArrays]:
        """The errors that there are, by the names of what errs."""
        named = {"f": self.error_f, "f test": self.error_f_test, "K^(2)": self.error_kernel}
        return {name: errors for name, errors in named.items() if errors is not None}

    def exponent(
        self, name: str, family: str | None = None, *, sizes: Integers | None = None
    ) -> Estimate:
        """The fitted power of the size by which a quantity changes, with its 95% interval.

        Least squares through the logarithms of medians over seeds, of means for E K; the interval
        comes from drawing the seeds of each size again, with replacement. NaN where it has no
        meaning: where a median is zero, or means are of both signs or may be zero.

        Args:
            name: The quantity, by its name in the table.
            family: Its family, the first by default.
            sizes: The sizes to fit to, at least two; all by default.

        Raises:
            ValueError: When there is no such quantity or family, or `sizes` are not as above.
        """
        return self._quantity(name, family).exponent(sizes)

    def slopes(self, name: str, family: str | None = None) -> Float[np.ndarray, " gaps"]:
        """The power of the size from each size to the next, NaN where it has no meaning.

        Raises:
            ValueError: When there is no such quantity or family.
        """
        return self._quantity(name, family).slopes()

    def growth(self, name: str, family: str | None = None) -> Estimate:
        """The factor by which a quantity grows from the first to the last size, likewise.

        Raises:
            ValueError: When there is no such quantity or family.
        """
        return self._quantity(name, family).growth()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one netCDF-4 file, whole or not at all; nothing is pickled.

        Raises:
            ValueError: When the file cannot be written.
        """
        from nthsim.results.netcdf import write  # here, as xarray is slow to import

        write(path, "Scaling", self._record(), {})

    def to_xarray(self) -> "xr.Dataset":
        """Everything as the labelled dataset that a file holds.

        Its axes are `family`, `size`, `seed`, `rank` (r of $K^{(r)}$), `order` and `t`, so that
        `error_f.sel(order=3, seed=0)` means what it says.
        """
        from nthsim.results.labelled import labelled

        return labelled("Scaling", self._record(), {})["/"]

    def to_dataframe(self) -> "pd.DataFrame":
        """All numbers but data and tangent kernels, each of them once.

        Columns `family`, `width` or `depth`, `seed`, `rank`, `order`, `entry` and `t` tell what a
        row is of: a kernel at t = 0 (`kernel_rms`, `kernel_max`, `kernel_mean`), exact flow at a
        time (`drift`), a truncation at a time (`error_f` and so on). What does not concern it is
        missing, so that no average counts a number twice.
        """
        from nthsim.results.frame import frame

        return frame(self.to_xarray(), {"size": self.axis})

    @staticmethod
    def load(path: str | os.PathLike[str], *, loss: Loss | None = None) -> "Scaling":
        """Read what `save` wrote, bit by bit as it was.

        Args:
            path: The file.
            loss: The loss, when it is none of nthsim's own; without it, only its name is known.

        Raises:
            ValueError: When the file cannot be read, is damaged, or `loss` is one of nthsim's own
                and that of the file is another; what two of your own compute is not compared.
        """
        from nthsim.scaling.archive import load

        return Scaling(**load(path, loss))

    def plot(self, path: str | os.PathLike[str] | None = None) -> "Figure":
        """Draw medians and quartiles over the size, with fitted power laws and predicted slopes.

        Those slopes stand where theory predicts them, and look another way where the fit's interval
        excludes them. Over depth, where power laws mean nothing, there are neither.

        Args:
            path: Where to write the figure too, if anywhere: a .png, .pdf or .svg.

        Raises:
            ValueError: When `path` has another suffix, or cannot be written.
        """
        from nthsim.results.figure import plotted  # here, as matplotlib is slow to import
        from nthsim.scaling.panels import panels

        middles = f"medians and quartiles over {self._seeds}"
        lines = [*self.heading()[:-1], f"{middles}; {self._span()}", *self._unpredicted()]
        return plotted(panels(self._by_family(), self.axis), title="\n".join(lines), path=path)

    def __str__(self) -> str:
        """What was measured, and what came out."""
        from nthsim.scaling.report import blow_ups, cost, report

        facts = {"axis": self.axis, "sizes": self.sizes}
        lines = cost(dict(zip(self.families, self.seconds, strict=True)), **facts)
        if self.blown_up is not None:
            counts = dict(zip(self.families, self.blown_up.sum(axis=2), strict=True))
            lines = [
                *blow_ups(counts, orders=self.orders, seeds=len(self.seeds), **facts),
                *lines,
            ]
        lines += [wrapped(remark) for remark in self.remarks]
        found, others = self._by_family(), self._unpredicted()
        return report(self.heading(), found, lines, self.axis, unpredicted=others)

    def __repr__(self) -> str:
        sizes = ", ".join(map(str, self.sizes))
        return f"<Scaling of {', '.join(self.families)}: {self.axis} {sizes}; {self._seeds}>"

    def heading(self) -> list[str]:
        """What was measured, on what, and how."""
        least = f"at {self.axis} {self.sizes[0]}"
        named = zip(self.families, self.networks, strict=True)
        lines = [f"{family} {least}: {about}" for family, about in named]
        lines += [f"{self.data}; {loss_name(self.loss)}"]
        sizes = f"{self.axis} {self.sizes[0]} to {self.sizes[-1]}, {self._seeds}"
        lines += [f"{sizes}; {self._span()}; {self.steps}"]
        return [wrapped(line) for line in lines]

    def _record(self) -> Record:
        from nthsim.scaling.archive import described  # here, as xarray is slow to import

        named = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return described(named)

    def _by_family(self) -> dict[str, dict[str, Quantity]]:
        return {family: self.quantities(family) for family in self.families}

    def _span(self) -> str:
        if not self.ts[-1] > 0:
            return "t = 0"
        return f"t = {self.ts[0]:g} to {self.ts[-1]:g} at {several(len(self.ts), 'save time')}"

    @property
    def _seeds(self) -> str:
        return several(len(self.seeds), "seed")

    def _quantity(self, name: str, family: str | None) -> Quantity:
        found = self.quantities(family)
        return found[choice("name", name, tuple(found))]

    def _unpredicted(self) -> list[str]:
        if self.axis != "width" or len(self.sizes) < 2:
            return []
        known = {name: bool(by) for name, by in zip(self.families, self.predicted, strict=True)}
        return unpredicted(known, self.loss, trained=bool(self.ts[-1] > 0))
