"""Where within a step a limit is met."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float, Scalar

#: How far from both ends the first guess stays, as a part of the step: over long steps it is poor.
MARGIN = 0.05

#: A trial keeps this part of the tolerance away from what is known already, and ends half of it
#: before where the limit is thought to be met: what is tried next then is past it, and the last.
APART = 0.9


class Bracket(eqx.Module):
    """Ends of steps from one state: at the earlier one no limit is met, at the later one some is.

    `times` are those of the newest end, of the one on the other side, and of the one that was given
    up for the newest; `gaps`, positive where a limit is met, belong to them. `trial` is the next
    end to try. Where nothing is being located, all times are infinite.
    """

    times: Float[Array, " 3"]
    gaps: Float[Array, " 3"]
    trial: Float[Scalar, ""]

    @property
    def is_open(self) -> Bool[Array, ""]:
        """Whether something is being located."""
        return jnp.isfinite(self.trial)

    @property
    def low(self) -> Float[Array, ""]:
        """Up to here, no limit is known to be met."""
        return jnp.min(self.times[:2])

    @property
    def high(self) -> Float[Array, ""]:
        """Here, one is."""
        return jnp.max(self.times[:2])

    def narrowed(
        self, t: Float[Array, ""], gap: Float[Array, ""], rtol: Float[Array, ""]
    ) -> "Bracket":
        """The same after one more trial."""
        same_side = (gap > 0) == (self.gaps[0] > 0)
        order = jnp.where(same_side, jnp.array([1, 0]), jnp.array([0, 1]))
        times, gaps = self.times[order], self.gaps[order]
        return _aimed(jnp.append(t, times), jnp.append(gap, gaps), rtol)


def closed(dtype: DTypeLike) -> Bracket:
    """Nothing is being located."""
    never = jnp.full(3, jnp.inf, dtype)
    return Bracket(never, jnp.zeros_like(never), never[0])


def opened(times: Float[Array, " 2"], gaps: Float[Array, " 2"], rtol: Float[Array, ""]) -> Bracket:
    """A limit is met at the end of a step and not at its start."""
    newest = jnp.array([1, 0, 0])
    return _aimed(times[newest], gaps[newest], rtol)


def _aimed(times: Float[Array, " 3"], gaps: Float[Array, " 3"], rtol: Float[Array, ""]) -> Bracket:
    r"""The next trial: by Chandrupatla (1997, Adv. Eng. Softw. 28), by a chord at first.

    The parabola through the three ends, with times as a function of gaps, where it is known to rise
    between them, else the middle.
    """
    (x1, x2, x3), (f1, f2, f3) = times, gaps
    low, high = jnp.minimum(x1, x2), jnp.maximum(x1, x2)
    tolerance = rtol * high
    chord = jnp.clip(_over(f1, f1 - f2), MARGIN, 1 - MARGIN)
    across, rise = _over(x1 - x2, x3 - x2), _over(f1 - f2, f3 - f2)
    smooth = (rise**2 < across) & ((1 - rise) ** 2 < 1 - across)
    parabola = _over(f1, f1 - f2) * _over(f3, f3 - f2)
    parabola += _over(x3 - x1, x2 - x1) * _over(f1, f3 - f1) * _over(f2, f3 - f2)
    part = jnp.where(x3 == x2, chord, jnp.where(smooth, parabola, 0.5))
    apart = APART * tolerance
    trial = x1 + part * (x2 - x1) - apart / 2
    trial = jnp.maximum(jnp.minimum(trial, high - apart), low + apart)
    # Where a step twice taken came out otherwise, both are the same end, and none is met there.
    last = jnp.where(low == high, high + apart, high)
    return Bracket(times, gaps, jnp.where(high - low <= tolerance, last, trial))


def _over(a: Array, b: Array) -> Array:
    """The quotient, of which nothing is used where there is none."""
    return a / jnp.where(b == 0, jnp.ones_like(b), b)
