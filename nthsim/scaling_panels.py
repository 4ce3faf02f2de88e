"""What the figure of a study over sizes shows: kernels, errors and drift, with their power laws."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from nthsim.exponents import prefactor
from nthsim.figures import Curve, Guide, Panel
from nthsim.quantities import Quantity
from nthsim.scaling import Scaling

PREDICTED = "predicted power"

#: The points of two families at one width are this factor squared apart.
ASIDE = 1.02


def panels(study: Scaling) -> tuple[Panel, ...]:
    """Sizes of kernels; errors of f and of the tangent kernel where there are orders; drift.

    Colours and markers tell kernels and orders apart, and families where there is but one quantity;
    where there are both, the families after the first are dashed and hollow.
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
    return tuple(shown)


def _panel(study: Scaling, title: str, quantity: str, chosen: Mapping[str, str]) -> Panel:
    """The chosen quantities of all families, by the names that the legend gives them."""
    curves, guides = [], []
    powers = study.axis == "width"
    for i, family in enumerate(study.families):
        found = study.quantities(family)
        for j, (label, name) in enumerate(chosen.items()):
            several = len(study.families) > 1
            alone = len(chosen) == 1
            look = 1 + (i if alone else j)
            later = bool(i) and not alone
            named = (family if alone else f"{family}, {label}") if several else label
            curve, lines = _drawn(found[name], named, look, later=later, powers=powers)
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
    )


def _drawn(
    each: Quantity, label: str, look: int, *, later: bool, powers: bool
) -> tuple[Curve, list[Guide]]:
    """Medians with quartiles; over widths the fit through them, and the predicted power."""
    x, middles = each.sizes.astype(float), each.middles()
    line = "--" if later else "-"
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
        hollow=later,
        note=f"{slope:.2f}" if guides else "",
    )
    return curve, guides
