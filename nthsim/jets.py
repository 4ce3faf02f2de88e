r"""Quantities moved along several directions at once, to first order in each.

A jet holds one coefficient $X_S$ for each set S of directions: $X = \sum_S \varepsilon_S X_S$ with
$\varepsilon_S = \prod_{j \in S} \varepsilon_j$ and $\varepsilon_j^2 = 0$. Sets are sorted tuples.
"""

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import jax

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
