"""Divided differences of the exponential: integrals of products of exponentials."""

from collections.abc import Sequence
from math import factorial

import jax.numpy as jnp
from jaxtyping import Array, Float

#: Terms of the series that serves where nodes span less than one; the next is below rounding.
TERMS = 15


def divided_exp(nodes: Sequence[Float[Array, "..."]]) -> Float[Array, "..."]:
    r"""$\exp[z_0, \dots, z_m]$ entry by entry, for nodes in any order, equal ones included.

    By Hermite and Genocchi, $t^m \exp[-t\lambda_0, \dots, -t\lambda_m] = \int e^{-\lambda_0 s_0}
    \cdots e^{-\lambda_m s_m}$ over all $s_i \ge 0$ that add up to t. Over the sorted nodes,
    neighbours are combined by the recursion where they span more than one, and by a series about
    their middle where that would cancel, so that the result has nearly all digits.
    """
    return _levels(_sorted(nodes))[-1][0]


def divided_exp_to_zero(
    nodes: Sequence[Float[Array, "..."]],
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """The same for nodes that are not positive, and for these and zero, at one go."""
    *_, before, last = _levels([*_sorted(nodes), jnp.zeros_like(nodes[0])])
    return before[0], last[0]


def _levels(z: list[Array]) -> list[list[Array]]:
    """The differences over each run of neighbours, first of one, at last of all."""
    levels = [[jnp.exp(node) for node in z]]
    for m in range(1, len(z)):
        before = levels[-1]
        levels.append([_combined(z[i : i + m + 1], *before[i : i + 2]) for i in range(len(z) - m)])
    return levels


def _sorted(nodes: Sequence[Array]) -> list[Array]:
    """By exchanges of neighbours, which XLA fuses with all that follows; its own sort it cannot."""
    z = list(nodes)
    for end in range(len(z) - 1, 0, -1):
        for i in range(end):
            z[i], z[i + 1] = jnp.minimum(z[i], z[i + 1]), jnp.maximum(z[i], z[i + 1])
    return z


def _combined(z: list[Array], low: Array, high: Array) -> Array:
    """The difference over all of these nodes, from those without the last and the first."""
    span = z[-1] - z[0]
    near = span < 1
    wide = (high - low) / jnp.where(near, jnp.ones_like(span), span)
    return jnp.where(near, _series(z), wide)


def _series(z: list[Array]) -> Array:
    r"""$e^c \sum_k h_k(z - c) / (k + m)!$, with complete homogeneous symmetric polynomials."""
    m, centre = len(z) - 1, (z[0] + z[-1]) / 2
    y = [jnp.clip(node - centre, -0.5, 0.5) for node in z]
    h = [jnp.ones_like(centre)] * (m + 1)  # h_k of the first node, of the first two, ...
    total = h[-1] / float(factorial(m))
    for k in range(1, TERMS):
        h[0] = y[0] * h[0]
        for j in range(1, m + 1):
            h[j] = h[j - 1] + y[j] * h[j]
        total = total + h[-1] / float(factorial(k + m))  # which passes int32
    return jnp.exp(centre) * total
