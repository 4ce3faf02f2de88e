r"""Activations of JAX without Taylor coefficients, written with operations that have them.

JAX gives these a derivative of their own, which Taylor arithmetic does not get through, or makes
them of an operation whose rule fails (`min` and `max` of an array and a number, before 0.12). Each
is the same function with the same slope everywhere, kinks included; unless said otherwise.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def relu(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return `z` where it is positive, else zero."""
    return jnp.where(z > 0, z, jnp.zeros_like(z))


def relu6(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return `z` between 0 and 6, else the nearer of the two."""
    return jnp.where(z < 6, relu(z), jnp.full_like(z, 6))


def hard_sigmoid(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return relu6(z + 3) / 6."""
    return relu6(z + 3) / 6


def hard_silu(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return z relu6(z + 3) / 6, also known as hard swish."""
    return z * hard_sigmoid(z)


def softplus(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    r"""Return $\log(1 + e^z)$."""
    magnitude = jnp.where(z > 0, z, -z)
    return relu(z) + jnp.log1p(jnp.exp(-magnitude))


def log_sigmoid(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    r"""Return $-\log(1 + e^{-z})$."""
    return -softplus(-z)


def mish(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    r"""Return $z \tanh \log(1 + e^z)$."""
    return z * jnp.tanh(softplus(z))


def logaddexp(a: Float[Array, "*shape"], b: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    r"""Return $\log(e^a + e^b)$ of finite numbers."""
    return a + softplus(b - a)


#: Activations of JAX without Taylor coefficients, and the same functions with them.
PLAIN: Mapping[Callable[..., Array], Callable[..., Array]] = MappingProxyType(
    {
        jax.nn.hard_sigmoid: hard_sigmoid,
        jax.nn.hard_silu: hard_silu,
        jax.nn.log_sigmoid: log_sigmoid,
        jax.nn.mish: mish,
        jax.nn.relu: relu,
        jax.nn.relu6: relu6,
        jax.nn.softplus: softplus,
        jnp.logaddexp: logaddexp,
    }
)
