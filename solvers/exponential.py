"""Exponential integration, for stiff flows."""

from jaxtyping import DTypeLike

from nthsim.solvers.demands import check_single, check_smooth
from nthsim.solvers.driven_system import AbstractDrivenSystem
from nthsim.solvers.krogstad import Krogstad
from nthsim.solvers.solver import AbstractSolver, Method
from nthsim.solvers.system import AbstractSystem

#: Matrices of N by N at the peak: kernel, basis, work of the eigensolver, and those before a step.
COPIES = 8


class Exponential(AbstractSolver):
    """A fourth-order exponential Runge–Kutta pair on the eigenbasis of the tangent kernel.

    The fast part of training, frozen at the tangent kernel of some moment, is solved exactly, so
    that steps are set by how fast the kernel and the loss's curvature change: labels are fitted in
    tens of steps. Each takes four right-hand sides and about as much work again, now and then the
    tangent kernel, and its N by N eigenbasis for N outputs on the training points.

    `rtol`, `atol` and `max_steps` are as in every solver here.
    """

    def stages(self, dtype: DTypeLike) -> int:
        """Four increments, and what they are combined to."""
        del dtype
        return 10

    def basis(self, N: int) -> int:
        """Tangent kernel and eigenbasis, some of them twice while they are computed or kept."""
        return COPIES * N**2

    def resolve(self, system: AbstractSystem, horizon: float, dtype: DTypeLike) -> Method:
        """The same for every system that has a tangent kernel, and a field that is smooth.

        Raises:
            ValueError: When the system has no tangent kernel, its field is not smooth, or the
                precision is half.
        """
        del horizon
        check_single(dtype, "Exponential")
        check_smooth(system, "Exponential")
        if not isinstance(system, AbstractDrivenSystem):
            raise ValueError(
                "`solver` must be explicit for a system without a tangent kernel, but is "
                "Exponential."
            )
        tolerances = self.tolerances(dtype)
        closed = "closed form: constant kernel, quadratic loss"
        words = closed if system.linear else f"Krogstad, {tolerances}"
        return Method(Krogstad(), tolerances, 4, words, whole=system.linear)
