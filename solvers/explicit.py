"""Explicit Runge–Kutta integration with adaptive steps."""

import diffrax as dfx
import numpy as np
from jaxtyping import DTypeLike

from nthsim.solvers.solver import AbstractSolver, Method
from nthsim.solvers.system import AbstractSystem


class Explicit(AbstractSolver):
    """Any explicit Runge–Kutta pair of Diffrax. Its steps are limited by the fastest time scale.

    `rtol`, `atol` and `max_steps` are as in every solver here.

    Raises:
        ValueError: When a tolerance is not positive, `max_steps` is not at least 1, or `method` is
            implicit or estimates no error; when solving, if `rtol` is below what the precision of
            the numbers can meet.
    """

    method: dfx.AbstractERK = dfx.Dopri8()

    def __check_init__(self) -> None:
        """Refuse a method that cannot choose its steps."""
        explicit = isinstance(self.method, dfx.AbstractERK)
        if not (explicit and np.any(self.method.tableau.b_error)):
            raise ValueError(
                "`method` must be an explicit Runge-Kutta method of Diffrax with an error "
                f"estimate, such as Dopri8(), but is {type(self.method).__name__}."
            )

    def stages(self, dtype: DTypeLike) -> int:
        """Those of the pair."""
        del dtype
        return self.method.tableau.num_stages

    def resolve(self, system: AbstractSystem, horizon: float, dtype: DTypeLike) -> Method:
        """The same for every system."""
        del system, horizon
        tolerances, tableau = self.tolerances(dtype), self.method.tableau
        stages = tableau.num_stages - int(tableau.fsal)
        choice = f"{type(self.method).__name__}, {tolerances}"
        return Method(self.method, tolerances, stages, choice)
