"""The residual network of Li, Luo and Yip."""

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


class ResNet(AbstractParametrised):
    r"""A residual network of $L$ hidden layers of width $m$ (arXiv 2007.03714).

    $$x^{[1]} = \sqrt{c_\sigma / m}\; \sigma(W^{[1]} x), \qquad
    x^{[l]} = x^{[l-1]} + \frac{c_\mathrm{res}}{L^\alpha \sqrt m}\; \sigma(W^{[l]} x^{[l-1]}),
    \quad 2 \le l \le L, \qquad f(x) = a^\top x^{[L]}.$$

    $c_\sigma$ normalises the first layer only. The paper has $0 < c_\mathrm{res} < 1$,
    $c_\sigma$ as from `"auto"`, standard normal weights and $\alpha = 1$. With $\alpha = 1/2$ all
    blocks together count as much at any depth (Hayou et al. 2021, arXiv 2010.12859).

    Attributes, unless listed here, are those of `nthsim.models.fcn.FCN`.

    Attributes:
        depth: The number $L$ of hidden layers, at least 1; the first is no residual block.
        c_res: The constant $c_\mathrm{res}$ of the residual blocks; zero is allowed.
        depth_exponent: The power $\alpha$ of the depth that residual blocks are divided by, at
            least 0.
        c_sigma: The constant $c_\sigma$ of the first layer.
    """

    layers: tuple[eqx.nn.Linear, ...]
    readout: eqx.nn.Linear
    in_size: int = eqx.field(static=True)
    width: int = eqx.field(static=True)
    depth: int = eqx.field(static=True)
    out_size: int | Literal["scalar"] = eqx.field(static=True)
    activation: str | Callable[..., Array] = eqx.field(static=True)
    c_res: float = eqx.field(static=True)
    depth_exponent: float = eqx.field(static=True)
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
        c_res: float = 1.0,
        depth_exponent: float = 1.0,
        c_sigma: float | Literal["auto"] = "auto",
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
        self.c_res = checked_scale("c_res", c_res, zero_allowed=True)
        self.depth_exponent = checked_scale("depth_exponent", depth_exponent, zero_allowed=True)
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
        for step in self.steps():
            x = step(x)
        return x

    def steps(self) -> tuple[Callable[[Array], Array], ...]:
        r"""What it applies one after another: what makes $x^{[1]}$, the blocks, the readout."""
        sigma, (first, *blocks) = resolve(self.activation), self.layers
        entry = math.sqrt(self.c_sigma / self.width)
        branch = self.c_res / self.depth**self.depth_exponent / math.sqrt(self.width)

        def residual(block: eqx.nn.Linear) -> Callable[[Array], Array]:
            return lambda x: x + branch * sigma(block(x))

        return (lambda x: entry * sigma(first(x)), *map(residual, blocks), self.read)
