"""Step sizes from errors measured level by level."""

import dataclasses
from collections.abc import Callable
from typing import Any

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree, Scalar

from nthsim.solvers.bracket import Bracket, closed, opened
from nthsim.solvers.until import Numbers, largest_gap

#: Steps at a jump of the right-hand side, against the largest step so far; and where solutions may
#: slide along a jump, to and fro across it: what they are off by is in proportion to these steps.
FLOOR, SLIDING_FLOOR = 0.1, 0.01

#: The time after which the right-hand side is looked at again is no longer than this.
NUDGE = 1e-4

#: From this order on, errors at smooth right-hand sides fall visibly faster than those at jumps.
TELLING = 4


class LevelState(eqx.Module):
    """The inner controller's state and what this controller remembers.

    `planned` is the step size now planned, `largest` the largest step that met the tolerance;
    `refused_step` and `refused_error` are the last attempt's if it was rejected, else zero; `steps`
    and `forced` count the steps tried and those taken although they missed the tolerance, `unheld`
    those taken at states so small that `atol` alone let them pass. `bracket` is of the limit that
    is being located, and `found` tells that the last step ends at one.
    """

    inner: Any
    planned: Float[Scalar, ""]
    largest: Float[Scalar, ""]
    refused_step: Float[Scalar, ""]
    refused_error: Float[Scalar, ""]
    steps: Int[Scalar, ""]
    forced: Int[Scalar, ""]
    unheld: Int[Scalar, ""]
    bracket: Bracket
    found: Bool[Scalar, ""]


class LevelController(dfx.AbstractStepSizeController):
    r"""Accepts a step when every level's error is below $\mathrm{atol} + \mathrm{rtol}\,\|y_r\|$.

    A root mean square over all entries, Diffrax's default, would let the level with the most
    entries hide the others: in a hierarchy $f$ has n entries and $K^{(3)}$ has n³. `sizes` returns
    one norm per level, and the largest ratio decides; how the step then changes is left to
    Diffrax's `PIDController`.

    Five more things it does. A step cut short to land on a save time leaves the planned step size
    as it was. A step size at the rounding of t ends the run (`dt_min_reached`). After `limit` steps
    it hands control back (`max_steps_reached`), a number that may change from call to call without
    compiling anew. And a jump of the right-hand side, as at the kinks of relu, is crossed by a step
    of `floor` times the largest one whatever its error, and counted: no step is small enough there,
    and a solution that slides along a kink would never get away from it. A jump shows by an error
    that falls like the step size or its square when a step is tried again; a smooth right-hand side
    makes it fall like the step size to the method's `error_order`. Only methods whose order is at
    least `TELLING` keep the two apart, and only explicit ones (`kinks`), as errors of others fall
    more slowly where the system is stiff; with the rest no step is ever forced, and a jump may end
    the run. And a step at the end of which some of `limits` is met is tried again with other ends,
    from the same start, until its end is where that limit is met; a save time is no reason to go on
    (`max_steps_reached` before the first trial, and at the end).

    The first step is tried up to `first_end`; without one, by how fast the right-hand side changes.
    """

    sizes: Callable[[PyTree], Float[Array, "*members levels"]]
    rtol: Float[Array, ""]
    atol: Float[Array, ""]
    limit: Int[Array, ""]
    first_end: Float[Array, ""] | None
    limits: Numbers
    kinks: bool = eqx.field(static=True)
    floor: float = eqx.field(static=True, default=FLOOR)

    def wrap(self, direction: Any) -> "LevelController":
        """Nothing depends on the direction of time."""
        del direction
        return self

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        """Start by `first_end`; Diffrax's own `dt0` would bring in a check by a callback."""
        assert dt0 is None
        if self.first_end is None:
            dt0 = self._estimate(terms, t0, t1, y0, args, func, error_order)
            tnext = t0 + dt0
        else:
            dt0, tnext = self.first_end - t0, self.first_end
        # The inner controller is shown the worst ratio alone, so that its y is a scalar; a given
        # first step keeps it from estimating one from that.
        _, inner = self._unit_pid().init(
            terms, t0, t1, jnp.zeros_like(dt0), dt0, args, func, error_order
        )
        # Arrays throughout, so that the second call finds the types of the first one's result.
        inner = jax.tree.map(jnp.asarray, inner)
        none, zero = jnp.array(0), jnp.zeros_like(dt0)
        bracket, found = closed(dt0.dtype), jnp.array(False)
        return tnext, LevelState(inner, dt0, zero, zero, zero, none, none, none, bracket, found)

    def _estimate(self, terms, t0, t1, y0, args, func, error_order) -> Float[Array, ""]:
        r"""$\tau\, \mathrm{rtol}^{1/q}$ with $\tau = \|F\| / \|\dot F\|$, in which F changes.

        Relative to the size of F and not of y, which may start from zero.
        """
        span = t1 - t0
        nudge = jnp.minimum(jnp.sqrt(jnp.finfo(span.dtype).eps) * span, NUDGE)

        def evaluate(y: PyTree, _: None) -> tuple[PyTree, PyTree]:
            slope = func(terms, t0, y, args)
            return jax.tree.map(lambda a, b: a + nudge * b, y0, slope), slope

        _, slopes = jax.lax.scan(evaluate, y0, None, length=2)  # compiles the right-hand side once
        slope, change = (jax.tree.map(part, slopes) for part in (lambda a: a[0], _difference))
        size, rate = self.sizes(slope), self.sizes(change) / nudge
        idle = (size == 0) | (rate == 0)
        times = jnp.where(idle, span, size / jnp.where(idle, jnp.ones_like(rate), rate))
        return jnp.minimum(jnp.min(times) * self.rtol ** (1 / error_order), span)

    def adapt_step_size(
        self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
    ):
        """Accept or reject by the worst level, and by whether a limit is to be located."""
        adapted = self._adapted(
            t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
        )
        if not self.limits:
            return adapted
        return self._located(adapted, t0, t1, y0, y1_candidate, args, controller_state)

    def _adapted(self, t0, t1, y0, y1_candidate, args, y_error, error_order, state: LevelState):
        """Accept or reject by the worst level; keep the plan when the step was cut short."""
        error, unheld = self._error(y0, y1_candidate, y_error)
        step = t1 - t0
        forced = (error >= 1) & (step <= self.floor * state.largest) & _jumps(step, error, state)
        forced &= self.kinks and error_order >= TELLING
        taken = jnp.where(forced, 0.99, error)
        zero = jnp.zeros_like(error)
        keep, next_t0, next_t1, jump, inner, result = self._unit_pid().adapt_step_size(
            t0, t1, zero, zero, args, taken, error_order, state.inner
        )
        planned = next_t1 - next_t0
        cut_short = step < 0.99 * state.planned
        planned = jnp.where(keep & cut_short, jnp.maximum(planned, state.planned), planned)
        planned = jnp.where(forced, jnp.maximum(planned, self.floor * state.largest), planned)
        after = LevelState(
            inner,
            planned,
            largest=jnp.where(error < 1, jnp.maximum(state.largest, step), state.largest),
            refused_step=jnp.where(keep, zero, step),
            refused_error=jnp.where(keep, zero, error),
            steps=state.steps + 1,
            forced=jnp.where(forced, state.forced + 1, state.forced),
            unheld=jnp.where(keep & unheld, state.unheld + 1, state.unheld),
            bracket=state.bracket,
            found=jnp.array(False),
        )
        result = dfx.RESULTS.where(after.steps >= self.limit, dfx.RESULTS.max_steps_reached, result)
        smallest = 10 * jnp.finfo(planned.dtype).eps * t1
        result = dfx.RESULTS.where(planned < smallest, dfx.RESULTS.dt_min_reached, result)
        return keep, next_t0, next_t0 + planned, jump, after, result

    def _located(self, adapted, t0, t1, y0, y1, args, state: LevelState) -> tuple:
        """What was decided of an attempt, unless there is a limit to be located in it."""
        keep, next_t0, next_t1, jump, after, result = adapted
        before, none = state.bracket, closed(t1.dtype)
        gap = largest_gap(self.limits, args, y1)
        crossed = keep & ~before.is_open & (gap > 0)
        # At the start none is met, whatever rounding says.
        start = lambda: jnp.minimum(largest_gap(self.limits, args, y0), jnp.zeros_like(gap))  # noqa: E731
        gaps = jnp.stack([jax.lax.cond(crossed, start, lambda: jnp.zeros_like(gap)), gap])
        bracket = _where(crossed, opened(jnp.stack([t0, t1]), gaps, self.rtol), none)
        going_on = keep & before.is_open
        bracket = _where(going_on, before.narrowed(t1, gap, self.rtol), bracket)
        located = crossed | going_on
        found = located & (gap > 0) & (t1 - bracket.low <= self.rtol * t1)
        bracket = _where(found, none, bracket)
        counts = {"steps": after.steps}
        for name in ("forced", "unheld"):
            counts[name] = jnp.where(found, getattr(after, name), getattr(state, name))
        tried = dataclasses.replace(state, **counts, bracket=bracket, found=found)
        after = _where(located, tried, dataclasses.replace(after, bracket=bracket))
        again = located & ~found
        next_t0, next_t1 = jnp.where(again, t0, next_t0), jnp.where(again, bracket.trial, next_t1)
        hand_back = found | (bracket.is_open != before.is_open)
        result = dfx.RESULTS.where(hand_back, dfx.RESULTS.max_steps_reached, result)
        return keep & ~again, next_t0, next_t1, jump, after, result

    def _error(
        self, y0: PyTree, y1: PyTree, y_error: PyTree
    ) -> tuple[Float[Array, ""], Bool[Array, ""]]:
        """The worst level's error by what it may be; whether none passes but by `atol` alone."""
        size = self.rtol * jnp.maximum(self.sizes(y0), self.sizes(y1))
        errors = self.sizes(y_error)
        error = jnp.max(errors / (self.atol + size))
        # The largest of all levels, of one member, as others may rest.
        largest = jnp.max(size, axis=-1, keepdims=True)
        unheld = (size == largest) & (size < self.atol) & (errors > size)
        return jnp.where(jnp.isfinite(error), error, jnp.inf), jnp.any(unheld)

    def _unit_pid(self) -> dfx.PIDController:
        return dfx.PIDController(rtol=0.0, atol=1.0, norm=jnp.abs, pcoeff=0.3, icoeff=0.4)


def _where(chosen: Bool[Array, ""], one: Any, other: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(chosen, a, b), one, other)


def _difference(pair: Array) -> Array:
    return pair[1] - pair[0]


def _jumps(step: Array, error: Array, state: LevelState) -> Bool[Array, ""]:
    """Whether a second attempt improved less than a smooth right-hand side would let it."""
    ratio = step / jnp.where(state.refused_step > 0, state.refused_step, jnp.inf)
    return jnp.isfinite(error) & (error > ratio**3 * state.refused_error) & (ratio > 0)


def restarted(state: LevelState) -> LevelState:
    """The same plan with the counts at zero, for the next call."""
    none = jnp.zeros_like(state.steps)
    none = {"steps": none, "forced": none, "unheld": none}
    return dataclasses.replace(state, **none, found=jnp.array(False))
