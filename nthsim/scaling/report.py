"""A study over sizes in words and numbers, for people."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int

from nthsim.results.terminal import fixed, scientific, table, wrapped
from nthsim.scaling.exponents import Estimate
from nthsim.scaling.quantity import Quantity

CAPTION = (
    "medians over seeds, quartiles as multiples of them; of E K means, and their standard errors\n"
    "kernels at t = 0 on training points; drift and errors against exact flow, largest over time, "
    "those\nof K^(2) in Frobenius norm relative to that at t = 0"
)
FITTED = "exponent of width: fitted, with 95% of samples of the seeds"
FACTOR = "growth: from first to last depth, with 95% of samples of the seeds"
SURE = "; of E K where its sign is sure"
PREDICTED = "predicted: for large widths; one in twenty intervals misses what is right"


def report(
    heading: Sequence[str],
    found: Mapping[str, Mapping[str, Quantity]],
    remarks: Sequence[str],
    axis: str,
    *,
    unpredicted: Sequence[str] = (),
) -> str:
    """Heading, tables of the quantities of each family, and remarks."""
    every = [each for family in found.values() for each in family.values()]
    known = axis == "width" and any(each.predicted is not None for each in every)
    law = f"{FITTED if axis == 'width' else FACTOR}{SURE}"
    words = [CAPTION, law, *([PREDICTED] if known else []), *unpredicted]
    titles = {family: family if len(found) > 1 else axis for family in found}
    tables = [_table(titles[family], each, axis) for family, each in found.items()]
    if axis == "width" and len(every[0].sizes) > 2:
        tables += [_slopes(titles[family], each) for family, each in found.items()]
    return "\n\n".join(["\n".join(heading), "\n".join(words), *tables, "\n".join(remarks)])


def blow_ups(
    counts: Mapping[str, Int[np.ndarray, "sizes orders"]],
    *,
    axis: str,
    sizes: Sequence[int] | Int[np.ndarray, " sizes"],
    orders: Sequence[int],
    seeds: int,
) -> list[str]:
    """A line for each order that blew up, by size; `counts` are those of each family."""
    lines = []
    for family, each in counts.items():
        of = f"{family}, " if len(counts) > 1 else ""
        for i, p in enumerate(orders):
            some = [
                f"{count} at {axis} {size}"
                for size, count in zip(sizes, each[:, i], strict=True)
                if count
            ]
            if some:
                line = f"{of}order {p} blew up for {', '.join(some)} of {seeds} seeds"
                lines.append(wrapped(f"{line}; they count as infinitely large"))
    return lines


def cost(
    seconds: Mapping[str, Float[np.ndarray, " sizes"]],
    *,
    axis: str,
    sizes: Sequence[int] | Int[np.ndarray, " sizes"],
) -> list[str]:
    """The time that all seeds of a size of each family took."""
    lines = []
    for family, each in seconds.items():
        of = f"{family}, " if len(seconds) > 1 else ""
        spent = ", ".join(f"{s:.1f} s at {m}" for s, m in zip(each, sizes, strict=True))
        lines.append(wrapped(f"{of}all seeds of a {axis}, compilation included: {spent}"))
    return lines


def _table(title: str, found: Mapping[str, Quantity], axis: str) -> str:
    """Two rows for each quantity: middles with what they follow, and spreads."""
    heads = ["exponent", "95%"] if axis == "width" else ["growth", "95%"]
    known = axis == "width" and any(each.predicted is not None for each in found.values())
    heads += ["predicted"] if known else []
    sizes = next(iter(found.values())).sizes
    rows = [[title, *(str(size) for size in sizes), *heads]]
    for name, each in found.items():
        middles = [scientific(float(value)) for value in each.middles()]
        if axis == "width":
            fit = each.exponent()
            law = [*_fitted(fit, fixed, 2), *([_prediction(each, fit)] if known else [])]
        else:
            law = _fitted(each.growth(), scientific, 1)
        rows.append([name, *middles, *law])
        if each.values.shape[1] > 1:
            rows.append(["", *_spreads(each), *("" for _ in heads)])
    return table(rows)


def _slopes(title: str, found: Mapping[str, Quantity]) -> str:
    """A row for each quantity that is drawn: its exponents between neighbouring sizes."""
    sizes = next(iter(found.values())).sizes
    gaps = [f"{low} to {high}" for low, high in pairwise(sizes)]
    name = "exponent from width to width" if title == "width" else f"{title}, width to width"
    rows = [[name, *gaps]]
    for name, each in found.items():
        if each.panel:
            rows.append([name, *(fixed(float(slope), 2) for slope in each.slopes())])
    return table(rows)


def _prediction(each: Quantity, fit: Estimate) -> str:
    if each.predicted is None:
        return "-"
    return f"excludes {each.predicted:g}" if fit.excludes(each.predicted) else f"{each.predicted:g}"


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
