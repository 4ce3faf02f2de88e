r"""Whether Taylor arithmetic is right for the network, the parameters and the data at hand.

JAX's rules are not right everywhere: a power with a floating exponent goes by the logarithm of its
base, so that a negative or zero one gives NaN; `abs` has slope 1 at zero, where nested derivatives
have 0; a derivative that a function declares for itself is not looked at. All of it shows at
$\theta_0$, which every series is about, if every input is tried.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PyTree

from nthsim.dynamics.problem import Problem
from nthsim.network.coefficients import has_right_rules
from nthsim.network.expansion import AbstractExpansion, ThetaPath
from nthsim.network.expansion_method import ExpansionMethod
from nthsim.network.program import Evaluation
from nthsim.solvers.compiled import compiled

#: Terms of a path by nested derivatives: what order 3 takes. Nesting one more costs three times as
#: much, and the rules for higher coefficients are those for the second, applied again.
NESTED = 3


class Found(eqx.Module):
    """The coefficients of the outputs, and all but the last of a sum of their gradients."""

    f: Float[Array, "p N_first"]
    gradients: ThetaPath


def proven(problem: Problem, terms: int, *, whole: bool = False) -> Problem:
    r"""The problem with its method if that is right, else with the next that is.

    Its coefficients along a path through $\theta_0$ in a random direction of all parameters are
    compared with those by nested derivatives of the model as it is, in the same precision, for all
    training and test inputs. Where they differ by more than rounding, or either is not finite, the
    next is Taylor arithmetic all through the network, and then nested derivatives, whose `obstacle`
    says why.
    Layer by layer gradients are derivatives of what Taylor arithmetic computes, which at a tie of
    `max` is right to one order and wrong to the next: so those of more terms are compared with the
    coefficients of the gradient itself.
    Nothing is computed for a network of operations whose rules are known to be right.

    Args:
        problem: What is to be expanded.
        terms: Of the longest path that it is expanded along; order p takes p.
        whole: Whether to go all through the network, and not layer by layer.

    Raises:
        TypeError: From JAX, when the model has no forward derivatives.
    """
    way = problem.method
    if way.obstacle is not None:
        return problem
    network = problem.network.expandable(problem.theta, problem.x)
    if has_right_rules(Evaluation(network, problem.theta, problem.x[0])):
        return dataclasses.replace(problem, method=_all_through(way, None)) if whole else problem
    expected = _found(problem, _nested(way, "is its own reference"), NESTED)
    fault = _singular(problem, expected)
    if fault is None:
        ways = [way] if way.calls and not whole else []
        through = _all_through(way, "layer by layer it comes out otherwise" if ways else way.aside)
        for tried in (*ways, through):
            fault = _fault(_found(problem, tried, NESTED), expected)
            if fault is None and tried is not through and terms > NESTED:
                fault = _fault(*(_found(problem, each, terms) for each in (tried, through)))
            if fault is None:
                return dataclasses.replace(problem, method=tried)
    assert fault is not None
    return dataclasses.replace(problem, method=_nested(way, fault))


def _nested(way: ExpansionMethod, obstacle: str) -> ExpansionMethod:
    return dataclasses.replace(way, calls=(), obstacle=obstacle)


def _all_through(way: ExpansionMethod, aside: str | None) -> ExpansionMethod:
    return dataclasses.replace(way, calls=(), aside=aside)


def _found(problem: Problem, way: ExpansionMethod, terms: int) -> Found:
    theta, x = problem.theta, problem.x
    along = way.expansion(problem.network, theta, x, problem.out_shape, terms)
    return jax.tree.map(np.asarray, _evaluated(along, theta, x, problem.x_first, terms))


@compiled
def _evaluated(
    along: AbstractExpansion, theta: PyTree[Array], x: Array, x_first: Array, terms: int
) -> Found:
    leaves, structure = jax.tree.flatten(theta)
    keys = jr.split(jr.key(0), (terms - 1, len(leaves)))
    moved = [[_moved(key, leaf) for key, leaf in zip(row, leaves, strict=True)] for row in keys]
    path = (theta, *(jax.tree.unflatten(structure, term) for term in moved))

    def weights(f: Array, samples: Array) -> Array:
        """Different ones for all outputs, as a softmax's have a sum without derivative."""
        each = f[0].size
        numbers = samples[:, None] * each + jnp.arange(each)[None]
        return jnp.cos(numbers.astype(f.dtype)).reshape(f.shape)

    with jax.default_matmul_precision("highest"):  # as a run
        return Found(along.outputs(path, x_first), along.gradients(path, x, weights))


def _moved(key: Array, leaf: Array) -> Array:
    """A tenth of the size of the parameters, so that all coefficients are about as large."""
    size = 0.1 * jnp.sqrt(jnp.mean(leaf**2))
    return jnp.where(size > 0, size, jnp.full_like(size, 0.1)) * jr.normal(
        key, leaf.shape, leaf.dtype
    )


def _singular(problem: Problem, expected: Found) -> str | None:
    """What is not finite, however it is computed."""
    bad = np.argwhere(~np.isfinite(expected.f))
    if len(bad):
        order, number = bad[0]
        sample, n = number // problem.outputs_per_sample, len(problem.x)
        where = f"x[{sample}]" if sample < n else f"x_test[{sample - n}]"
        return f"has derivatives of order {order} that are not finite at {where}"
    for order, gradient in enumerate(expected.gradients, start=1):
        if not _finite(gradient):
            return f"has derivatives of order {order} that are not finite at the start"
    return None


def _fault(found: Found, expected: Found) -> str | None:
    """How two ways differ, of which the second is finite; None where they do not."""
    f = [_apart(a, b, expected.f) for a, b in zip(found.f, expected.f, strict=True)]
    pairs = zip(found.gradients, expected.gradients, strict=True)
    gradients = [_apart(a, b, expected.gradients) for a, b in pairs]
    # Half the digits are far from what rounding leaves, and far from what a wrong rule gives.
    tolerance = np.sqrt(np.finfo(expected.f.dtype).eps)
    for order, apart in [*enumerate(f), *enumerate(gradients, start=1)]:
        if not np.isfinite(apart):
            return f"has coefficients of order {order} that Taylor arithmetic gives as not finite"
        if apart > tolerance:
            return (
                f"has coefficients of order {order} that Taylor arithmetic "
                f"misses by {apart:.1g} of the largest"
            )
    return None


def _apart(found: PyTree, expected: PyTree, among: PyTree) -> float:
    """The largest difference, relative to the largest number among all coefficients."""
    pairs = zip(*map(jax.tree.leaves, (found, expected)), strict=True)
    apart = np.max([np.max(np.abs(a - b), initial=0) for a, b in pairs])
    largest = max(float(np.max(np.abs(b), initial=0)) for b in jax.tree.leaves(among))
    return float(apart) / largest if largest else float(apart)


def _finite(tree: PyTree[np.ndarray]) -> bool:
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))
