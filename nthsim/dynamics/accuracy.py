"""The part of the points whose class the outputs tell."""

import itertools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from nthsim.inputs.loss import LOSSES, Loss, Residual
from nthsim.solvers.compiled import compiled, is_traced

#: Outputs at which a loss is tried, those of one class beside those of another.
TRIES = 5

#: Outputs in more places than this are not turned one by one.
MOST_TURNED = 6

#: Samples whose losses by all classes are evaluated at once.
ROWS = 1024


def accuracy(
    f: Float[np.ndarray, "T n ..."], y: Float[Array, "n ..."] | None, residual: Residual
) -> Float[np.ndarray, " T"] | None:
    """The part of the samples whose class the outputs tell, at each time; a tie tells none.

    The class is the sign of a single output, else the place of the largest of several; with a loss
    of one's own, for which outputs may mean something else, that whose target has the least loss,
    over the weight that the loss gives to its class. None where the targets `y` do not stand for
    the classes that the network is trained with, or such a loss treats these in different ways.
    """
    trained = residual.y
    if y is None or is_traced(y, trained) or not _are_classes(y, trained):
        return None
    if residual.loss not in LOSSES.values():
        classes = jnp.asarray(np.unique(np.asarray(trained), axis=0))
        weights = class_weights(residual.loss, classes, f.shape[2:])
        if weights is None:
            return None
        told = _told(residual, jnp.asarray(f), y, classes, jnp.asarray(weights))
        return np.mean(np.asarray(told), axis=1)
    targets = np.asarray(y).reshape(len(y), -1)
    outputs = f.reshape(*f.shape[:2], targets.shape[1])
    if targets.shape[1] == 1:
        return np.mean((outputs * targets > 0)[..., 0], axis=1)
    right = targets == targets.max(axis=1, keepdims=True)
    others = np.where(right, -np.inf, outputs).max(axis=2)
    return np.mean(np.where(right, outputs, -np.inf).max(axis=2) > others, axis=1)


def class_weights(
    loss: Loss, classes: Float[Array, "C ..."], out_shape: tuple[int, ...]
) -> Float[np.ndarray, " C"] | None:
    """What a loss weighs each class by, relative to the first; None where nothing of the kind fits.

    Two classes differ by weights alone if there is a mirror image of outputs, which are turned,
    taken from one or exchanged, such that the loss of one class there is a constant times that of
    the other class here.
    """
    outputs = int(np.prod(out_shape))
    tries = np.modf((1 + np.arange(TRIES * outputs)) * (np.sqrt(5) - 1) / 2)[0]
    tries = (0.1 + 0.8 * tries).reshape(TRIES, outputs)
    rows = np.asarray(classes).reshape(len(classes), -1)
    places = (rows.argmax(axis=1) if rows.shape[1] > 1 else np.arange(len(classes))).tolist()
    near = 10 * float(jnp.finfo(classes.dtype).eps) ** 0.5

    def losses(f: Float[np.ndarray, "tries outputs"], target: Array) -> np.ndarray:
        rows = jnp.asarray(f.reshape(-1, *out_shape), classes.dtype)
        return np.asarray(jax.vmap(lambda one: loss(one, target))(rows))

    found = [1.0]
    for other in range(1, len(classes)):
        for mirrored in _mirrors(tries, len(classes), [places[0], places[other]]):
            here = losses(np.concatenate([tries, mirrored]), classes[0])
            there = losses(np.concatenate([mirrored, tries]), classes[other])
            size = np.abs(here).max()
            weight = there[np.abs(here).argmax()] / here[np.abs(here).argmax()] if size else np.nan
            if weight > 0 and np.allclose(there, weight * here, rtol=near, atol=near * size):
                found.append(1.0 if abs(weight - 1) < near else float(weight))
                break
        else:
            return None
    return np.array(found, classes.dtype)


def _mirrors(
    f: Float[np.ndarray, "tries outputs"], classes: int, places: Sequence[int]
) -> Iterator[Float[np.ndarray, "tries outputs"]]:
    """Mirror images of outputs, by the places of two classes where each has an output."""
    outputs = f.shape[1]
    for first in {0, outputs - classes} if outputs >= classes else ():
        order = np.arange(outputs)
        order[[first + place for place in places]] = [first + place for place in reversed(places)]
        yield f[:, order]
    if classes == 2:
        yield 1 - f
        turned = min(outputs, MOST_TURNED)
        for signs in itertools.product((-1, 1), repeat=turned):
            yield f * np.array([*signs, *(1,) * (outputs - turned)])


@compiled
def _told(
    residual: Residual,
    f: Float[Array, "T n ..."],
    y: Float[Array, "n ..."],
    classes: Array,
    weights: Float[Array, " C"],
) -> Bool[Array, "T n"]:
    """Whether each sample's own target has less loss, by weights, than all other classes have."""

    def one(f: Array, own: Array) -> Bool[Array, ""]:
        others = jnp.any((classes != own[None]).reshape(len(classes), -1), axis=1)
        losses = jax.vmap(lambda target: residual.loss(f, target))(classes) / weights
        least = jnp.min(jnp.where(others, jnp.full_like(losses, jnp.inf), losses))
        return jnp.isfinite(least) & ~jnp.any(others & (losses <= least))

    over = lambda now: jax.lax.map(lambda pair: one(*pair), (now, y), batch_size=ROWS)  # noqa: E731
    return jax.lax.map(over, f)


def _are_classes(y: Float[Array, "n ..."], trained: Float[Array, "m ..."]) -> bool:
    """Whether targets are -1 and +1, or one-hot rows, shifted or scaled, as those of training."""
    known, rows = np.unique(np.asarray(trained)), np.asarray(y).reshape(len(y), -1)
    if len(known) != 2 or not np.isin(rows, known).all():
        return False
    if rows.shape[1] == 1:
        return known.tolist() == [-1.0, 1.0]
    largest = [np.asarray(each).reshape(len(each), -1) == known[1] for each in (trained, y)]
    return all(bool(np.all(each.sum(axis=1) == 1)) for each in largest)
