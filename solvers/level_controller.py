"""Step sizes from errors measured level by level."""

from collections.abc import Callable
from typing import Any

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree, Scalar


class LevelState(eqx.Module):
    """The inner controller's state, the step size now planned, and how many steps were tried."""

    inner: Any
    planned: Float[Scalar, ""]
    steps: Int[Scalar, ""]


class LevelController(dfx.AbstractStepSizeController):
    r"""Accepts a step when every level's error is below $\mathrm{atol} + \mathrm{rtol}\,\|y_r\|$.

    A root mean square over all entries, Diffrax's default, would let the level with the most
    entries hide the others: in a hierarchy $f$ has n entries and $K^{(3)}$ has n³. `sizes` returns
    one norm per level, and the largest ratio decides; how the step then changes is left to
    Diffrax's `PIDController`.

    Three more things it does: a step cut short to land on a save time leaves the planned step size
    as it was; a step size at the rounding of t ends the run (`dt_min_reached`); and after `limit`
    steps it hands control back (`max_steps_reached`), a number that may change from call to call
    without compiling anew.
    """

    sizes: Callable[[PyTree], Float[Array, " levels"]]
    rtol: Float[Array, ""]
    atol: Float[Array, ""]
    limit: Int[Array, ""]

    def wrap(self, direction: Any) -> "LevelController":
        """Nothing depends on the direction of time."""
        del direction
        return self

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        """Start from `dt0`, or from Diffrax's estimate of a first step."""
        norm = lambda scaled: jnp.max(self.sizes(scaled))  # noqa: E731
        pid = dfx.PIDController(rtol=self.rtol, atol=self.atol, norm=norm)
        tnext, _ = pid.init(terms, t0, t1, y0, dt0, args, func, error_order)
        _, inner = self._unit_pid().init(terms, t0, t1, self.rtol, self.atol, args, func, None)
        # Arrays throughout, so that the second call finds the types of the first one's result.
        inner = jax.tree.map(jnp.asarray, inner)
        return tnext, LevelState(inner, tnext - t0, jnp.array(0))

    def adapt_step_size(
        self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
    ):
        """Accept or reject by the worst level; keep the plan when the step was cut short."""
        error = self._error(y0, y1_candidate, y_error)
        zero = jnp.zeros_like(error)
        keep, next_t0, next_t1, jump, inner, result = self._unit_pid().adapt_step_size(
            t0, t1, zero, zero, args, error, error_order, controller_state.inner
        )
        planned = next_t1 - next_t0
        cut_short = t1 - t0 < 0.99 * controller_state.planned
        planned = jnp.where(
            keep & cut_short, jnp.maximum(planned, controller_state.planned), planned
        )
        steps = controller_state.steps + 1
        result = dfx.RESULTS.where(steps >= self.limit, dfx.RESULTS.max_steps_reached, result)
        smallest = 10 * jnp.finfo(planned.dtype).eps * t1
        result = dfx.RESULTS.where(planned < smallest, dfx.RESULTS.dt_min_reached, result)
        return keep, next_t0, next_t0 + planned, jump, LevelState(inner, planned, steps), result

    def _error(self, y0: PyTree, y1: PyTree, y_error: PyTree) -> Float[Array, ""]:
        size = jnp.maximum(self.sizes(y0), self.sizes(y1))
        error = jnp.max(self.sizes(y_error) / (self.atol + self.rtol * size))
        return jnp.where(jnp.isfinite(error), error, jnp.inf)

    def _unit_pid(self) -> dfx.PIDController:
        return dfx.PIDController(rtol=0.0, atol=1.0, norm=jnp.abs, pcoeff=0.3, icoeff=0.4)


def restarted(state: LevelState) -> LevelState:
    """The same plan with the count of steps at zero, for the next call."""
    return LevelState(state.inner, state.planned, jnp.zeros_like(state.steps))
