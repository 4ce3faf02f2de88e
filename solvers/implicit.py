"""Implicit Runge–Kutta integration, for stiff flows."""

import diffrax as dfx
import jax
import jax.numpy as jnp
import lineax as lx
import optimistix as optx
from jaxtyping import DTypeLike

from nthsim.solvers.demands import check_forward, check_single
from nthsim.solvers.solver import AbstractSolver, Method
from nthsim.solvers.system import AbstractSystem

#: States of so many numbers have a Jacobian that is quickly formed and inverted.
SMALL = 500

#: The equations of a stage are solved this much more tightly than a step may err.
TIGHTER = 1e-2

#: Products of the Jacobian that GMRES keeps.
RESTART = 40


class Implicit(AbstractSolver):
    """Kvaerno's fifth-order pair, L-stable: steps of any length, each with equations to solve.

    For small states by Newton's method with the Jacobian formed, else with each linear system
    solved by GMRES, which needs many products with the Jacobian.

    `rtol`, `atol` and `max_steps` are as in every solver here.
    """

    def stages(self, dtype: DTypeLike) -> int:
        """Those of the pair, and the Krylov basis."""
        del dtype
        return 7 + RESTART

    def resolve(self, system: AbstractSystem, horizon: float, dtype: DTypeLike) -> Method:
        """Newton's method by the size of the state.

        Raises:
            ValueError: When the field has no derivatives in forward mode, or the precision is half.
        """
        del horizon
        check_single(dtype, "Implicit")
        check_forward(system, "Implicit")
        state = jax.eval_shape(system.initial)
        numbers = sum(leaf.size for leaf in jax.tree.leaves(state))
        tolerances = self.tolerances(dtype)
        number = jnp.asarray(TIGHTER * tolerances.rtol, dtype)  # an array: data, not compiled in
        within = {"rtol": number, "atol": number}
        if numbers <= SMALL:
            words, root_finder = "Newton", optx.Newton(**within, norm=optx.rms_norm)
        else:
            linear_solver = lx.GMRES(**within, restart=RESTART, stagnation_iters=RESTART)
            words = "Newton-GMRES"
            root_finder = optx.Newton(**within, norm=optx.rms_norm, linear_solver=linear_solver)
        solver = dfx.Kvaerno5(root_finder=root_finder)
        return Method(solver, tolerances, 7, f"Kvaerno5 with {words}, {tolerances}")
