"""Stabilised explicit integration, for stiff systems that are too large for an eigenbasis."""

from jaxtyping import DTypeLike

from nthsim.solvers.chebyshev import Chebyshev
from nthsim.solvers.demands import check_forward, check_single, check_smooth
from nthsim.solvers.solver import AbstractSolver, Method
from nthsim.solvers.system import AbstractSystem


class Stabilised(AbstractSolver):
    """Runge–Kutta–Chebyshev steps of second order, with as many stages as stability asks for.

    Right-hand sides over a given time grow like the root of the stiffness, where those of explicit
    steps grow like the stiffness itself; there is no kernel and no linear algebra, and memory is
    that of a few states. For loose tolerances, 1e-3 to 1e-5, as the method is of low order, and for
    what has real eigenvalues, as flows and truncations without momentum have.

    `rtol`, `atol` and `max_steps` are as in every solver here.
    """

    def stages(self, dtype: DTypeLike) -> int:
        """The start, three neighbouring stages, two velocities, and what a product takes."""
        del dtype
        return 8

    def resolve(self, system: AbstractSystem, horizon: float, dtype: DTypeLike) -> Method:
        """The same for every system.

        Raises:
            ValueError: When the field has no derivatives in forward mode or is not smooth, or the
                precision is half.
        """
        del horizon
        check_single(dtype, "Stabilised")
        check_smooth(system, "Stabilised")
        check_forward(system, "Stabilised")
        tolerances = self.tolerances(dtype)
        return Method(Chebyshev(), tolerances, 2, f"Runge-Kutta-Chebyshev, {tolerances}")
