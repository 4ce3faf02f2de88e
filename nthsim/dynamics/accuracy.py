"""The part of the points whose class the outputs tell."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from nthsim.inputs.loss import LOSSES, Residual
from nthsim.solvers.compiled import compiled, is_traced

#: Samples whose losses by all classes are evaluated at once.
ROWS = 1024


def accuracy(
    f: Float[np.ndarray, "T n ..."], y: Float[Array, "n ..."] | None, residual: Residual
) -> Float[np.ndarray, " T"] | None:
    """The part of the samples whose class the outputs tell, at each time; a tie tells none.

    The class is the sign of a single output, else the place of the largest of several; with a loss
    of one's own, for which outputs may mean something else, that whose target has the least loss.
    None where the targets `y` do not stand for the classes that the network is trained with.
    """
    trained = residual.y
    if y is None or is_traced(y, trained) or not _are_classes(y, trained):
        return None
    if residual.loss not in LOSSES.values():
        classes = np.unique(np.asarray(trained), axis=0)
        told = _told(residual, jnp.asarray(f), y, jnp.asarray(classes))
        return np.mean(np.asarray(told), axis=1)
    targets = np.asarray(y).reshape(len(y), -1)
    outputs = f.reshape(*f.shape[:2], targets.shape[1])
    if targets.shape[1] == 1:
        return np.mean((outputs * targets > 0)[..., 0], axis=1)
    right = targets == targets.max(axis=1, keepdims=True)
    others = np.where(right, -np.inf, outputs).max(axis=2)
    return np.mean(np.where(right, outputs, -np.inf).max(axis=2) > others, axis=1)


@compiled
def _told(
    residual: Residual, f: Float[Array, "T n ..."], y: Float[Array, "n ..."], classes: Array
) -> Bool[Array, "T n"]:
    """Whether each sample's own target has less loss than those of all other classes."""

    def one(f: Array, own: Array) -> Bool[Array, ""]:
        others = jnp.any((classes != own[None]).reshape(len(classes), -1), axis=1)
        losses = jax.vmap(lambda target: residual.loss(f, target))(classes)
        least = residual.loss(f, own)
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
