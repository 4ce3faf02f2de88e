"""Where the gradient of a loss jumps."""

from math import prod
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nthsim.inputs.loss import Loss
from nthsim.solvers.compiled import compiled
from nthsim.solvers.xla import Traced

#: Of a loss that nobody changes.
UNTRACED = Traced()

#: Lines through the outputs that the gradient is followed along: so many targets, and outputs.
TARGETS, OUTPUTS = 16, 8

#: Pieces that a line is cut into, and how many of them are looked at more closely.
PIECES, CLOSER = 256, 8

#: No piece is shorter than so many roundings of the longest output on its line.
FINEST = 100

#: Lines reach so many times as far as the largest target, or as one.
REACH = 4.0

#: Of what a run came through so many lines at most, some at a time, longer by a part at its ends;
#: of several outputs as many fewer.
MOST_LINES, AT_A_TIME, BEYOND = 4096, 512, 0.05


class JumpingLossWarning(UserWarning):
    """The gradient of a loss jumps, and solutions may slide along the jump."""


class Lines(NamedTuple):
    """Lines through the outputs of samples, along each of which one output changes.

    `bases` are the outputs (lines, k) there and `targets` those of their samples; output `unit`
    goes from `low` to `high`.
    """

    bases: np.ndarray
    targets: np.ndarray
    units: np.ndarray
    low: np.ndarray
    high: np.ndarray


def jumping(loss: Loss, y: Array, out_shape: tuple[int, ...], now: Traced = UNTRACED) -> bool:
    r"""Whether $\partial\ell/\partial f$ jumps where outputs near the targets move one by one.

    `now` tells the loss from the same one before something changed that it reads.
    """
    targets = np.unique(np.asarray(y), axis=0)
    targets = targets[_spread(len(targets), TARGETS)]
    reach = REACH * max(1.0, float(np.abs(targets).max()))
    k = prod(out_shape)
    pattern = (reach / 8 * np.cos(1.0 + np.arange(k))).astype(targets.dtype)
    at = [(pattern, target) for target in targets]
    if targets.shape[1:] == out_shape:
        at += [(target.reshape(-1), target) for target in targets]
    bases, targets = (np.stack(parts) for parts in zip(*at, strict=True))
    lines = [(a, j) for a in range(len(at)) for j in _spread(k, OUTPUTS)]
    which, units = (np.array(parts) for parts in zip(*lines, strict=True))
    start = -1.0137 * reach  # no target should be among the nodes, where a norm has no gradient
    ends = np.full(len(lines), start)
    return _jump_along(
        Lines(bases[which], targets[which], units, ends, ends + 2 * reach), loss, out_shape, now
    )


def jumped(
    loss: Loss, y: Array | np.ndarray, f: Float[np.ndarray, "T n ..."], now: Traced = UNTRACED
) -> bool:
    r"""Whether $\partial\ell/\partial f$ jumps among the outputs that a run came through.

    That is between the smallest and the largest of each, and a little beyond, where a run may be
    held; of very many outputs those that moved furthest are looked at, and none that moved so
    little that a jump there could not be told from a slope.
    """
    k = prod(f.shape[2:])
    path, targets = f.reshape(len(f), len(y), k), np.asarray(y)
    low, high = path.min(axis=0), path.max(axis=0)
    order = np.argsort((low - high).reshape(-1), kind="stable")[: max(MOST_LINES // k, 1)]
    at_a_time = min(len(order), max(AT_A_TIME // k, 1))
    for some in np.resize(order, (-(-len(order) // at_a_time), at_a_time)):
        samples, units = np.unravel_index(some, low.shape)
        start, end = low[samples, units], high[samples, units]
        beyond = BEYOND * (end - start)
        ends = start - beyond, end + 1.037 * beyond  # no end is a node
        lines = Lines(path[-1][samples], targets[samples], units, *ends)
        if _jump_along(lines, loss, f.shape[2:], now):
            return True
    return False


def _jump_along(lines: Lines, loss: Loss, out_shape: tuple[int, ...], now: Traced) -> bool:
    """Whether the gradient jumps somewhere along lines.

    What changes between neighbours in a grid must change as much between neighbours in ever finer
    ones, to the rounding of the outputs. What grows there is a pole, and one that pulls outputs in
    from both sides, as that of $|f - y|^{1/2}$ does, holds them as a jump does.
    """
    bases, targets, units, low, high = lines
    reach = np.maximum(np.abs(bases).max(axis=1), np.maximum(np.abs(low), np.abs(high)))
    finest = FINEST * PIECES * float(jnp.finfo(bases.dtype).eps) * reach
    short = high - low <= PIECES * finest  # and not even once to be looked at more closely
    if short.all():
        return False

    def followed(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        nodes = np.linspace(low, high, PIECES + 1, axis=1).astype(bases.dtype)
        found = np.asarray(_slopes(loss, out_shape, now, bases, targets, units, nodes))
        return nodes, found, _changes(found)

    nodes, first, jumps = followed(low, high)
    size = np.abs(first[np.isfinite(first)]).max(initial=0.0)
    pieces = np.argsort(jumps, axis=1)[:, -CLOSER:]
    low, high, jumps = (
        np.take_along_axis(each, pieces, axis=1).reshape(-1)
        for each in (nodes[:, :-1], nodes[:, 1:], jumps)
    )
    bases, targets, units, finest = (
        np.repeat(each, CLOSER, axis=0) for each in (bases, targets, units, finest)
    )
    kept = (jumps > 1e-5 * size) & np.repeat(~short, CLOSER)  # rounding is no change
    while kept.any() and not np.any(kept & (high - low <= finest)):
        nodes, found, changes = followed(low, high)
        at, piece = np.arange(len(low)), np.argmax(changes, axis=1)
        finer = changes[at, piece]
        pulled = (found[at, piece] < 0) & (found[at, piece + 1] > 0)
        # Half of it, where a node is at it.
        kept &= (finer > 0.4 * jumps) & ((finer / 2 < jumps) | pulled)
        low, high, jumps = nodes[at, piece], nodes[at, piece + 1], finer
    return bool(kept.any())


@compiled
def _slopes(
    loss: Loss,
    out_shape: tuple[int, ...],
    now: Traced,
    bases: Float[Array | np.ndarray, "lines k"],
    targets: Float[Array | np.ndarray, "lines ..."],
    units: Array | np.ndarray,
    nodes: Float[Array | np.ndarray, "lines nodes"],
) -> Float[Array, "lines nodes"]:
    """The loss's gradient along the line on which one output changes: a sum of its entries.

    Those of other outputs jump too where one decides whether others count.

    None where the loss itself is no number, as that of a logarithm on its other side.
    """
    del now  # another program for another loss

    def slope(s: Array, base: Array, target: Array, unit: Array) -> Array:
        f = base.at[unit].set(s).reshape(out_shape)
        value, gradient = jax.value_and_grad(loss)(f, target)
        entries = jnp.arange(base.size)
        others = 0.4 + 0.3 * jnp.cos(1 + entries.astype(base.dtype))  # which cancel nowhere
        weights = jnp.where(entries == unit, jnp.ones_like(others), others)
        return jnp.where(jnp.isfinite(value), gradient.reshape(-1) @ weights, jnp.nan)

    along = jax.vmap(slope, (0, None, None, None))
    return jax.vmap(along)(*map(jnp.asarray, (nodes, bases, targets, units)))


def _changes(slopes: np.ndarray) -> np.ndarray:
    """Between neighbours; none where there is no number."""
    with np.errstate(invalid="ignore"):
        changes = np.abs(np.diff(slopes, axis=1))
    return np.where(np.isfinite(changes), changes, 0.0)


def _spread(n: int, most: int) -> np.ndarray:
    """Indices of at most so many of n, evenly."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))
