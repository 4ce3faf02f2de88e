"""The orders that were tried one after the other, until a tolerance was met."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx


class Ladder(eqx.Module):
    """The orders that were tried, and how far each was from the one before it.

    `differences` holds, for each order after the first, the largest over time of the root mean
    square difference of f (training and test points apart, the larger one counts); infinite where
    a truncation did not reach the end. `reached` says whether the last two are at most `tol`: one
    alone may be small as a kernel of odd order vanishes, by symmetry where f is zero at the start,
    and nearly so where it is small. `ended` says why no higher order was tried, if it was not `tol`
    or the cap.
    """

    orders: tuple[int, ...]
    differences: tuple[float, ...]
    tol: float
    reached: bool
    ended: str = ""

    def __str__(self) -> str:
        """What was found, in a sentence."""
        steps = ", ".join(
            f"{p}: {difference:.2g}"
            for p, difference in zip(self.orders[1:], self.differences, strict=True)
        )
        verdict = "within" if self.reached else "NOT within"
        return (
            f"order {self.orders[-1]} of orders {self.orders[0]} to {self.orders[-1]} tried, "
            f"{verdict} tol {self.tol:g} of the two below it (each from the one before it, {steps})"
            + (f"; {self.ended}" if self.ended else "")
        )

    @staticmethod
    def found(differences: Sequence[float], tol: float) -> bool:
        """Whether nothing has changed any more."""
        return len(differences) > 1 and max(differences[-2:]) <= tol

    @staticmethod
    def from_facts(facts: dict[str, Any]) -> "Ladder":
        """The ladder whose fields JSON has kept."""
        orders, differences = tuple(facts["orders"]), tuple(map(float, facts["differences"]))
        return Ladder(orders, differences, facts["tol"], facts["reached"], facts["ended"])
