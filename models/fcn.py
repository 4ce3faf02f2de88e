"""The fully connected network of Huang and Yau."""

import math
from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from nthsim.models.activation import resolve, resolve_c_sigma
from nthsim.models.checks import (
    check_input_shape,
    checked_key,
    checked_out_size,
    checked_scale,
    checked_size,
)
from nthsim.models.layers import hidden_layers, readout_layer
from nthsim.models.parametrisation import AbstractParametrised, checked_parametrisation


class FCN(AbstractParametrised):
    r"""A fully connected network of $H$ hidden layers of width $m$ (arXiv 1909.08156).

    $$x^{(0)} = x, \qquad x^{(l)} = \sqrt{c_\sigma / m}\; \sigma(W^{(l)} x^{(l-1)}),
    \quad 1 \le l \le H, \qquad f(x) = a^\top x^{(H)}.$$

    The $1/\sqrt m$ stands outside $\sigma$, in the first layer too; the readout has none; there are
    no biases. Entries of $W$ have variance `weight_scale**2`, entries of $a$ are independent
    $N(0, \text{readout\_scale}^2)$. The paper has $c_\sigma = 1$. That is "ntk" parametrisation; in
    others $f$ is multiplied by a power of $m$ and layers train at `rates()` of their own, see
    `nthsim.models.parametrisation.AbstractParametrised`.

    Attributes:
        layers: The $W$, as linear layers.
        readout: The $a$, as a linear layer.
        in_size: Inputs have shape `(in_size,)`.
        width: The width $m$ of every hidden layer.
        depth: The number $H$ of hidden layers, at least 1.
        out_size: Outputs have shape `()` for `"scalar"`, else `(out_size,)`.
        activation: A name in `nthsim.models.activation.ACTIVATIONS`, or a callable acting
            elementwise.
        c_sigma: The constant $c_\sigma$; `"auto"` asks for
            `nthsim.models.activation.normalisation`, and the number is kept.
        weight_scale: The standard deviation of the entries of every $W$.
        readout_scale: The standard deviation of the entries of $a$; zero is allowed.
        init: A name in `nthsim.models.initialisation.INITIALISATIONS`, for every $W$; the
            readout is Gaussian whatever it is.
        parametrisation: "ntk", "standard", "mup" or "mean-field".
    """

    layers: tuple[eqx.nn.Linear, ...]
    readout: eqx.nn.Linear
    in_size: int = eqx.field(static=True)
    width: int = eqx.field(static=True)
    depth: int = eqx.field(static=True)
    out_size: int | Literal["scalar"] = eqx.field(static=True)
    activation: str | Callable[..., Array] = eqx.field(static=True)
    c_sigma: float = eqx.field(static=True)
    weight_scale: float = eqx.field(static=True)
    readout_scale: float = eqx.field(static=True)
    init: str = eqx.field(static=True)
    parametrisation: str = eqx.field(static=True)

    def __init__(
        self,
        in_size: int,
        width: int,
        depth: int,
        *,
        out_size: int | Literal["scalar"] = "scalar",
        activation: str | Callable[..., Array] = "tanh",
        c_sigma: float | Literal["auto"] = 1.0,
        weight_scale: float = 1.0,
        readout_scale: float = 1.0,
        init: str = "gaussian",
        parametrisation: str = "ntk",
        key: PRNGKeyArray,
    ):
        """Draw the weights, from arguments that are fields of the same names, and a `key`.

        Raises:
            ValueError: if an argument is not what the field of its name is documented to be.
        """
        hidden_key, readout_key = jr.split(checked_key(key))
        self.in_size = checked_size("in_size", in_size)
        self.width = checked_size("width", width)
        self.depth = checked_size("depth", depth)
        self.out_size = checked_out_size(out_size)
        resolve(activation)  # refuses an unknown name here, not at the first call
        self.activation = activation
        self.c_sigma = resolve_c_sigma(c_sigma, activation)
        self.weight_scale = checked_scale("weight_scale", weight_scale)
        self.readout_scale = checked_scale("readout_scale", readout_scale, zero_allowed=True)
        self.init = init
        self.parametrisation = checked_parametrisation(parametrisation)
        self.layers = hidden_layers(
            (self.in_size,) + (self.width,) * self.depth,
            init=self.init,
            scale=self.weight_scale,
            key=hidden_key,
        )
        self.readout = readout_layer(
            self.width, self.out_size, scale=self.readout_scale, key=readout_key
        )

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, "..."]:
        """Evaluate at one input; `jax.vmap` batches.

        Raises:
            ValueError: if `x` is not of shape `(in_size,)`.
        """
        check_input_shape(x.shape, self.in_size)
        sigma = resolve(self.activation)
        for layer in self.layers:
            x = math.sqrt(self.c_sigma / self.width) * sigma(layer(x))
        return self.read(x)
