r"""Activations by name, and the constant $c_\sigma$ that normalises them."""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

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


#: Into how many pieces a unit of z is cut, one after the other until a moment changes by no more
#: than this part of it.
PIECES, SETTLED = (1, 2, 4, 8, 16, 32, 64, 128), 1e-9

#: Into how many pieces the range is cut where kinks are looked for, and the most that are found.
PIECES_OF_ALL, MOST_KINKS = 4096, 20_000

#: Numbers that an activation is asked for alone, and among so many.
SOME, MANY = np.array([-2.7, -0.9, 0.0, 0.4, 1.3, 3.1]), 1000


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
            f"`activation` must be a callable or one of {', '.join(map(repr, ACTIVATIONS))}, "
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
        ValueError: if the activation does not act elementwise, or the second moment is zero, is not
            finite, or is not settled within the twelve standard deviations that the quadrature
            covers.
    """
    sigma = resolve(activation)
    check_elementwise(sigma)
    breaks, before = np.array(kinks(sigma)), np.nan
    for pieces in PIECES:
        moment, tail, part = _moments(sigma, *gauss_legendre(12, 16, breaks, pieces=pieces))
        # The negated comparison also refuses NaN; a moment that diverges shows in the outer panels.
        if not (0 < moment < np.inf and tail <= 1e-9 * moment):
            raise ValueError(
                r"`activation` must have a finite, nonzero second moment under N(0, 1), "
                f"but its integral over |z| <= 12 is {moment:.6g}, of which {tail:.6g} at |z| > 11."
            )
        if abs(moment - before) <= part * moment:
            return 1 / moment
        before = moment
    raise ValueError(
        "`activation` must have a second moment under N(0, 1) that quadrature settles, but between "
        f"{16 * PIECES[-2]} and {16 * PIECES[-1]} nodes to a unit it still changes."
    )


def _moments(
    sigma: Callable[..., Array], nodes: np.ndarray, weights: np.ndarray
) -> tuple[float, float, float]:
    """The second moment, what of it is at |z| > 11, and by which part of it others may differ."""
    values = _values(sigma, nodes)
    with np.errstate(over="ignore", invalid="ignore"):
        masses = weights * values.astype(float) ** 2
    moment, tail = float(np.sum(masses)), float(np.sum(masses[np.abs(nodes) > 11]))
    return moment, tail, allowed(values.dtype)


def allowed(dtype: Any) -> float:
    """By how much of a moment quadratures of values in a precision may differ."""
    return max(SETTLED, 10 * float(jnp.finfo(dtype).eps))


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
    """Whether the slope of an activation jumps somewhere in |z| <= 16."""
    return bool(kinks(activation))


def kinks(activation: Callable[..., Array]) -> tuple[float, ...]:
    """Where an activation or its slope jumps in |z| <= 16, in ascending order.

    What changes between neighbours in a grid there does so between neighbours in ever finer ones.
    """
    if activation in ACTIVATIONS.values():
        return (0.0,) if activation is relu else ()
    with jax.ensure_compile_time_eval():
        now = jax.make_jaxpr(lambda z: activation(z))(jnp.zeros(3))
        held = tuple(np.asarray(array).tobytes() for array in now.consts)
    return _kinks(activation, f"{now}", held)


def check_elementwise(activation: Callable[..., Array]) -> None:
    """Refuse an activation that gives a number among others another value than alone.

    Raises:
        ValueError: if it is such a one.
    """
    if activation in ACTIVATIONS.values():
        return
    many = np.resize(SOME, MANY)
    together = _values(activation, many)
    if together.shape != many.shape:
        raise ValueError(
            "`activation` must act elementwise, "
            f"but maps an array of shape {many.shape} to one of shape {together.shape}."
        )
    size = float(np.abs(together).max(where=np.isfinite(together), initial=0.0))
    for z, value in zip(SOME, together, strict=False):
        alone = _values(activation, z[None])
        # Rounding may differ by the length of an array, and in float32.
        if not np.allclose(alone, value, rtol=1e-4, atol=1e-6 * size, equal_nan=True):
            raise ValueError(
                "`activation` must act elementwise, "
                f"but maps {z:g} to {alone[0]:.6g}, and among others to {value:.6g}."
            )


@functools.lru_cache(maxsize=256)
def _kinks(activation: Callable[..., Array], *now: object) -> tuple[float, ...]:
    """The same of an activation as it is `now`: it may read what changes."""
    del now
    low, width, pieces = np.array([-16.0137]), 32.1, PIECES_OF_ALL
    known, size = np.zeros((2, 1)), np.zeros(2)
    while width > 1e-12:
        both = _values_and_slopes(activation, low[:, None] + width * _steps(pieces))
        with np.errstate(invalid="ignore"):
            changes = np.abs(np.diff(both, axis=-1))
        changes[~np.isfinite(changes)] = 0.0
        # Half of it, where a node is at it; and rounding is no change.
        size = np.maximum(size, np.max(np.abs(both), (1, 2), where=np.isfinite(both), initial=0.0))
        kept = changes > np.maximum(0.4 * known, 1e-5 * size[:, None])[..., None]
        place, piece = np.nonzero(kept.any(axis=0))
        if pieces < PIECES_OF_ALL and len(place) > MOST_KINKS:
            return ()  # it changes as fast as this everywhere, which no kinks are to be blamed for
        width, known = width / pieces, np.where(kept, changes, np.inf)[:, place, piece]
        # A little more than the piece, at an end of which the jump may be.
        low = low[place] + width * (piece - 0.05)
        width, pieces = 1.1 * width, 32
    found = np.round(low + width / 2, 10) + 0.0  # never -0.0
    return tuple(float(z) for i, z in enumerate(found) if i == 0 or z - found[i - 1] > 1e-9)


def _values(activation: Callable[..., Array], nodes: np.ndarray) -> np.ndarray:
    """In double precision, unless the activation lowers it.

    A network may be built inside `jit` or `vmap`; its constants have to be concrete even there.
    """
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        return np.asarray(activation(jnp.asarray(nodes)))


def _steps(pieces: int) -> np.ndarray:
    return np.arange(pieces + 1) / pieces


def _values_and_slopes(activation: Callable[..., Array], z: np.ndarray) -> np.ndarray:
    """Both in double precision, even where a network is built inside `jit` or `vmap`."""
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        at = jnp.asarray(z)
        slopes = jax.grad(lambda z: jnp.sum(activation(z)))(at)
        return np.stack([np.asarray(activation(at)), np.asarray(slopes)])


def gauss_legendre(
    bound: int, order: int, breaks: Any = None, *, pieces: int = 1
) -> tuple[Any, Any]:
    """Nodes, and weights times the normal density, on panels: `pieces` between integers.

    Kinks cost no accuracy between panels. Those at zero are; others, sets of which may stand along
    the last axis of `breaks`, become ends of panels too.
    """
    ends = np.arange(-bound * pieces, bound * pieces + 1.0) / pieces
    xp = np if breaks is None else breaks.__array_namespace__()
    if breaks is not None:
        every = xp.broadcast_to(ends, (*breaks.shape[:-1], len(ends)))
        ends = xp.sort(xp.concatenate([every, xp.clip(breaks, -bound, bound)], axis=-1), axis=-1)
    points, weights = np.polynomial.legendre.leggauss(order)
    points, weights = (each.reshape(*[1] * ends.ndim, -1) for each in (points, weights))
    low, widths = ends[..., :-1, None], ends[..., 1:, None] - ends[..., :-1, None]
    nodes = low + widths * ((points + 1) / 2)
    weighted = widths * (weights / 2) * xp.exp(-(nodes**2) / 2) / np.sqrt(2 * np.pi)
    return tuple(each.reshape(*each.shape[:-2], -1) for each in (nodes, weighted))
