"""Losses of one output and one target, and their gradients."""

from collections.abc import Callable
from math import prod

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from nthsim.inputs.integers import shown
from nthsim.solvers.compiled import compiled, is_traced
from nthsim.solvers.xla import Traced

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
    program: Traced = Traced()

    def __call__(self, f: Array, samples: Int[Array, " s"] | None = None) -> Array:
        """Evaluate at the outputs on all training inputs, or on these samples alone."""
        y = self.y if samples is None else self.y[samples]
        c = jax.vmap(jax.grad(self.loss))(f.reshape(len(y), *self.out_shape), y) / len(self.y)
        return c.reshape(f.shape)

    @compiled
    def risk(self, f: Array, samples: Int[Array, " s"] | None = None) -> Float[Array, ""]:
        """The mean loss, whose derivative the residual is; or that over these samples alone."""
        y = self.y if samples is None else self.y[samples]
        return jnp.mean(jax.vmap(self.loss)(f.reshape(len(y), *self.out_shape), y))

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
        return f"{loss_name(self.loss)}, {value}, program {self.program.digest[:12]}"


class Objective(eqx.Module):
    """What training goes down as a function of parameters: the mean loss, and a penalty if any.

    Called with the numbers of samples, the mean is over those.
    """

    network: Callable[[PyTree[Array], Array], Array]
    residual: Residual
    x: Array
    penalty: Callable[[PyTree[Array]], Float[Array, ""]] | None

    def __call__(
        self, theta: PyTree[Array], samples: Int[Array, " S"] | None = None
    ) -> Float[Array, ""]:
        """Evaluate it."""
        x = self.x if samples is None else self.x[samples]
        loss = self.residual.risk(self.network(theta, x), samples)
        return loss if self.penalty is None else loss + self.penalty(theta)


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
