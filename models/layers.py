"""The linear layers that networks are made of, drawn at their initial weights."""

from typing import Literal

import equinox as eqx
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from nthsim.models.initialisation import gaussian, resolve


def hidden_layers(
    sizes: tuple[int, ...], *, init: str, scale: float, key: PRNGKeyArray
) -> tuple[eqx.nn.Linear, ...]:
    """Draw the layers without bias that lead from each of `sizes` to the next.

    Entries have variance `scale**2`, whatever the `init` of `nthsim.models.initialisation`.
    """
    draw = resolve(init)
    layer_keys = jr.split(key, len(sizes) - 1)
    return tuple(
        _linear(scale * draw(layer_key, out_size, in_size), out_size)
        for layer_key, in_size, out_size in zip(layer_keys, sizes[:-1], sizes[1:], strict=True)
    )


def readout_layer(
    width: int, out_size: int | Literal["scalar"], *, scale: float, key: PRNGKeyArray
) -> eqx.nn.Linear:
    r"""Draw the readout $a$, without bias, with independent entries $N(0, \text{scale}^2)$.

    It is Gaussian whatever the hidden layers are: an orthogonal row would have a fixed norm.
    """
    rows = 1 if out_size == "scalar" else out_size
    return _linear(scale * gaussian(key, rows, width), out_size)


def _linear(
    weight: Float[Array, "out_size in_size"], out_size: int | Literal["scalar"]
) -> eqx.nn.Linear:
    # Only the shape is evaluated: Equinox's own draw of a large layer would be thrown away.
    blank = eqx.filter_eval_shape(
        lambda: eqx.nn.Linear(weight.shape[1], out_size, use_bias=False, key=jr.key(0))
    )
    return eqx.tree_at(lambda linear: linear.weight, blank, weight)
