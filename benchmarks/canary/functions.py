"""Functions of one number with their derivatives, in NumPy, and the same in JAX."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
from numpy.polynomial import Polynomial
from scipy.special import erf, expit

Derivatives = Callable[[np.ndarray, int], list[np.ndarray]]


def tanh(u: np.ndarray, count: int) -> list[np.ndarray]:
    """Polynomials in the value, as its slope is one: t' = 1 - t²."""
    return _polynomials(np.tanh(u), Polynomial([1.0, 0.0, -1.0]), Polynomial([0.0, 1.0]), count)


def sigmoid(u: np.ndarray, count: int) -> list[np.ndarray]:
    """Polynomials in the value: s' = s - s²."""
    return _polynomials(expit(u), Polynomial([0.0, 1.0, -1.0]), Polynomial([0.0, 1.0]), count)


def softplus(u: np.ndarray, count: int) -> list[np.ndarray]:
    """The integral of the sigmoid."""
    return [np.logaddexp(0.0, u), *sigmoid(u, count)][: count + 1]


def sin(u: np.ndarray, count: int) -> list[np.ndarray]:
    """Each derivative a quarter turn on."""
    return [np.sin(u + k * np.pi / 2) for k in range(count + 1)]


def error(u: np.ndarray, count: int) -> list[np.ndarray]:
    """A Gaussian times polynomials q' - 2uq."""
    found, q, bell = [erf(u)], Polynomial([2 / np.sqrt(np.pi)]), np.exp(-(u**2))
    for _ in range(count):
        found.append(q(u) * bell)
        q = q.deriv() - Polynomial([0.0, 2.0]) * q
    return found


def gelu(u: np.ndarray, count: int) -> list[np.ndarray]:
    """U times the normal distribution function, by the product rule."""
    r = np.sqrt(0.5)
    phi = [0.5 * r**k * e for k, e in enumerate(error(r * u, count))]
    phi[0] = phi[0] + 0.5
    return _times(u, phi)


def silu(u: np.ndarray, count: int) -> list[np.ndarray]:
    """U times the sigmoid."""
    return _times(u, sigmoid(u, count))


def relu(u: np.ndarray, count: int) -> list[np.ndarray]:
    """Without delta functions at the kink, as JAX has it."""
    return [np.maximum(u, 0.0), (u > 0) * 1.0, *[np.zeros_like(u)] * count][: count + 1]


def square(u: np.ndarray, count: int) -> list[np.ndarray]:
    """Two derivatives that are not zero."""
    return [u**2, 2 * u, np.full_like(u, 2.0), *[np.zeros_like(u)] * count][: count + 1]


def cube(u: np.ndarray, count: int) -> list[np.ndarray]:
    """Three of them."""
    rest = [np.full_like(u, 6.0), *[np.zeros_like(u)] * count]
    return [u**3, 3 * u**2, 6 * u, *rest][: count + 1]


def exponential(u: np.ndarray, count: int) -> list[np.ndarray]:
    """All the same."""
    return [np.exp(u)] * (count + 1)


def logarithm(u: np.ndarray, count: int) -> list[np.ndarray]:
    """Of positive numbers."""
    return [np.log(u), *power(-1.0)(u, count)][: count + 1]


def power(exponent: float) -> Derivatives:
    """Of positive numbers."""

    def derivatives(u: np.ndarray, count: int) -> list[np.ndarray]:
        factors = np.cumprod([1.0, *(exponent - k for k in range(count))])
        return [c * u ** (exponent - k) for k, c in enumerate(factors)]

    return derivatives


def _times(u: np.ndarray, values: list[np.ndarray]) -> list[np.ndarray]:
    return [u * v + (k * values[k - 1] if k else 0.0) for k, v in enumerate(values)]


def _polynomials(
    value: np.ndarray, slope: Polynomial, q: Polynomial, count: int
) -> list[np.ndarray]:
    found = []
    for _ in range(count + 1):
        found.append(q(value))
        q = q.deriv() * slope
    return found


#: Activations by name: as a network has them, and as the reference does.
ACTIVATIONS: Mapping[str, tuple[Callable[..., jax.Array], Derivatives]] = MappingProxyType(
    {
        "tanh": (jnp.tanh, tanh),
        "sigmoid": (jax.nn.sigmoid, sigmoid),
        "softplus": (jax.nn.softplus, softplus),
        "sin": (jnp.sin, sin),
        "erf": (jax.scipy.special.erf, error),
        "gelu": (lambda z: jax.nn.gelu(z, approximate=False), gelu),
        "silu": (jax.nn.silu, silu),
        "relu": (jax.nn.relu, relu),
        "square": (jnp.square, square),
        "cube": (lambda z: z**3, cube),
    }
)
