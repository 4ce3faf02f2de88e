r"""The functions $\varphi_k$ that exponential integrators are made of."""

from math import factorial

import jax.numpy as jnp
from jaxtyping import Array, Float

#: Terms of the Taylor series that serves for |z| < 1; the next one is below float64's rounding.
TERMS = 20


def phi(z: Float[Array, "..."], top: int) -> list[Float[Array, "..."]]:
    r"""$\varphi_0, \dots, \varphi_{top}$ at each z, entry by entry.

    $\varphi_0(z) = e^z$ and $\varphi_{k+1}(z) = (\varphi_k(z) - 1/k!) / z$. For |z| < 1, where that
    cancels, the highest is a Taylor series and the others follow from it.
    """
    near = jnp.abs(z) < 1
    small, large = jnp.where(near, z, jnp.zeros_like(z)), jnp.where(near, jnp.ones_like(z), z)
    series = jnp.full_like(z, 1 / factorial(top + TERMS))
    for j in reversed(range(TERMS)):
        series = series * small + 1 / factorial(top + j)
    below = [series]
    for k in reversed(range(top)):
        below.append(small * below[-1] + 1 / factorial(k))
    above = [jnp.exp(large)]
    for k in range(top):
        above.append((above[-1] - 1 / factorial(k)) / large)
    return [jnp.where(near, b, a) for b, a in zip(reversed(below), above, strict=True)]
