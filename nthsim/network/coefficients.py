"""Taylor coefficients along a path, and the operations whose rules for them are right."""

from collections.abc import Callable, Iterator, Sequence
from math import factorial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.jet import jet
from jaxtyping import PyTree

from nthsim.network.failures import kind_and_line
from nthsim.network.program import Evaluation, asked_once, program
from nthsim.network.rounding import whole_numbers

Function = Callable[[PyTree], PyTree]


def coefficients(
    function: Function, path: Sequence[PyTree], *, nested: bool = False
) -> list[PyTree]:
    r"""The coefficients $[\epsilon^j] F(\sum_i \epsilon^i \theta_i)$ for j = 0..q.

    By Taylor arithmetic, whose work grows like q², or by q nested derivatives, whose work grows
    like 3^q and which every differentiable function allows.

    Args:
        function: F, from a tree of arrays to a tree of arrays.
        path: $\theta_0, \dots, \theta_q$, trees of one structure.
        nested: Whether to nest derivatives.

    Returns:
        q + 1 trees of F's structure.
    """
    if len(path) == 1:
        return [function(path[0])]
    return _by_nesting(function, path) if nested else _by_jet(function, path)


def pulled(
    function: Callable[[PyTree, PyTree], PyTree],
    path: Sequence[PyTree],
    held: Sequence[PyTree],
    cotangents: Sequence[PyTree],
) -> list[PyTree]:
    r"""The coefficients of $(\partial F / \partial \theta)^\top c$ along a path, for j = 0..q.

    With $\phi = \langle c, F \rangle$, whose coefficient q is $\phi_q = \sum_j \langle c_{q-j}, F_j
    \rangle$, coefficient j is $\partial \phi_q / \partial \theta_{q-j}$. So Taylor arithmetic is
    transposed rather than applied to a transpose: it sees F and none of its derivatives, which JAX
    may write with what Taylor arithmetic does not get through (that of erf, from 0.12 on).

    Args:
        function: F, from two trees of arrays, $\theta$ and what is held, to a tree of arrays.
        path: $\theta_0, \dots, \theta_q$, trees of one structure.
        held: The coefficients of what moves along with $\theta$ and is not differentiated by.
        cotangents: $c_0, \dots, c_q$, trees of F's structure.

    Returns:
        q + 1 trees of the structure of $\theta$.
    """

    def along(*terms: PyTree) -> list[PyTree]:
        return coefficients(lambda at: function(*at), list(zip(terms, held, strict=True)))

    pull = jax.vjp(along, *path)[1]
    return list(reversed(pull(list(reversed(cotangents)))))


def obstacle(function: Function, theta: PyTree) -> str | None:
    """Why Taylor arithmetic fails on a function, None if it does not; nothing is computed.

    Said of the function: it "holds ..." or "makes ...".
    """
    traced = jax.make_jaxpr(function)(theta)
    try:
        jax.eval_shape(lambda at: coefficients(function, [at, at, at]), theta)
    except KeyError as error:  # the table of rules has none for this
        return f"holds an operation without Taylor arithmetic, {error.args[0]}"
    except Exception as error:  # jet raises whatever it runs into
        own = sorted(set(_with_own_derivatives(traced)))
        if own:
            return f"holds a function with a derivative of its own, {' and '.join(own)}"
        return f"holds what Taylor arithmetic fails on, {kind_and_line(error)}"
    if whole_numbers(traced.jaxpr):
        return "makes numbers whole that depend on parameters, which Taylor arithmetic gets wrong"
    return None


def _with_own_derivatives(jaxpr: Any) -> Iterator[str]:
    """The names of functions under `custom_jvp` or `custom_vjp` in a jaxpr."""
    for equation in jaxpr.jaxpr.eqns:
        inner = [a for a in jax.tree.leaves(equation.params) if isinstance(a, type(jaxpr))]
        if equation.primitive.name in ("custom_jvp_call", "custom_vjp_call"):
            yield from (one.jaxpr.debug_info.func_src_info.split(" at ")[0] for one in inner)
        else:
            for one in inner:
                yield from _with_own_derivatives(one)


def _by_jet(function: Function, path: Sequence[PyTree]) -> list[PyTree]:
    columns, tree = zip(*(jax.tree.flatten(theta) for theta in path), strict=True)
    primals, *rest = columns
    out_tree = jax.tree.structure(jax.eval_shape(function, path[0]))

    def flat(*leaves: jax.Array) -> list[jax.Array]:
        return jax.tree.leaves(function(jax.tree.unflatten(tree[0], leaves)))

    powers = tuple(map(list, zip(*rest, strict=True)))
    start, terms = jet(flat, tuple(primals), powers, factorial_scaled=False)
    later = [[term[j] for term in terms] for j in range(len(rest))]
    return [jax.tree.unflatten(out_tree, leaves) for leaves in (start, *later)]


def _by_nesting(function: Function, path: Sequence[PyTree]) -> list[PyTree]:
    if len(path) == 2:
        return list(jax.jvp(function, (path[0],), (path[1],)))

    def along(eps: jax.Array) -> PyTree:
        return jax.tree.map(lambda *terms: _horner(terms, eps), *path)

    tower = lambda eps: (function(along(eps)),)  # noqa: E731
    for _ in path[1:]:
        tower = _with_derivative(tower)
    dtype = jnp.result_type(*jax.tree.leaves(path[0]))
    derivatives = tower(jnp.zeros((), dtype))
    return [
        jax.tree.map(lambda a, j=j: a / float(factorial(j)), derivative)
        for j, derivative in enumerate(derivatives)
    ]


def _horner(terms: tuple[jax.Array, ...], eps: jax.Array) -> jax.Array:
    total = terms[-1]
    for term in terms[-2::-1]:
        total = term + eps * total
    return total


def _with_derivative(tower: Function) -> Function:
    """All that `tower` returns, and the derivative of the last of it."""

    def taller(eps: jax.Array) -> tuple[PyTree, ...]:
        values, tangents = jax.jvp(tower, (eps,), (jnp.ones_like(eps),))
        return (*values, tangents[-1])

    return taller


#: Operations of JAX whose rules were compared with nested derivatives, zero and ties included
#: (`tests/network/test_taylor_rules.py`). Among those left out are `pow`, `abs` and `rem`, which
#: are wrong in places, and whatever holds a derivative of its own.
RIGHT = frozenset(
    {"add", "add_any", "sub", "mul", "neg", "div", "dot_general", "reduce_sum", "square"}
    | {"exp", "log", "log1p", "expm1", "sin", "cos", "sinh", "cosh", "tanh", "logistic"}
    | {"erf", "erfc", "sqrt", "rsqrt", "integer_pow", "gather", "dynamic_slice"}
    | {"reshape", "transpose", "broadcast_in_dim", "squeeze", "slice", "concatenate", "pad"}
    | {"convert_element_type", "select_n", "copy", "rev", "stop_gradient"}
    | {"gt", "lt", "ge", "le", "eq", "ne", "and", "or", "not", "iota", "conv_general_dilated"}
)


@asked_once
def has_right_rules(evaluation: Evaluation) -> bool:
    """Whether a network is made of such operations alone."""
    network, theta, one = evaluation.network, evaluation.theta, evaluation.one
    return all(map(_is_right, program(network.single, theta, one).steps))


def _is_right(step: Any) -> bool:
    """Whether its rule is; what is filled in for missing entries would be in all coefficients."""
    filled = step.params.get("fill_value") if step.primitive.name == "gather" else None
    return step.primitive.name in RIGHT | {"jit", "pjit"} and (filled is None or filled == 0)
