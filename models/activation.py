r"""Activations by name, and the constant $c_\sigma$ that normalises them."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nthsim.models.checks import checked_scale
from nthsim.models.plain import PLAIN, relu, softplus


def identity(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return `z`: the activation of a deep linear network."""
    return z


def gelu(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    r"""Return the exact $z\,\Phi(z)$; JAX's own default is a tanh approximation."""
    return jax.nn.gelu(z, approximate=False)


ACTIVATIONS: Mapping[str, Callable[..., Array]] = MappingProxyType(
    {
        "erf": jax.scipy.special.erf,
        "gelu": gelu,
        "identity": identity,
        "relu": relu,
        "sigmoid": jax.nn.sigmoid,
        "silu": jax.nn.silu,
        "sin": jnp.sin,
        "softplus": softplus,
        "tanh": jnp.tanh,
    }
)


def resolve(activation: str | Callable[..., Array]) -> Callable[..., Array]:
    """Look an activation up by its name in `ACTIVATIONS`; a callable stays, or is one of `PLAIN`.

    Raises:
        ValueError: if the name is unknown, or if the callable cannot be hashed, as a static field
            of a network must be.
    """
    if isinstance(activation, str) and activation in ACTIVATIONS:
        return ACTIVATIONS[activation]
    if isinstance(activation, str) or not callable(activation):
        raise ValueError(
            f"`activation` must be a callable or one of {', '.join(ACTIVATIONS)}, "
            f"but is {activation!r}."
        )
    try:
        return PLAIN.get(activation, activation)
    except TypeError:
        raise ValueError(
            "`activation` must be hashable, hence without parameters of its own, "
            f"but is {activation!r}."
        ) from None


def normalisation(activation: str | Callable[..., Array]) -> float:
    r"""Compute $c_\sigma = 1 / E_{z \sim N(0, 1)}\, \sigma(z)^2$.

    With it, the $x^{[1]} = \sqrt{c_\sigma / m}\, \sigma(W^{[1]} x)$ of arXiv 2007.03714 has norm
    one in expectation for an input of norm one.

    Raises:
        ValueError: if the second moment is zero, is not finite, or is not settled within the
            twelve standard deviations that the quadrature covers.
    """
    nodes, weights = gauss_legendre(bound=12, order=16)
    # A network may be built inside `jit` or `vmap`; this number has to be concrete even there.
    with jax.ensure_compile_time_eval():
        values = np.asarray(resolve(activation)(jnp.asarray(nodes)), dtype=np.float64)
    if values.shape != nodes.shape:
        raise ValueError(
            "`activation` must act elementwise, "
            f"but maps an array of shape {nodes.shape} to one of shape {values.shape}."
        )
    with np.errstate(over="ignore", invalid="ignore"):
        masses = weights * values**2
        moment = float(np.sum(masses))
        tail = float(np.sum(masses[np.abs(nodes) > 11]))
    # The negated comparison also refuses NaN; a moment that diverges shows in the outer panels.
    if not (0 < moment < np.inf and tail <= 1e-9 * moment):
        raise ValueError(
            r"`activation` must have a finite, nonzero second moment under N(0, 1), "
            f"but its integral over |z| <= 12 is {moment:.6g}, of which {tail:.6g} at |z| > 11."
        )
    return 1 / moment


def resolve_c_sigma(c_sigma: float | str, activation: str | Callable[..., Array]) -> float:
    """Return `c_sigma` as a number, `"auto"` standing for `normalisation(activation)`.

    Raises:
        ValueError: if `c_sigma` is neither `"auto"` nor a finite positive number.
    """
    if isinstance(c_sigma, str):
        if c_sigma != "auto":
            raise ValueError(
                f"`c_sigma` must be 'auto' or a finite positive number, but is {c_sigma!r}."
            )
        return normalisation(activation)
    return checked_scale("c_sigma", c_sigma)


def kinked(activation: Callable[..., Array]) -> bool:
    """Whether the slope of an activation jumps somewhere in |z| <= 8.

    Where it changes most between neighbours in a grid, it does so between neighbours in a grid a
    thousand times as fine.
    """

    def largest_jump(low: float, high: float) -> tuple[float, float, float]:
        nodes = np.linspace(low, high, 4001)
        with jax.ensure_compile_time_eval():
            slopes = np.asarray(jax.vmap(jax.grad(activation))(jnp.asarray(nodes)))
        jumps = np.abs(np.diff(slopes))
        i = int(np.argmax(jumps))
        # Rounding is no change.
        changed = jumps[i] > 1e-5 * np.abs(slopes).max()
        return float(nodes[i]), float(nodes[i + 1]), float(jumps[i]) if changed else 0.0

    low, high, coarse = largest_jump(-8.0, 8.0)
    return coarse > 0 and largest_jump(low, high)[2] > coarse / 2


def gauss_legendre(bound: int, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes, and weights times the normal density, on panels between neighbouring integers.

    The kinks that activations have are at zero, hence between panels, where they cost no accuracy.
    """
    points, panel_weights = np.polynomial.legendre.leggauss(order)
    nodes = (np.arange(-bound, bound)[:, None] + (points + 1) / 2).ravel()
    density = np.exp(-(nodes**2) / 2) / np.sqrt(2 * np.pi)
    return nodes, np.tile(panel_weights / 2, 2 * bound) * density
