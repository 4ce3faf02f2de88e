"""Reasons to stop before the last save time, as a user asks for them."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float, PyTree

from nthsim.solvers.driven_system import AbstractDrivenSystem
from nthsim.solvers.stop import Reason, Stop
from nthsim.solvers.tolerances import positive

#: What each limit is on, in words.
WORDS: dict[Reason, str] = {
    "loss": "the loss fell below",
    "gradient": "the gradient's norm fell below",
    "stalled": "the loss's relative rate fell below",
    "seconds": "the wall time exceeded",
}


class Until(eqx.Module):
    r"""Stop where the first of these is met; without any, at the last save time.

    `loss` is the mean per-sample loss on the training points. `gradient` is the norm of its
    gradient, $\sqrt{|dL/dt|}$, which says the same of truncations. `stalled` is the relative rate
    $|dL/dt| / L$: the loss changes by less than this part of itself per unit of time. Each
    stops a run once it is below its value at the end of a step, however far below; the state there
    is the last one recorded, and more save times make shorter steps. `seconds` of wall time,
    compilation included, end a run likewise; one that goes on from a checkpoint has them anew.

    Raises:
        ValueError: When one is not a positive number.
    """

    loss: float | None = eqx.field(default=None, converter=lambda v: positive("loss", v))
    gradient: float | None = eqx.field(default=None, converter=lambda v: positive("gradient", v))
    stalled: float | None = eqx.field(default=None, converter=lambda v: positive("stalled", v))
    seconds: float | None = eqx.field(default=None, converter=lambda v: positive("seconds", v))

    def limits(self, dtype: DTypeLike) -> dict[str, Float[Array, ""]]:
        """Those that are watched step by step, as numbers that may change without compiling."""
        given = {name: getattr(self, name) for name in ("loss", "gradient", "stalled")}
        return {name: jnp.asarray(v, dtype) for name, v in given.items() if v is not None}

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


def limits_met(
    limits: dict[str, Float[Array, ""]], system: Any, state: PyTree[Array]
) -> dict[str, Bool[Array, ""]]:
    """Which limits a state is below; nothing that is not asked for is computed."""
    if not limits:
        return {}
    assert isinstance(system, AbstractDrivenSystem)
    loss, values = system.loss(state), {}
    values["loss"] = loss
    if "gradient" in limits or "stalled" in limits:
        residual = system.residual(system.predictions(state)).reshape(-1)
        descent = -jnp.vdot(residual, system.push(state, system.field(state)))
        values["gradient"] = jnp.sqrt(jnp.abs(descent))
        values["stalled"] = jnp.where(loss > 0, jnp.abs(descent) / loss, jnp.zeros_like(loss))
    return jax.tree.map(lambda limit, value: value < limit, limits, {k: values[k] for k in limits})
