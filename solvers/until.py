"""Reasons to stop before the last save time, as a user asks for them."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, PyTree

from nthsim.solvers.compiled import compiled
from nthsim.solvers.driven_system import AbstractDrivenSystem
from nthsim.solvers.momentum import AbstractMomentumFlow
from nthsim.solvers.stop import Reason, Stop
from nthsim.solvers.tolerances import positive

#: What each limit is on, in words.
WORDS: dict[Reason, str] = {
    "loss": "the loss fell below",
    "gradient": "the gradient's norm fell below",
    "stalled": "the loss's relative rate fell below",
    "seconds": "the wall time exceeded",
}

#: A number for each limit: its value, what is compared with it, or how far that is below.
Numbers = dict[Reason, Float[Array, ""]]

#: Gaps are logarithms; those of numbers that are zero, infinite or none are this.
WIDE = 2000.0


class Until(eqx.Module):
    r"""Stop where the first of these is met; without any, at the last save time.

    `loss` is the mean per-sample loss on the training points. `gradient` is the norm of the
    gradient that is followed, which is $\sqrt{|dL/dt|}$, and says the same of truncations.
    `stalled` is the relative rate $|dL/dt| / |L|$: the loss changes by less than this part of
    itself per unit of time. It is refused where the gradient of a loss is not that of its value. A
    regulariser counts as a part of the loss in both of these, which are refused for truncations
    with one. Each ends a run at the time at which it falls below its value, which does not depend
    on the save times: the step in which that happens is tried again, shorter and shorter, until its
    end is past that time by no more than the solver's `rtol` of it. Trials count among the rejected
    steps. The state at that end is the last one recorded. A run that is below at its start ends
    there; one that goes on from a checkpoint beyond is refused. What falls below within a step and
    is above again at its end is not seen, and where something crosses its value several times
    within a step, one of these times is found. The time is as good as the solution: where the
    solver's error changes a quantity visibly, it changes this too. Networks that share steps, as
    the seeds of a study over sizes, have no time in common, so that such studies take none of
    these.

    `seconds` of wall time, compilation included, end a run at the end of a step; one that goes on
    from a checkpoint has them anew.

    Raises:
        ValueError: When one is not a positive number.
    """

    loss: float | None = eqx.field(default=None, converter=lambda v: positive("loss", v))
    gradient: float | None = eqx.field(default=None, converter=lambda v: positive("gradient", v))
    stalled: float | None = eqx.field(default=None, converter=lambda v: positive("stalled", v))
    seconds: float | None = eqx.field(default=None, converter=lambda v: positive("seconds", v))

    @property
    def watched(self) -> dict[Reason, float]:
        """Those that are watched step by step."""
        given: dict[Reason, float | None]
        given = {"loss": self.loss, "gradient": self.gradient, "stalled": self.stalled}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def falling(self) -> bool:
        """Whether it looks at how fast the loss falls."""
        return self.gradient is not None or self.stalled is not None

    def limits(self, dtype: DTypeLike) -> Numbers:
        """These as numbers that may change without compiling."""
        return {name: jnp.asarray(value, dtype) for name, value in self.watched.items()}

    def stop(self, reason: Reason, t: float) -> Stop:
        """The end of a run that met one of these."""
        unit = " s" if reason == "seconds" else ""
        words = f"{WORDS[reason]} {getattr(self, reason):g}{unit} at t = {t:.6g}"
        return Stop(reason, t, words)


def checked_until(until: object) -> Until:
    """Return an `Until`.

    Raises:
        ValueError: `until` is none.
    """
    if not isinstance(until, Until):
        raise ValueError(f"`until` must be an Until, such as Until(loss=1e-4), but is {until!r}.")
    return until


@compiled
def gaps(limits: Numbers, system: Any, state: PyTree[Array]) -> Numbers:
    r"""How far below each limit a state is, $\log(\mathrm{limit} / \mathrm{value})$.

    Nothing that is not asked for is computed. Compiled, so that it is traced once for all programs
    that it is part of.
    """
    assert isinstance(system, AbstractDrivenSystem | AbstractMomentumFlow)
    with jax.default_matmul_precision("highest"):
        values: Numbers = {"loss": system.loss(state)}
        if isinstance(system, AbstractDrivenSystem) and limits.keys() & {"gradient", "stalled"}:
            fall, whole = jnp.abs(system.fall(state)), system.objective(state)
            values["gradient"] = jnp.sqrt(fall)
            # What passes through zero falls infinitely fast there, beside itself.
            rate = fall / jnp.abs(whole)
            values["stalled"] = jnp.where(fall == 0, jnp.zeros_like(fall), rate)
    return {name: _below(values[name], limit) for name, limit in limits.items()}


def largest_gap(limits: Numbers, system: Any, state: PyTree[Array]) -> Float[Array, ""]:
    """Positive where a limit is met: of the one that is met by most."""
    return jnp.max(jnp.stack(list(gaps(limits, system, state).values())))


def _below(value: Float[Array, ""], limit: Float[Array, ""]) -> Float[Array, ""]:
    least = jnp.finfo(value.dtype).tiny
    gap = jnp.log(limit) - jnp.log(jnp.maximum(value, least))
    return jnp.clip(jnp.where(jnp.isnan(gap), -WIDE, gap), -WIDE, WIDE)
