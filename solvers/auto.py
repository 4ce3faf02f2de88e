"""The default: choose the integrator, and say which and why."""

import diffrax as dfx
import equinox as eqx
from jaxtyping import DTypeLike

from nthsim.solvers.explicit import (
    Explicit,
    Tolerances,
    checked_atol,
    checked_rtol,
    checked_steps,
    describe,
    resolved_tolerances,
)

#: Measured on a tanh network and digits: for tighter tolerances the eighth-order pair needs fewer
#: right-hand sides for the same accuracy than the fifth-order one does.
CROSSOVER = 1e-6


class Auto(eqx.Module):
    """Takes Tsit5 for loose and Dopri8 for tight tolerances; the result says which and why.

    Tolerances and `max_steps` mean what they mean in `Explicit`.

    Raises:
        ValueError: As `Explicit`.
    """

    rtol: float | None = eqx.field(default=None, converter=checked_rtol)
    atol: float | None = eqx.field(default=None, converter=checked_atol)
    max_steps: int = eqx.field(default=100_000, converter=checked_steps)

    def resolve(self, dtype: DTypeLike) -> tuple[dfx.AbstractERK, Tolerances, str]:
        """The method, the tolerances for numbers of `dtype`, and the choice in words."""
        tolerances = resolved_tolerances(self.rtol, self.atol, dtype)
        tight = tolerances.rtol < CROSSOVER
        method = dfx.Dopri8() if tight else dfx.Tsit5()
        side = "below" if tight else "not below"
        return method, tolerances, f"{describe(method, tolerances)} (rtol {side} {CROSSOVER:.0e})"


def check_solver(solver: object) -> None:
    """Refuse what is no solver of ours.

    Raises:
        ValueError: `solver` is none; one of Diffrax's belongs into `Explicit(method=...)`.
    """
    if not isinstance(solver, Explicit | Auto):
        shown = repr(solver) if isinstance(solver, str) else type(solver).__name__
        raise ValueError(
            "`solver` must be an Auto or Explicit of nthsim.solvers, such as Explicit(rtol=1e-7), "
            f"but is {shown}."
        )
