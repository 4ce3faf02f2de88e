"""The compiled calls that an integration is made of."""

from typing import Any

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from nthsim.solvers.compiled import compiled
from nthsim.solvers.step_controller import FLOOR, SLIDING_FLOOR, LevelController, restarted
from nthsim.solvers.system import AbstractSystem
from nthsim.solvers.traced_once import TracedOnce
from nthsim.solvers.until import Numbers


class Scheme(eqx.Module):
    """How to step: a solver of Diffrax, tolerances, and limits at which to stop."""

    solver: dfx.AbstractSolver
    rtol: Float[Array, ""]
    atol: Float[Array, ""]
    limits: Numbers

    def controller(
        self, system: AbstractSystem, limit: Int[Array, ""], first_end: Float[Array, ""] | None
    ) -> LevelController:
        """For at most so many steps."""
        kinks = isinstance(self.solver, dfx.AbstractERK)
        floor = SLIDING_FLOOR if system.roughness() else FLOOR
        return LevelController(
            system.sizes, self.rtol, self.atol, limit, first_end, self.limits, kinks, floor
        )


class Carry(eqx.Module):
    """Everything that one compiled call hands to the next."""

    t: Float[Array, ""]
    state: PyTree[Array]
    solver_state: PyTree
    controller_state: Any


class Outcome(eqx.Module):
    """How a compiled call ended: its steps, and whether a limit was found, or all is lost."""

    steps: Int[Array, ""]
    rejected: Int[Array, ""]
    forced: Int[Array, ""]
    unheld: Int[Array, ""]
    found: Bool[Array, ""]
    escaped: Bool[Array, ""]
    exhausted: Bool[Array, ""]


@compiled
def outputs(system: AbstractSystem, state: PyTree[Array]) -> dict[str, Array]:
    """What a system shows of itself."""
    with jax.default_matmul_precision("highest"):
        return system.outputs(state)


@compiled
def start(
    system: AbstractSystem,
    scheme: Scheme,
    carry: Carry,
    t1: Float[Array, ""],
    first_end: Float[Array, ""] | None,
) -> tuple[Carry, Bool[Array, ""]]:
    """Initial solver and controller states, and whether the first right-hand sides are finite."""
    with jax.default_matmul_precision("highest"):
        term, controller = _term(), scheme.controller(system, jnp.array(1), first_end)
        solver = scheme.solver
        tnext, controller_state = controller.init(
            term,
            carry.t,
            t1,
            carry.state,
            None,
            system,
            solver.func,
            solver.error_order(term),
        )
        solver_state = solver.init(term, carry.t, tnext, carry.state, system)
    # The first step size comes from the size of the first right-hand sides: NaN begets NaN.
    planned = controller_state.planned
    numbers = jax.tree.leaves(eqx.filter(solver_state, eqx.is_inexact_array))
    known = jnp.all(jnp.stack([jnp.all(jnp.isfinite(a)) for a in numbers])) if numbers else True
    finite = jnp.isfinite(planned) & (planned > 0) & known
    return Carry(carry.t, carry.state, solver_state, controller_state), finite


@compiled
def advance(
    system: AbstractSystem,
    scheme: Scheme,
    carry: Carry,
    t1: Float[Array, ""],
    limit: Int[Array, ""],
) -> tuple[Carry, Outcome]:
    """At most `limit` steps towards `t1`, up to where a limit begins or ends to be located."""
    controller_state = restarted(carry.controller_state)
    bracket = controller_state.bracket
    planned_end = carry.t + controller_state.planned
    first_end = jnp.where(bracket.is_open, bracket.trial, planned_end)
    # Diffrax moves what ends close before t1, which must not happen to a trial.
    t1 = jnp.where(bracket.is_open, 2 * bracket.high, t1)
    with jax.default_matmul_precision("highest"):
        solution = dfx.diffeqsolve(
            _term(),
            _traced_once(scheme.solver),
            t0=carry.t,
            t1=t1,
            dt0=None,
            y0=carry.state,
            args=system,
            stepsize_controller=scheme.controller(system, limit, first_end),
            saveat=dfx.SaveAt(t1=True, solver_state=True, controller_state=True),
            solver_state=carry.solver_state,
            controller_state=controller_state,
            event=dfx.Event(lambda t, y, args, **_: args.escaped(y)),
            max_steps=None,
            throw=False,
        )
    assert solution.ts is not None
    state = jax.tree.map(lambda y: y[-1], solution.ys)
    after = Carry(solution.ts[-1], state, solution.solver_state, solution.controller_state)
    return after, Outcome(
        solution.stats["num_steps"],
        solution.stats["num_rejected_steps"],
        solution.controller_state.forced,
        solution.controller_state.unheld,
        solution.controller_state.found,
        solution.event_mask,
        solution.result == dfx.RESULTS.dt_min_reached,
    )


def _traced_once(solver: dfx.AbstractSolver) -> dfx.AbstractSolver:
    """An implicit solver is left as it is: Diffrax asks it for more than steps."""
    return solver if isinstance(solver, dfx.AbstractImplicitSolver) else TracedOnce(solver)


def _term() -> dfx.ODETerm:
    return dfx.ODETerm(lambda t, y, args: args.field(y))
