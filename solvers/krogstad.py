"""A fourth-order exponential Runge–Kutta pair as a solver for Diffrax."""

from typing import Any, ClassVar

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from nthsim.solvers.driven_system import AbstractDrivenSystem
from nthsim.solvers.linearisation import Increment, Linearisation, linearised

#: The linear part is renewed when what it leaves over, as the outputs see it, is this much of what
#: they see of the velocity.
DRIFT = 0.1


class Memory(eqx.Module):
    """The linear part in use, the velocity at the start of the step, and whether to renew."""

    linear: Linearisation
    velocity: PyTree[Array]
    seen: Float[Array, " N"]
    stale: Bool[Array, ""]


class Krogstad(dfx.AbstractSolver):
    r"""Krogstad's ETDRK4 on the linear part of a `Linearisation`.

    The method is of Krogstad (2005, J. Comput. Phys. 203), the embedded third-order one of Whalen,
    Brio & Moloney (2015, J. Comput. Phys. 280).

    Steps are limited by how fast the network's tangent kernel and the loss's curvature change, not
    by their largest eigenvalue. The last stage is the first of the next step. `args` must be the
    `AbstractDrivenSystem` whose field the term is.
    """

    term_structure: ClassVar = dfx.ODETerm
    interpolation_cls: ClassVar = dfx.ThirdOrderHermitePolynomialInterpolation.from_k

    def order(self, terms: PyTree) -> int:
        """Of the solution that is kept."""
        del terms
        return 4

    def func(self, terms: PyTree, t0: Any, y0: PyTree[Array], args: AbstractDrivenSystem) -> PyTree:
        """The velocity."""
        return terms.vf(t0, y0, args)

    def init(
        self, terms: PyTree, t0: Any, t1: Any, y0: PyTree[Array], args: AbstractDrivenSystem
    ) -> Memory:
        """The linear part and the velocity at the start."""
        del t1
        linear, velocity = linearised(args, y0), terms.vf(t0, y0, args)
        return Memory(linear, velocity, linear.seen(args, velocity), jnp.array(False))

    def step(
        self,
        terms: PyTree,
        t0: Any,
        t1: Any,
        y0: PyTree[Array],
        args: AbstractDrivenSystem,
        solver_state: Memory,
        made_jump: Any,
    ) -> tuple[PyTree, PyTree, dict[str, PyTree], Memory, dfx.RESULTS]:
        """One step, its error, and what the next one needs."""
        del made_jump
        h, memory = t1 - t0, _renewed(args, y0, solver_state)
        linear, start = memory.linear, _start(memory)

        def reached(move: Increment) -> PyTree[Array]:
            return jax.tree.map(jnp.add, y0, linear.whole(args, move))

        def remainder(move: Increment, velocity: PyTree[Array], seen: Array) -> Increment:
            """What the linear part leaves over of the change of velocity after a move."""
            change = jax.tree.map(jnp.subtract, velocity, memory.velocity)
            return Increment(change, move.seen, seen - memory.seen + linear.rates * move.seen)

        def stage(move: Increment) -> Increment:
            velocity = terms.vf(t0, reached(move), args)
            return remainder(move, velocity, linear.seen(args, velocity))

        second = stage(linear.combined(h, 0.5, [({1: 0.5}, start)]))
        third = stage(linear.combined(h, 0.5, [({1: 0.5}, start), ({2: 1.0}, second)]))
        fourth = stage(linear.combined(h, 1.0, [({1: 1.0}, start), ({2: 2.0}, third)]))
        middle, last = {2: 2.0, 3: -4.0}, {2: -1.0, 3: 4.0}
        terms_of_move = [({1: 1.0}, start), (middle, second), (middle, third), (last, fourth)]
        move = linear.combined(h, 1.0, terms_of_move)
        y1 = reached(move)
        velocity = terms.vf(t1, y1, args)
        seen = linear.seen(args, velocity)
        fifth = remainder(move, velocity, seen)
        difference = jax.tree.map(jnp.subtract, fourth, fifth)
        error = linear.whole(args, linear.combined(h, 1.0, [(last, difference)]))
        # Beside what is lost of the old velocity, rounding leaves a little over too.
        rounding = jnp.sqrt(jnp.finfo(seen.dtype).eps) * jnp.linalg.norm(memory.seen)
        stale = jnp.linalg.norm(fifth.seen) > DRIFT * jnp.linalg.norm(seen) + rounding
        slopes = jax.tree.map(lambda a, b: h * jnp.stack([a, b]), memory.velocity, velocity)
        dense = {"y0": y0, "y1": y1, "k": slopes}
        after = Memory(linear, velocity, seen, stale)
        return y1, error, dense, after, dfx.RESULTS.successful


def _start(memory: Memory) -> Increment:
    return Increment(memory.velocity, jnp.zeros_like(memory.seen), memory.seen)


def _renewed(system: AbstractDrivenSystem, state: PyTree[Array], memory: Memory) -> Memory:
    def renew() -> Memory:
        linear = linearised(system, state)
        seen = linear.seen(system, memory.velocity)
        return Memory(linear, memory.velocity, seen, jnp.array(False))

    return jax.lax.cond(memory.stale, renew, lambda: memory)
