"""Losses of one output and one target, their gradients, and where these jump."""

from collections.abc import Callable
from math import prod

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from nthsim.inputs.integers import shown
from nthsim.solvers.compiled import compiled, is_traced

Loss = Callable[[Array, Array], Array]


def squared_error(f: Float[Array, "..."], y: Float[Array, "..."]) -> Float[Array, ""]:
    r"""Half the squared distance, $\ell = \tfrac12 |f - y|^2$.

    Raises:
        ValueError: When output and target differ in shape.
    """
    _same_shape("squared_error", f, y)
    return 0.5 * jnp.sum((f - y) ** 2)


def logistic(f: Float[Array, "..."], y: Float[Array, "..."]) -> Float[Array, ""]:
    r"""Logistic loss of a scalar output for targets -1 and +1, $\ell = \log(1 + e^{-y f})$.

    Raises:
        ValueError: When output or target is not a scalar.
    """
    _same_shape("logistic", f, y)
    if f.ndim:
        raise ValueError(
            f"`logistic` must get one output per input, but gets {f.shape[0]}; "
            "use `softmax_cross_entropy`."
        )
    return jnp.logaddexp(jnp.zeros_like(f), -y * f)


def softmax_cross_entropy(f: Float[Array, "..."], y: Float[Array, "..."]) -> Float[Array, ""]:
    r"""Cross-entropy of the softmax of k outputs, $\ell = -\sum_i p_i \log \mathrm{softmax}(f)_i$.

    The target's mean is moved to 1/k first, $p = y - \bar y + 1/k$, so that one-hot targets serve
    as they are and so do centred ones, as `digits()` makes them.

    Raises:
        ValueError: When output and target differ in shape or have fewer than two entries.
    """
    _same_shape("softmax_cross_entropy", f, y)
    if f.ndim == 0 or f.shape[0] < 2:
        raise ValueError(
            "`softmax_cross_entropy` must get at least two outputs per input, but gets one; "
            "use `logistic`."
        )
    p = y - jnp.mean(y) + 1 / f.shape[0]
    return -jnp.sum(p * jax.nn.log_softmax(f))


#: The losses that the command line and saved files know by name.
LOSSES: dict[str, Loss] = {
    loss.__name__: loss for loss in (squared_error, logistic, softmax_cross_entropy)
}


def check_quadratic(loss: Loss, what: str) -> None:
    """Refuse a loss that is not the squared error.

    Raises:
        ValueError: When it is another.
    """
    if loss is not squared_error:
        raise ValueError(f"`loss` must be squared_error for {what}, but is {loss_name(loss)}.")


def loss_name(loss: Loss | str) -> str:
    """The name of a loss; one that is already a name stays."""
    return loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)


#: Probabilities below zero by less than this are so by rounding, in float32 too.
ROUNDING = 1e-5


def check_targets(loss: Loss, name: str, y: Array | None) -> None:
    """Refuse targets that one of nthsim's losses cannot mean.

    Raises:
        ValueError: The sentence names the first.
    """
    if y is None or is_traced(y):
        return
    values = np.asarray(y)
    if loss is logistic and values.ndim == 1:
        others = values[np.abs(values) != 1]
        if len(others):
            raise ValueError(
                f"`{name}` must hold only -1 and +1 for `logistic`, but holds {others[0]:g}; "
                "`Dataset.labelled`, or `labels` of a file, makes them of two classes."
            )
    if loss is not softmax_cross_entropy:
        return
    if values.ndim == 1 and not np.all(np.abs(values) == 1):
        raise ValueError(
            f"`{name}` must hold a row of probabilities per input for `softmax_cross_entropy`, but "
            "holds one number; `Dataset.labelled`, or `labels` of a file, makes rows of classes."
        )
    if values.ndim == 1:
        return  # the loss itself tells of single outputs
    p = values - values.mean(axis=1, keepdims=True) + 1 / values.shape[1]
    rows: Int[np.ndarray, " rows"] = np.flatnonzero((p < -ROUNDING).any(axis=1))
    if len(rows):
        raise ValueError(
            f"`{name}` must hold rows of probabilities for `softmax_cross_entropy`, up to a number "
            f"that is added to all of a row, but {name}[{rows[0]}] is {shown(values[rows[0]])}."
        )


class Residual(eqx.Module):
    r"""The residual $c_a = \partial \ell(f_a, y_a) / \partial f_a \,/\, n$ as a function of f.

    f may come with any shape that holds one output per sample; the result has the same. `jumps`
    says that it is known to jump somewhere; `program` tells the loss from itself before something
    changed that it reads.
    """

    loss: Loss
    y: Float[Array, " n ..."]
    out_shape: tuple[int, ...] = eqx.field(static=True)
    jumps: bool = eqx.field(static=True, default=False)
    program: str = eqx.field(static=True, default="")

    def __call__(self, f: Array, samples: Int[Array, " s"] | None = None) -> Array:
        """Evaluate at the outputs on all training inputs, or on these samples alone."""
        y = self.y if samples is None else self.y[samples]
        c = jax.vmap(jax.grad(self.loss))(f.reshape(len(y), *self.out_shape), y) / len(self.y)
        return c.reshape(f.shape)

    @compiled
    def risk(self, f: Array) -> Float[Array, ""]:
        """The mean loss, whose derivative the residual is."""
        return jnp.mean(jax.vmap(self.loss)(f.reshape(len(self.y), *self.out_shape), self.y))

    @compiled
    def means(self, f: Float[Array, "T n ..."], y: Float[Array, "n ..."]) -> Float[Array, " T"]:
        """The mean loss over any samples, at each time."""
        return jax.vmap(lambda f_t: jnp.mean(jax.vmap(self.loss)(f_t, y)))(f)

    @property
    def rough(self) -> str:
        """What keeps it from being smooth, in words; "" if nothing."""
        return "the loss's gradient jumps" if self.jumps else ""

    @property
    def mark(self) -> str:
        """What tells one loss from another of the same name: its value somewhere."""
        outputs = len(self.y) * prod(self.out_shape)
        somewhere = jnp.cos(jnp.arange(outputs, dtype=self.y.dtype))
        value = f"{float(self.risk(somewhere)):.5g} at some outputs"
        return f"{loss_name(self.loss)}, {value}, program {self.program[:12]}"


def _same_shape(name: str, f: Array, y: Array) -> None:
    if f.shape != y.shape:
        cure = ""
        if not y.ndim:
            cure = "; `Dataset.labelled` makes such targets of labels"
            cure = '; out_size="scalar" gives an output of shape ()' if f.shape == (1,) else cure
        elif (f.shape, y.shape) == ((), (1,)):
            cure = "; `y` of shape (n,) gives targets of shape ()"
        raise ValueError(
            f"`{name}` must compare outputs and targets of one shape, but the model's output has "
            f"shape {f.shape} and each target in `y` has shape {y.shape}"
            f"{cure}."
        )


#: Lines through the outputs that the gradient is followed along: so many targets, and outputs.
TARGETS, OUTPUTS = 16, 8

#: Pieces that a line is cut into, and how many of them are looked at more closely.
PIECES, CLOSER = 256, 8

#: No piece is shorter than so many roundings of the longest output.
FINEST = 100

#: Lines reach so many times as far as the largest target, or as one.
REACH = 4.0


class JumpingLossWarning(UserWarning):
    """The gradient of a loss jumps, and solutions may slide along the jump."""


def jumping(loss: Callable[[Array, Array], Array], y: Array, out_shape: tuple[int, ...]) -> bool:
    r"""Whether $\partial\ell/\partial f$ jumps where outputs near the targets move one by one.

    What changes between neighbours in a grid must change as much between neighbours in ever finer
    ones, to the rounding of the outputs. What grows there is a pole, and one that pulls outputs in
    from both sides, as that of $|f - y|^{1/2}$ does, holds them as a jump does.
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

    def followed(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        nodes = np.linspace(low, high, PIECES + 1, axis=1).astype(bases.dtype)
        found = _slopes(loss, out_shape, bases[which], targets[which], units, nodes)
        return nodes, np.asarray(found)

    start = -1.0137 * reach  # no target should be among the nodes, where a norm has no gradient
    ends = np.full(len(lines), start)
    nodes, first = followed(ends, ends + 2 * reach)
    size = np.abs(first[np.isfinite(first)]).max(initial=0.0)
    jumps = _changes(first)
    pieces = np.argsort(jumps, axis=1)[:, -CLOSER:]
    low, high, jumps = (
        np.take_along_axis(each, pieces, axis=1).reshape(-1)
        for each in (nodes[:, :-1], nodes[:, 1:], jumps)
    )
    kept = jumps > 1e-5 * size  # rounding is no change
    which, units = np.repeat(which, CLOSER), np.repeat(units, CLOSER)
    finest = FINEST * PIECES * np.finfo(bases.dtype).eps * reach
    while kept.any() and np.max(high - low) > finest:
        nodes, found = followed(low, high)
        changes = _changes(found)
        at, piece = np.arange(len(low)), np.argmax(changes, axis=1)
        finer = changes[at, piece]
        pulled = (found[at, piece] < 0) & (found[at, piece + 1] > 0)
        # Half of it, where a node is at it.
        kept &= (finer > 0.4 * jumps) & ((finer < 2 * jumps) | pulled)
        low, high, jumps = nodes[at, piece], nodes[at, piece + 1], finer
    return bool(kept.any())


@compiled
def _slopes(
    loss: Callable[[Array, Array], Array],
    out_shape: tuple[int, ...],
    bases: Float[Array | np.ndarray, "lines k"],
    targets: Float[Array | np.ndarray, "lines ..."],
    units: Array | np.ndarray,
    nodes: Float[Array | np.ndarray, "lines nodes"],
) -> Float[Array, "lines nodes"]:
    """One entry of the loss's gradient, along the line on which that output alone changes.

    None where the loss itself is no number, as that of a logarithm on its other side.
    """

    def slope(s: Array, base: Array, target: Array, unit: Array) -> Array:
        f = base.at[unit].set(s).reshape(out_shape)
        value, gradient = jax.value_and_grad(loss)(f, target)
        return jnp.where(jnp.isfinite(value), gradient.reshape(-1)[unit], jnp.nan)

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
