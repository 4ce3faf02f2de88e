"""The products that kernels are made of, and mixed derivatives by sets of directions."""

from collections.abc import Callable, Iterator
from functools import reduce
from itertools import combinations
from operator import add
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nthsim.kernels.block_kernel import Slots

Directions = tuple[int, ...]
Jet = dict[Directions, Any]


def subsets(S: Directions) -> Iterator[Directions]:
    """All subsets, smaller ones first."""
    for size in range(len(S) + 1):
        yield from combinations(S, size)


def splits(S: Directions) -> Iterator[tuple[Directions, Directions]]:
    r"""All pairs of sets with $A \sqcup B = S$: the coefficient of a product sums over these."""
    for A in subsets(S):
        yield A, tuple(j for j in S if j not in A)


def coefficient(f: Callable[[Any], Any], jet: Jet, S: Directions) -> Any:
    """The coefficient S of f at a jet, by one nested jvp per direction."""
    if not S:
        return f(jet[()])
    *others, last = S
    below = {A: jet[A] for A in subsets(tuple(others))}
    above = {A: jet[(*A, last)] for A in below}
    return jax.jvp(lambda at: coefficient(f, at, tuple(others)), (below,), (above,))[1]


#: A symmetric Gram matrix is cut into so many blocks of columns, of so many points at least.
BLOCKS, SMALLEST = 4, 32

Range = tuple[int, int]


def gram(signals: Jet, S: Directions, formed: tuple[bool, ...], slots: Slots) -> Array:
    r"""The coefficient S of $K^{(2)}$ on the points of two slots, of shape (N_first, N).

    On the same points only blocks on and below the diagonal are computed, the others mirrored.
    """
    first, other = slots.first_range, slots.other_range
    if S or first != other:
        return _between(signals, S, formed, first, other)
    (start, end), k = first, slots.outputs
    size = max(SMALLEST, -(-(end - start) // BLOCKS))
    columns = []
    for corner in range(start, end, size):
        block = _between(signals, S, formed, (corner, end), (corner, min(corner + size, end)))
        columns.append(jnp.pad(block, (((corner - start) * k, 0), (0, 0))))
    lower = jnp.tril(jnp.concatenate(columns, axis=1))
    return lower + jnp.tril(lower, -1).T


def _between(
    signals: Jet, S: Directions, formed: tuple[bool, ...], first: Range, other: Range
) -> Float[Array, "N_first N"]:
    r"""The coefficient S of $K^{(2)}$ on two ranges of points.

    A layer contributes $\sum_{ts} (h_t h_s^\top) \circ (\delta_t \delta_s^\top)$ over pairs of
    positions, or the product of its weight gradients where these are formed; any other parameter
    contributes the product of its gradients.
    """
    parts = []
    for i, is_formed in enumerate(formed):
        h: Jet = {A: one.h[i] for A, one in signals.items()}
        delta: Jet = {A: one.delta[i] for A, one in signals.items()}
        if is_formed:
            gradients = {A: _weight_gradient(h, delta, A) for A in subsets(S)}
            parts.append(_products(gradients, S, first, other))
        else:
            parts.append(_layer(h, delta, S, first, other))
    leaves = {A: jax.tree.leaves(one.rest) for A, one in signals.items()}
    for i, leaf in enumerate(leaves[()]):
        if not leaf.size:
            continue
        flat = {A: one[i].reshape(*leaf.shape[:2], -1) for A, one in leaves.items()}
        parts.append(_products(flat, S, first, other))
    total = reduce(add, parts)
    a, k, b, _ = total.shape
    return total.reshape(a * k, b * k)


def _layer(
    h: Jet, delta: Jet, S: Directions, first: Range, other: Range
) -> Float[Array, "a k b k"]:
    k, T = delta[()].shape[1:3]
    rows = {A: one.reshape(len(one), k * T, -1) for A, one in delta.items()}
    terms = []
    for A, B in splits(S):
        X, Y = _products(h, A, first, other), _products(rows, B, first, other)
        if T > 1:
            a, b = len(X), X.shape[2]
            terms.append(jnp.einsum("atbs,aktbls->akbl", X, Y.reshape(a, k, T, b, k, T)))
        else:
            terms.append(X * Y)
    return reduce(add, terms)


def _products(u: Jet, S: Directions, first: Range, other: Range) -> Float[Array, "a c b c"]:
    """The coefficient S of all inner products of rows of u (n, c, ...) between two ranges.

    Along a direction, on the same points, one half of the terms is the other transposed.
    """
    same = bool(S) and first == other
    terms = []
    for A, B in splits(S):
        if same and S[0] in B:
            continue
        left, right = u[A][slice(*first)], u[B][slice(*other)]
        flat = left.reshape(-1, left.shape[-1]) @ right.reshape(-1, right.shape[-1]).T
        terms.append(flat.reshape(*left.shape[:2], *right.shape[:2]))
    total = reduce(add, terms)
    return total + total.transpose(2, 3, 0, 1) if same else total


def _weight_gradient(h: Jet, delta: Jet, S: Directions) -> Float[Array, "n k weights"]:
    terms = [jnp.einsum("akto,ati->akoi", delta[A], h[B]) for A, B in splits(S)]
    whole = reduce(add, terms)
    return whole.reshape(*whole.shape[:2], -1)
