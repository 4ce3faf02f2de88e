"""What the figure of a study over sizes shows: kernels, errors and drift, with their power laws."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from nthsim.exponents import prefactor
from nthsim.figures import Curve, Guide, Panel
from nthsim.quantities import Quantity
from nthsim.scaling import Scaling

PREDICTED = "predicted power"

#: Of the families, in turn; dots are for what is predicted.
LINES = ("-", "--", "-.")

#: The points of two families at one width are this factor squared apart.
ASIDE = 1.02


def panels(study: Scaling) -> tuple[Panel, ...]:
    """Sizes of kernels; errors of f and of the tangent kernel where there are orders; drift.

    Colours tell kernels and orders apart, and markers do where there is but one family. Of several,
    each has a marker and a line of its own, and what a colour is each panel says by itself.
    """
    ranks = range(2, 2 + study.kernel_rms.shape[-1])
    kernels = {f"$K^{{({r})}}$": f"rms K^({r})" for r in ranks}
    shown = [_panel(study, "kernels at $t = 0$", "root mean square", kernels)]
    for name, title, norm in (
        ("f", "error of $f$ on training points", "root mean square"),
        ("f test", "error of $f$ on test points", "root mean square"),
        ("K^(2)", "error of $K^{(2)}$", "relative Frobenius norm"),
    ):
        if name in study.errors():
            orders = {f"order {p}": f"{name}, p = {p}" for p in study.orders}
            shown.append(_panel(study, title, norm, orders))
    if study.ts[-1] > 0:
        drift = {"drift": "drift"}
        shown.append(_panel(study, "drift of $K^{(2)}$", "relative Frobenius norm", drift))
    if len(study.families) > 1:
        curves = (*_families(study), *shown[0].curves)
        shown[0] = dataclasses.replace(shown[0], curves=curves)
    return tuple(shown)


def _families(study: Scaling) -> list[Curve]:
    """An empty black curve for each family, for the legend."""
    none = np.empty(0)
    return [
        Curve(family, none, none, look=0, mark=1 + i, line=_line(i))
        for i, family in enumerate(study.families)
    ]


def _line(family: int) -> str:
    return LINES[family % len(LINES)]


def _panel(study: Scaling, title: str, quantity: str, chosen: Mapping[str, str]) -> Panel:
    """The chosen quantities of all families, by the names that the legend gives them."""
    curves, guides = [], []
    powers, several = study.axis == "width", len(study.families) > 1
    looks = {label: j for j, label in enumerate(chosen, start=1)}
    if several and len(chosen) == 1:
        looks = dict.fromkeys(chosen, 0)  # the title says what it is, and the legend is in black
    for i, family in enumerate(study.families):
        found = study.quantities(family)
        for label, name in chosen.items():
            named = "" if several else label
            curve, lines = _drawn(found[name], named, looks[label], line=_line(i), powers=powers)
            if several:
                curve = dataclasses.replace(curve, mark=1 + i)
            if powers:  # beside those of the other families
                curve = dataclasses.replace(
                    curve, x=curve.x * ASIDE ** (2 * i - len(study.families) + 1)
                )
            curves.append(curve)
            guides += lines
    sizes = tuple(int(size) for size in study.sizes)
    return Panel(
        title,
        quantity,
        tuple(curves),
        x=study.axis,
        sizes=sizes,
        powers=powers,
        guides=tuple(guides),
        colours=looks if several and len(chosen) > 1 else {},
    )


def _drawn(
    each: Quantity, label: str, look: int, *, line: str, powers: bool
) -> tuple[Curve, list[Guide]]:
    """Medians with quartiles; over widths the fit through them, and the predicted power."""
    x, middles = each.sizes.astype(float), each.middles()
    slope = each.exponent().value if powers else np.nan
    guides = []
    if np.isfinite(slope):
        fit = prefactor(each.sizes, middles, slope) * x**slope
        power = prefactor(each.sizes, middles, float(each.predicted)) * x**each.predicted
        guides = [Guide(PREDICTED, x, power, line=":"), Guide("", x, fit, look, line)]
    curve = Curve(
        label,
        x,
        middles,
        look,
        line="none" if guides else line,
        bars=each.spreads(),
        note=f"{slope:.2f}" if guides else "",
    )
    return curve, guides
