"""A study over sizes in words and numbers, for people."""

from collections.abc import Sequence

import numpy as np

from nthsim.exponents import Estimate
from nthsim.quantities import Quantity
from nthsim.scaling import Scaling
from nthsim.tables import fixed, scientific, table, wrapped

CAPTION = (
    "medians over seeds, quartiles as multiples of them; of E K means, and their standard errors\n"
    "kernels at t = 0 on training points; drift and errors against exact flow, largest over time"
    "\n"
)
FITTED = "exponent of {axis}: fitted, with 95% of samples of the seeds; predicted"
FACTOR = "growth: from first to last {axis}, with 95% of samples of the seeds"


def report(study: Scaling) -> str:
    """Heading, a table for each family, and remarks."""
    words = CAPTION + (FITTED if study.axis == "width" else FACTOR).format(axis=study.axis)
    blocks = ["\n".join(study.heading()), words]
    blocks += [_table(study, family) for family in study.families]
    blocks.append("\n".join([*_blow_ups(study), *_cost(study), *map(wrapped, study.remarks)]))
    return "\n\n".join(blocks)


def _table(study: Scaling, family: str) -> str:
    """Two rows for each quantity: middles with what they follow, and spreads."""
    heads = ["exponent", "95%", "predicted"] if study.axis == "width" else ["growth", "95%"]
    title = family if len(study.families) > 1 else study.axis
    rows = [[title, *(str(size) for size in study.sizes), *heads]]
    for name, each in study.quantities(family).items():
        middles = [scientific(float(value)) for value in each.middles()]
        if study.axis == "width":
            law = [*_fitted(each.exponent(), fixed, 2), str(each.predicted)]
        else:
            law = _fitted(each.growth(), scientific, 1)
        rows.append([name, *middles, *law])
        if len(study.seeds) > 1:
            rows.append(["", *_spreads(each), *("" for _ in heads)])
    return table(rows)


def _fitted(found: Estimate, shown, digits: int) -> list[str]:
    low, high = (shown(end, digits) for end in (found.low, found.high))
    return [shown(found.value, digits), f"{low} to {high}" if low != "-" else "-"]


def _spreads(each: Quantity) -> Sequence[str]:
    """Standard errors of means, and quartiles over medians."""
    middles, (low, high) = each.middles(), each.spreads()
    if each.signed:
        return [f"±{scientific(float(error))}" for error in (high - low) / 2]
    with np.errstate(invalid="ignore", divide="ignore"):
        pairs = zip(low / middles, high / middles, strict=True)
    return [f"{a:.2f}-{b:.2f}" if np.isfinite(a + b) else "-" for a, b in pairs]


def _blow_ups(study: Scaling) -> list[str]:
    """A line for each order that blew up, by size."""
    if study.blown_up is None:
        return []
    lines = []
    for family, counts in zip(study.families, study.blown_up.sum(axis=2), strict=True):
        of = f"{family}, " if len(study.families) > 1 else ""
        for i, p in enumerate(study.orders):
            some = [
                f"{count} at {study.axis} {size}"
                for size, count in zip(study.sizes, counts[:, i], strict=True)
                if count
            ]
            if some:
                line = f"{of}order {p} blew up for {', '.join(some)} of {len(study.seeds)} seeds"
                lines.append(wrapped(f"{line}; they count as infinitely large"))
    return lines


def _cost(study: Scaling) -> list[str]:
    """The time that all seeds of a size took."""
    lines = []
    for family, seconds in zip(study.families, study.seconds, strict=True):
        of = f"{family}, " if len(study.families) > 1 else ""
        spent = ", ".join(f"{s:.1f} s at {m}" for s, m in zip(seconds, study.sizes, strict=True))
        lines.append(wrapped(f"{of}all seeds of a {study.axis}, compilation included: {spent}"))
    return lines
