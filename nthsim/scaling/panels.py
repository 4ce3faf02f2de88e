"""What the figure of a study over sizes shows: kernels, errors and drift, with their power laws."""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from nthsim.dynamics.errors import RELATIVE
from nthsim.results.figure import Guide, Line, Panel
from nthsim.scaling.exponents import UNKNOWN, prefactor
from nthsim.scaling.quantity import Quantity

PREDICTED = "predicted power"
EXCLUDED = "predicted power that the 95% interval excludes"

#: Of each panel the title, and in which norm its quantities are measured.
TITLES = {
    "kernel": ("kernels at $t = 0$", "root mean square"),
    "f": ("error of $f$ on training points", "root mean square"),
    "f test": ("error of $f$ on test points", "root mean square"),
    "K^(2)": ("error of $K^{(2)}$", RELATIVE),
    "drift": ("drift of $K^{(2)}$", RELATIVE),
}

#: Of the families, in turn. What is predicted is grey: dots, or dots and dashes where excluded.
LINES = ("-", "--", "-.")

#: The points of two families at one width are this factor squared apart.
ASIDE = 1.02


def panels(found: Mapping[str, Mapping[str, Quantity]], axis: str) -> tuple[Panel, ...]:
    """Sizes of kernels; errors of f and of the tangent kernel where there are orders; drift.

    Colours tell kernels and orders apart, and markers do where there is but one family. Of several,
    each has a marker and a line of its own, and what a colour is each panel says by itself.

    Args:
        found: The quantities of each family by their names, as `Scaling.quantities` has them.
        axis: What sizes are of, "width" or "depth".
    """
    one = next(iter(found.values()))
    there = dict.fromkeys(each.panel for each in one.values() if each.panel)
    shown = [_panel(found, axis, name) for name in TITLES if name in there]
    if len(found) > 1:
        curves = (*_families(found), *shown[0].curves)
        shown[0] = dataclasses.replace(shown[0], curves=curves)
    return tuple(shown)


def _families(families: Iterable[str]) -> list[Line]:
    """An empty black curve for each family, for the legend."""
    none = np.empty(0)
    return [
        Line(family, none, none, look=0, mark=1 + i, line=_line(i))
        for i, family in enumerate(families)
    ]


def _line(family: int) -> str:
    return LINES[family % len(LINES)]


def _panel(found: Mapping[str, Mapping[str, Quantity]], axis: str, name: str) -> Panel:
    """The quantities of all families that are drawn in one panel."""
    curves, guides = [], []
    powers, several = axis == "width", len(found) > 1
    chosen = [[each for each in family.values() if each.panel == name] for family in found.values()]
    looks = {each.label: j for j, each in enumerate(chosen[0], start=1)}
    if several and len(looks) == 1:
        looks = dict.fromkeys(looks, 0)  # the title says what it is, and the legend is in black
    for i, family in enumerate(chosen):
        for each in family:
            named = "" if several else each.label
            curve, lines = _drawn(each, named, looks[each.label], line=_line(i), powers=powers)
            if several:
                curve = dataclasses.replace(curve, mark=1 + i)
            if powers:  # beside those of the other families
                curve = dataclasses.replace(curve, x=curve.x * ASIDE ** (2 * i - len(found) + 1))
            curves.append(curve)
            guides += lines
    title, norm = TITLES[name]
    return Panel(
        title,
        norm,
        tuple(curves),
        x=axis,
        sizes=tuple(int(size) for size in chosen[0][0].sizes),
        powers=powers,
        guides=tuple(guides),
        colours=looks if several and len(looks) > 1 else {},
    )


def _drawn(
    each: Quantity, label: str, look: int, *, line: str, powers: bool
) -> tuple[Line, list[Guide]]:
    """Medians with quartiles; over widths the fit through them, and what power is predicted."""
    x, middles = each.sizes.astype(float), each.middles()
    fit = each.exponent() if powers else UNKNOWN
    guides, note = [], ""
    if np.isfinite(fit.value):
        note, power = f"{fit.value:.2f}", each.predicted
        if power is not None:
            out = fit.excludes(power)
            note += f", excludes {power:g}" if out else ""
            values = prefactor(each.sizes, middles, power) * x**power
            guides += [Guide(EXCLUDED if out else PREDICTED, x, values, line="-." if out else ":")]
        values = prefactor(each.sizes, middles, fit.value) * x**fit.value
        guides += [Guide("", x, values, look, line)]
    shown = "none" if guides else line
    curve = Line(label, x, middles, look, shown, bars=each.spreads(), note=note)
    return curve, guides
