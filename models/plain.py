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


def celu(z: Float[Array, "*shape"], alpha: float = 1.0) -> Float[Array, "*shape"]:
    r"""Return z where it is positive, else $\alpha (e^{z / \alpha} - 1)$."""
    below = jnp.where(z > 0, jnp.zeros_like(z), z)
    return jnp.where(z > 0, z, alpha * jnp.expm1(below / alpha))


def sparse_sigmoid(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return (z + 1) / 2 between 0 and 1; at its kinks the slope is 0 where JAX has 1/4."""
    rising = jnp.where(z > -1, (z + 1) / 2, jnp.zeros_like(z))
    return jnp.where(z < 1, rising, jnp.ones_like(z))


def log1mexp(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    r"""Return $\log(1 - e^{-z})$ for positive z."""
    near = z < jnp.log(2.0).astype(z.dtype)
    return jnp.where(near, jnp.log(-jnp.expm1(-z)), jnp.log1p(-jnp.exp(-z)))


def logaddexp(a: Float[Array, "*shape"], b: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    r"""Return $\log(e^a + e^b)$ of finite numbers."""
    return a + softplus(b - a)


#: Activations of JAX without Taylor coefficients, and the same functions with them.
PLAIN: Mapping[Callable[..., Array], Callable[..., Array]] = MappingProxyType(
    {
        jax.nn.celu: celu,
        jax.nn.hard_sigmoid: hard_sigmoid,
        jax.nn.hard_silu: hard_silu,
        jax.nn.log1mexp: log1mexp,
        jax.nn.log_sigmoid: log_sigmoid,
        jax.nn.mish: mish,
        jax.nn.relu: relu,
        jax.nn.relu6: relu6,
        jax.nn.softplus: softplus,
        jax.nn.sparse_sigmoid: sparse_sigmoid,
        jnp.logaddexp: logaddexp,
    }
)
