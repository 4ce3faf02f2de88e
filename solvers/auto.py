"""The default: choose the integrator, and say which and why."""

import diffrax as dfx
import equinox as eqx
from jaxtyping import DTypeLike

from nthsim.solvers.explicit import Tolerances, check_settings, describe, resolved_tolerances

#: Below this tolerance the eighth-order pair needs fewer right-hand sides than the fifth-order one.
CROSSOVER = 1e-5


class Auto(eqx.Module):
    """Takes Tsit5 for loose and Dopri8 for tight tolerances; the result says which and why.

    Tolerances and `max_steps` mean what they mean in `Explicit`.

    Raises:
        ValueError: As `Explicit`.
    """

    rtol: float | None = None
    atol: float | None = None
    max_steps: int = 100_000

    def __check_init__(self) -> None:
        """Refuse tolerances that nothing can meet."""
        check_settings(self.rtol, self.atol, self.max_steps)

    def resolve(self, dtype: DTypeLike) -> tuple[dfx.AbstractERK, Tolerances, str]:
        """The method, the tolerances for numbers of `dtype`, and the choice in words."""
        tolerances = resolved_tolerances(self.rtol, self.atol, dtype)
        tight = tolerances.rtol < CROSSOVER
        method = dfx.Dopri8() if tight else dfx.Tsit5()
        side = "below" if tight else "not below"
        return method, tolerances, f"{describe(method, tolerances)} (rtol {side} {CROSSOVER:.0e})"
