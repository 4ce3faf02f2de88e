"""The kernels of infinitely wide networks."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from nthsim.inputs.arrays import choice, finite, real
from nthsim.inputs.integers import count
from nthsim.kernels.expectations import (
    AbstractExpectation,
    Columns,
    Cross,
    Erf,
    Identity,
    Relu,
    Rows,
    Sin,
    namespace,
)
from nthsim.kernels.hermite import Hermite
from nthsim.models.activation import ACTIVATIONS, resolve, resolve_c_sigma
from nthsim.models.checks import checked_scale
from nthsim.solvers.compiled import is_staged

KINDS, KERNELS = ("fcn", "resnet"), ("ntk", "nngp")

#: The activations whose expectations are known in closed form.
CLOSED: Mapping[Callable[..., Array], AbstractExpectation] = MappingProxyType(
    {
        ACTIVATIONS[name]: expectation
        for name, expectation in {
            "erf": Erf(),
            "identity": Identity(),
            "relu": Relu(),
            "sin": Sin(),
        }.items()
    }
)


def limit_kernel(
    kind: str,
    x: ArrayLike,
    *,
    depth: int,
    activation: str | Callable[..., Array] = "tanh",
    c_sigma: float | Literal["auto"] | None = None,
    c_res: float | None = None,
    weight_scale: float = 1.0,
    readout_scale: float = 1.0,
    rates: Sequence[float] | Float[np.ndarray, " layers"] | None = None,
    x_first: ArrayLike | None = None,
    which: str = "ntk",
) -> Float[Array, "t n"]:
    r"""The kernel of an infinitely wide `FCN` or `ResNet`: its NTK, or the covariance of f.

    With $S^0 = \langle x, x' \rangle$ and expectations over centred Gaussian $(u, v)$ of covariance
    $w^2 S^{l-1}$, where w is `weight_scale` and r is `readout_scale`, the layers of an `FCN`, and
    the first one of a `ResNet`, make
    $S^l = c_\sigma E\,\sigma(u)\sigma(v)$, $D^l = c_\sigma E\,\sigma'(u)\sigma'(v)$ and
    $N^l = D^l (S^{l-1} + w^2 N^{l-1})$ from $N^0 = 0$. A residual block, with
    $\epsilon = c_\mathrm{res}/L$ and $D^l = \epsilon^2 E\,\sigma'(u)\sigma'(v)$, makes

    $$S^l = S^{l-1} + \epsilon\, (b^{l-1}(x) E\,\sigma(v) + b^{l-1}(x') E\,\sigma(u))
    + \epsilon^2 E\,\sigma(u)\sigma(v), \qquad
    N^l = N^{l-1} + D^l (S^{l-1} + w^2 N^{l-1}),$$

    where the mean drift $b^l = b^{l-1} + \epsilon E\,\sigma(u)$ from
    $b^1 = \sqrt{c_\sigma} E\,\sigma(u)$ vanishes for odd activations only. The NTK
    is $S + r^2 N$ after the last layer, and $r^2 S$ is the covariance of the outputs, which are
    Gaussian (NNGP). For vector outputs both stand between equal outputs, and there is nothing
    between others.

    The recursions are those of arXiv 1909.08156 and 2007.03714 at $w = r = 1$, but for the drift.
    Expectations are closed forms for erf, identity, relu and sin, and Hermite expansions for all
    others. It computes in float64 whatever JAX's precision is; within `jax.jit`, `jax.grad` and
    `jax.vmap`, as which it may be transformed with respect to the inputs, in JAX's default one and
    without warnings. Where relu meets itself its derivatives are those of identical points, and
    derivatives at an input of zeros are NaN but for erf, identity and sin.

    Args:
        kind: "fcn" or "resnet".
        x: Inputs of the second slot, and of the first; shape (n, d).
        depth: The number of hidden layers, at least 1.
        activation: As in the networks, and so are all scales.
        c_sigma: None stands for 1 in an `FCN`, and for "auto" in a `ResNet`.
        c_res: Of a `ResNet` only; None stands for 1.
        weight_scale: The standard deviation of hidden weights.
        readout_scale: The standard deviation of readout weights; zero is allowed.
        rates: How fast each layer trains, the readout last: depth + 1 numbers of at least 0, all
            one if left out. They are what S is multiplied by where N and the NTK take it.
        x_first: Inputs of the first slot, if they are others: test points, say.
        which: "ntk" or "nngp".

    Returns:
        Shape (n, n), or (t, n) with t points in `x_first`, in JAX's default precision.

    Raises:
        ValueError: When an argument is not as above, or moments of the activation are not finite
            or not settled by quadrature.

    Warns:
        nthsim.kernels.hermite.SlowDecayWarning: When an expansion is off by more than 1e-8.
    """
    choice("kind", kind, KINDS)
    choice("which", which, KERNELS)
    depth = count("depth", depth, 1)
    if kind == "fcn" and c_res is not None:
        raise ValueError(
            f"`c_res` must be left out for fcn, which has no residual blocks, but is {c_res!r}."
        )
    scale = checked_scale("c_res", 1.0 if c_res is None else c_res, zero_allowed=True)
    fallback = "auto" if kind == "resnet" else 1.0
    c_sigma = resolve_c_sigma(fallback if c_sigma is None else c_sigma, activation)
    w = checked_scale("weight_scale", weight_scale)
    r = checked_scale("readout_scale", readout_scale, zero_allowed=True)
    speeds = _speeds(rates, depth)
    sigma = resolve(activation)
    expectation = CLOSED[sigma] if sigma in CLOSED else Hermite.of(sigma)
    traced = is_staged(x, x_first)
    columns = _inputs("x", x, traced=traced)
    rows = columns if x_first is None else _inputs("x_first", x_first, traced=traced)
    if rows.shape[1] != columns.shape[1]:
        raise ValueError(
            f"`x_first` must hold inputs of {columns.shape[1]} numbers each, but holds such of "
            f"{rows.shape[1]}."
        )
    with jax.default_matmul_precision("highest"):
        layer = _Layer.of_inputs(rows, columns, joined=x_first is None)
        for i in range(depth):
            if i and kind == "resnet":
                layer = layer.block(expectation, scale / depth, w, speeds[i])
            else:
                layer = layer.plain(expectation, c_sigma, w, speeds[i])
    ntk = speeds[-1] * layer.cross + r**2 * layer.gradients
    found = ntk if which == "ntk" else r**2 * layer.cross
    return jnp.asarray(found, jnp.result_type(float))


class _Layer(eqx.Module):
    """What is known after some layers: S of all pairs and of each point, drifts, and N.

    Where rows and columns are the same points, `joined`, the diagonal of S stays exact.
    """

    cross: Cross
    rows: Rows
    columns: Columns
    drift_rows: Rows
    drift_columns: Columns
    gradients: Cross
    joined: bool

    @staticmethod
    def of_inputs(
        rows: Float[np.ndarray | Array, "t d"],
        columns: Float[np.ndarray | Array, "n d"],
        *,
        joined: bool,
    ) -> "_Layer":
        """Before the first layer."""
        xp = namespace(rows)
        cross = rows @ columns.T
        return _Layer(
            cross=cross,
            rows=xp.sum(rows**2, axis=1),
            columns=xp.sum(columns**2, axis=1),
            drift_rows=xp.zeros_like(rows[:, 0]),
            drift_columns=xp.zeros_like(columns[:, 0]),
            gradients=xp.zeros_like(cross),
            joined=joined,
        )._exact()

    def plain(
        self, expectation: AbstractExpectation, c_sigma: float, w: float, rate: float
    ) -> "_Layer":
        """After one more layer of a fully connected network."""
        u, v = w**2 * self.rows, w**2 * self.columns
        values, slopes = expectation.pair(u, v, w**2 * self.cross)
        return _Layer(
            cross=c_sigma * values,
            rows=c_sigma * expectation.square(u),
            columns=c_sigma * expectation.square(v),
            drift_rows=c_sigma**0.5 * expectation.mean(u),
            drift_columns=c_sigma**0.5 * expectation.mean(v),
            gradients=c_sigma * slopes * (rate * self.cross + w**2 * self.gradients),
            joined=self.joined,
        )._exact()

    def block(self, expectation: AbstractExpectation, e: float, w: float, rate: float) -> "_Layer":
        """After one more residual block."""
        u, v = w**2 * self.rows, w**2 * self.columns
        values, slopes = expectation.pair(u, v, w**2 * self.cross)
        b, c = expectation.mean(u), expectation.mean(v)
        drifts = self.drift_rows[:, None] * c[None] + b[:, None] * self.drift_columns[None]
        return _Layer(
            cross=self.cross + e * drifts + e**2 * values,
            rows=self.rows + 2 * e * self.drift_rows * b + e**2 * expectation.square(u),
            columns=self.columns + 2 * e * self.drift_columns * c + e**2 * expectation.square(v),
            drift_rows=self.drift_rows + e * b,
            drift_columns=self.drift_columns + e * c,
            gradients=self.gradients + e**2 * slopes * (rate * self.cross + w**2 * self.gradients),
            joined=self.joined,
        )._exact()

    def _exact(self) -> "_Layer":
        """Without rounding between a point and itself, which relu's angle would magnify."""
        if not self.joined:
            return self
        xp = namespace(self.cross)
        diagonal = xp.eye(len(self.rows), dtype=bool)
        exact = xp.where(diagonal, self.rows[:, None], self.cross)
        return dataclasses.replace(self, cross=exact)


def _speeds(rates: Sequence[float] | np.ndarray | None, depth: int) -> list[float]:
    """The rate of each layer, the readout's last."""
    if rates is None:
        return [1.0] * (depth + 1)
    found = real("rates", rates)
    if found.shape != (depth + 1,) or not bool((np.isfinite(found) & (found >= 0)).all()):
        raise ValueError(
            f"`rates` must be {depth + 1} numbers of at least 0, one for each layer and the "
            f"readout, but is {rates!r}."
        )
    return np.asarray(found, float).tolist()


def _inputs(name: str, value: object, *, traced: bool) -> Float[np.ndarray | Array, "n d"]:
    array = real(name, value)
    if array.ndim != 2 or not array.size:
        raise ValueError(
            f"`{name}` must have shape (n, d) with n and d ≥ 1, but has {array.shape}."
        )
    finite(name, array)
    return jnp.asarray(array, jnp.result_type(float)) if traced else np.asarray(array, np.float64)
