"""How to integrate: what a user hands over, and what becomes of it for one system."""

import abc
import dataclasses
import math
from typing import Optional

import diffrax as dfx
import equinox as eqx
from jaxtyping import DTypeLike

from nthsim.solvers.system import AbstractSystem
from nthsim.solvers.tolerances import (
    Tolerances,
    checked_atol,
    checked_rtol,
    checked_steps,
    resolved_tolerances,
)


class Method(eqx.Module):
    """A solver of Diffrax with its tolerances, described in words.

    A step takes `stages` right-hand sides; with `whole`, one step is exact over any time. Where the
    method fails, or has taken as much work as it was to save, `fallback` goes on from there.
    """

    solver: dfx.AbstractSolver
    tolerances: Tolerances
    stages: int
    choice: str
    whole: bool = False
    fallback: Optional["Fallback"] = None


class Fallback(eqx.Module):
    """What goes on where a method fails: a `method`, expected to take steps of length `step`.

    So many of them, the `price`, take as long as one step of the method that failed.
    """

    method: Method
    step: float
    price: float

    def most(self, horizon: float) -> int:
        """After how many steps, refused ones among them, the other has taken as much work."""
        return max(1, math.ceil(horizon / self.step / self.price))


class AbstractSolver(eqx.Module):
    """Tolerances and a step limit, and the method that they are for.

    `rtol` and `atol` bound the local error of each level against its own size: for exact flow the
    Euclidean norm of the distance travelled by the parameters, for a dense hierarchy the root mean
    square of each tensor, for a series the Euclidean norm of each term. Left out, `rtol` is 1e-7 in
    float64 and 1e-4 in float32, and `atol` is `1e-6 * rtol`: it only keeps a level that is zero
    from being held to its own rounding. The result says so where all that moves was below
    atol / rtol and a step's error above rtol.

    Raises:
        ValueError: When a tolerance is not positive or `max_steps` is not at least 1; when solving,
            if `rtol` is below what the precision of the numbers can meet.
    """

    rtol: float | None = eqx.field(default=None, converter=checked_rtol)
    atol: float | None = eqx.field(default=None, converter=checked_atol)
    max_steps: int = eqx.field(default=100_000, converter=checked_steps)

    @abc.abstractmethod
    def resolve(self, system: AbstractSystem, horizon: float, dtype: DTypeLike) -> Method:
        """The method for a system of numbers of `dtype`, from t = 0 to the horizon."""

    @abc.abstractmethod
    def stages(self, dtype: DTypeLike) -> int:
        """About how many states a step holds at once."""

    def basis(self, N: int) -> int:
        """About how many numbers are held besides states, for N outputs on the training points."""
        del N
        return 0

    def tightened(self, dtype: DTypeLike) -> "AbstractSolver":
        """The same with tolerances a tenth of these, and steps enough for that.

        Raises:
            ValueError: When the precision of the numbers cannot meet them.
        """
        mine, steps = self.tolerances(dtype), 10 * self.max_steps
        tighter = {"rtol": mine.rtol / 10, "atol": mine.atol / 10, "max_steps": steps}
        found = dataclasses.replace(self, **tighter)
        found.tolerances(dtype)
        return found

    def tolerances(self, dtype: DTypeLike) -> Tolerances:
        """The tolerances for numbers of `dtype`."""
        return resolved_tolerances(self.rtol, self.atol, dtype)


def checked_solver(solver: object) -> AbstractSolver:
    """Return a solver of ours.

    Raises:
        ValueError: `solver` is none; one of Diffrax's belongs into `Explicit(method=...)`.
    """
    if not isinstance(solver, AbstractSolver):
        shown = repr(solver) if isinstance(solver, str) else type(solver).__name__
        raise ValueError(
            "`solver` must be an Auto, Explicit, Implicit, Exponential or Stabilised of "
            f"nthsim.solvers, such as Explicit(rtol=1e-7), but is {shown}."
        )
    return solver
