"""How outputs tell a class, by what a loss of somebody's own makes of them."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from nthsim.inputs.loss import Residual
from nthsim.solvers.compiled import compiled

#: From outputs (T, n, ...) to the number of a class, (T, n); -1 where none is told.
Readout = Callable[[np.ndarray], np.ndarray]

#: Outputs at which a loss is tried, those of one class beside those of another.
TRIES = 5

#: So many more, up to so far from zero, where the least loss must tell the same class.
WIDE, FAR = 60, 4.0

#: Outputs in more places than this are not turned one by one.
MOST_TURNED = 6

#: Samples whose losses by all classes are evaluated at once.
ROWS = 1024

Outputs = Float[np.ndarray, "tries outputs"]
Mirror = Callable[[Outputs], Outputs]


def readout(
    residual: Residual, classes: Float[np.ndarray, "C ..."], out_shape: tuple[int, ...]
) -> Readout | None:
    """How outputs tell the classes; None where the loss treats these in different ways.

    Two classes are treated alike, but for their weights, if there is a mirror image of outputs such
    that the loss of one class there is a constant times that of the other class here. Where that is
    an exchange of two outputs, the largest output tells the class, or the smallest where less loss
    is there; where it is a reflection of a single one, the side of its centre does; else the class
    whose target has the least loss, over its weight. None is found where the least loss denies what
    the largest output or the side tells, as where outputs count by their squares.
    """
    outputs, pair = int(np.prod(out_shape)), _Pairs(residual, classes, out_shape)
    if outputs == 1 and len(classes) == 2:
        for centre in (0.0, 0.5):
            mirror = partial(np.subtract, 2 * centre)
            weight = pair.weight(1, mirror)
            if weight is not None:
                side = pair.side(centre)
                sure = side and not pair.denies(1, weight, -side, centre)
                return Threshold(centre, side) if sure else None
        return None
    exchanged = [partial(_exchanged, places=(0, c)) for c in range(1, len(classes))]
    if outputs == len(classes):
        known = {c: pair.weight(c, mirror) for c, mirror in enumerate(exchanged, start=1)}
        weighed = {c: weight for c, weight in known.items() if weight is not None}
        if weighed.keys() == known.keys():
            sides = set(map(pair.prefers, itertools.count(1), exchanged))
            side = sides.pop() if len(sides) == 1 else 0
            if not side or any(pair.denies(c, weight, side) for c, weight in weighed.items()):
                return None
            return by_largest if side > 0 else by_least
    weights = [1.0]
    for other in range(1, len(classes)):
        found = (pair.weight(other, mirror) for mirror in _mirrors(outputs, len(classes), other))
        weight = next((each for each in found if each is not None), None)
        if weight is None:
            return None
        weights.append(weight)
    held = np.array(weights, classes.dtype)
    return lambda f: np.asarray(_least(residual, *map(jnp.asarray, (f, classes, held))))


def by_largest(f: Float[np.ndarray, "T n C"]) -> Int[np.ndarray, "T n"]:
    """The place of the largest output."""
    largest = f == f.max(axis=2, keepdims=True)
    return np.where(largest.sum(axis=2) == 1, largest.argmax(axis=2), -1)


def by_least(f: Float[np.ndarray, "T n C"]) -> Int[np.ndarray, "T n"]:
    """The place of the smallest output, as of distances."""
    return by_largest(-f)


@dataclasses.dataclass(frozen=True)
class Threshold:
    """The second of two classes where a single output is on one side of the centre."""

    centre: float = 0.0
    side: int = 1

    def __call__(self, f: Float[np.ndarray, "T n ..."]) -> Int[np.ndarray, "T n"]:
        """The number of the class."""
        beyond = self.side * (f.reshape(f.shape[:2]) - self.centre)
        return np.where(beyond > 0, 1, np.where(beyond < 0, 0, -1))


class _Pairs:
    """Losses of the first class beside those of another one, at a few outputs."""

    def __init__(
        self, residual: Residual, classes: Float[np.ndarray, "C ..."], out_shape: tuple[int, ...]
    ) -> None:
        self.residual, self.classes, self.out_shape = residual, classes, out_shape
        half = classes.dtype.itemsize < 4  # which tells nothing
        self.dtype = jnp.dtype(jnp.float32) if half else classes.dtype
        self.near = max(1e3 * float(jnp.finfo(self.dtype).eps), 1e-9)
        outputs = int(np.prod(out_shape))
        tries = np.modf((1 + np.arange(TRIES * outputs)) * (np.sqrt(5) - 1) / 2)[0]
        self.tries = (0.1 + 0.8 * tries).reshape(TRIES, outputs)  # as logits, and as probabilities

    def weight(self, other: int, mirror: Mirror) -> float | None:
        """How many times the loss of the other class is that of the first at the mirror image."""
        mirrored = mirror(self.tries)
        here = self._losses(np.concatenate([self.tries, mirrored]), 0)
        there = self._losses(np.concatenate([mirrored, self.tries]), other)
        if not (np.isfinite(here).all() and np.abs(here).max() > 0):
            return None
        place = np.abs(here).argmax()
        weight = float(there[place] / here[place])
        near = self.near * weight * np.abs(here).max()
        if not (weight > 0 and np.allclose(there, weight * here, rtol=self.near, atol=near)):
            return None
        return 1.0 if abs(weight - 1) < self.near else weight

    def prefers(self, other: int, mirror: Mirror) -> int:
        """Whether the first has less loss where its output is larger than the other's, by sign."""
        ahead = np.sign(self.tries[:, 0] - self.tries[:, other])
        gain = self._losses(mirror(self.tries), 0) - self._losses(self.tries, 0)
        return int(np.sign(np.sum(ahead * gain)))

    def side(self, centre: float) -> int:
        """On which side of a centre a single output has less loss by the second class."""
        ahead = np.sign(self.tries[:, 0] - centre)
        gain = self._losses(2 * centre - self.tries, 1) - self._losses(self.tries, 1)
        return int(np.sign(np.sum(ahead * gain)))

    def denies(self, other: int, weight: float, side: int, centre: float | None = None) -> bool:
        """Whether somewhere the first class has more loss where it is ahead on that side.

        It is ahead of the other class's output, or of the centre.
        """
        turns = np.cos(np.arange(1.0, 1 + WIDE * self.tries.shape[1]) ** 2)
        f = np.concatenate([FAR * turns.reshape(WIDE, -1), self.tries])
        ahead = f[:, 0] - (f[:, other] if centre is None else centre)
        first, second = self._losses(f, 0), self._losses(f, other) / weight
        apart = second - first
        clear = np.abs(apart) > self.near * np.maximum(np.abs(first), np.abs(second))
        return bool(np.any(clear & np.isfinite(apart) & (side * ahead * apart < 0)))

    def _losses(self, f: Outputs, number: int) -> Float[np.ndarray, " tries"]:
        target = jnp.asarray(self.classes[number], self.dtype)
        rows = jnp.asarray(f.reshape(-1, *self.out_shape), self.dtype)
        return np.asarray(_losses(self.residual, rows, target), float)


@compiled
def _losses(
    residual: Residual, f: Float[Array, "tries ..."], target: Array
) -> Float[Array, " tries"]:
    return jax.vmap(lambda one: residual.loss(one, target))(f)


@compiled
def _least(
    residual: Residual,
    f: Float[Array, "T n ..."],
    classes: Float[Array, "C ..."],
    weights: Float[Array, " C"],
) -> Int[Array, "T n"]:
    """The class whose target has the least loss over its weight; -1 for a tie."""

    def one(f: Array) -> Int[Array, ""]:
        losses = jax.vmap(lambda target: residual.loss(f, target))(classes) / weights
        losses = jnp.where(jnp.isnan(losses), jnp.full_like(losses, jnp.inf), losses)
        alone = jnp.sum(losses == jnp.min(losses)) == 1
        return jnp.where(alone, jnp.argmin(losses), -1)

    over = lambda now: jax.lax.map(one, now, batch_size=ROWS)  # noqa: E731
    return jax.lax.map(over, f)


def _exchanged(f: Outputs, places: tuple[int, int]) -> Outputs:
    order = np.arange(f.shape[1])
    order[list(places)] = places[::-1]
    return f[:, order]


def _mirrors(outputs: int, classes: int, other: int) -> Iterator[Mirror]:
    """Mirror images of outputs that may stand for another class where they do for the first."""
    for first in {0, outputs - classes} if outputs >= classes else ():
        yield partial(_exchanged, places=(first, first + other))
    if classes == 2:
        turned = min(outputs, MOST_TURNED)
        for signs in itertools.product((-1, 1), repeat=turned):
            yield partial(np.multiply, np.array([*signs, *(1,) * (outputs - turned)]))
        yield partial(np.subtract, 1)
