"""The flow that gradient descent follows more closely than that of the loss."""

import equinox as eqx
import jax.numpy as jnp

from nthsim.budget.choice import Needs, check_flow
from nthsim.budget.size import Size
from nthsim.dynamics.curve import Curve
from nthsim.dynamics.gradient_flow import flow_needs, moved, parameter_flow
from nthsim.dynamics.optimiser import checked_rate
from nthsim.dynamics.problem import Problem
from nthsim.dynamics.run import Run
from nthsim.dynamics.start import Start
from nthsim.dynamics.trajectory import Trajectory
from nthsim.inputs.true_gradient import has_true_gradient
from nthsim.network.failures import first_line
from nthsim.solvers.parameter_flow import ModifiedFlow


class Modified(Curve):
    r"""The flow of $L + \tfrac{h}{4} |\nabla L|^2$, which descent at rate h follows up to $h^2$.

    A regulariser counts as a part of L.

    Descent and gradient flow differ by what falls like h (Barrett & Dherin 2020, arXiv 2009.11162).

    Raises:
        ValueError: When the rate h is no positive number.
    """

    rate: float = eqx.field(converter=checked_rate)

    @property
    def key(self) -> str:
        """Such as "modified 0.1"."""
        return f"modified {self.rate:g}"

    def check(self, problem: Problem) -> None:
        """Refuse a model or loss whose gradient has none, as by a `custom_vjp`."""
        problem.check_unmoved("the modified flow")
        if not has_true_gradient(problem.residual):
            raise ValueError(
                "`loss` must have the gradient of its value for the modified flow, but holds "
                "stop_gradient or a derivative of its own that is another one."
            )
        system = self._system(problem)
        try:
            eqx.filter_eval_shape(system.field, system.initial())
        except Exception as error:  # whatever JAX says of what it cannot derive twice
            raise ValueError(
                "`model` must allow second derivatives for the modified flow, but fails on them: "
                f"{first_line(error)}."
            ) from error

    def check_memory(self, size: Size) -> None:
        """No more than that of exact flow."""
        check_flow(size)

    def needs(self, size: Size) -> Needs:
        """A right-hand side takes a gradient through a gradient."""
        flow = flow_needs(size)
        return eqx.tree_at(lambda needs: needs.side, flow, 3 * flow.side)

    def trajectory(self, run: Run, start: Start, *, progress: bool) -> Trajectory:
        """Integrate it."""
        system, told = self._system(start.problem), repr(self.rate)
        return moved(start.problem, run, system, self.key, method=told, progress=progress)

    def _system(self, problem: Problem) -> ModifiedFlow:
        """Its equations."""
        rate = jnp.asarray(self.rate, problem.dtype)
        return parameter_flow(problem, ModifiedFlow, rate=rate)
