"""Which operations have Taylor arithmetic that is right at every point where it is finite."""

from collections.abc import Iterator
from typing import Any

import jax

from nthsim.evaluations import Evaluation, asked_once

#: Operations of JAX whose rules were compared with nested derivatives, zero and ties included
#: (`tests/test_taylor_rules.py`). Among those left out are `pow`, `abs` and `rem`, which are wrong
#: in places, and whatever holds a derivative of its own.
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
    traced = jax.make_jaxpr(evaluation.network.single)(evaluation.theta, evaluation.one)
    return RIGHT.issuperset(_operations(traced))


def _operations(program: Any) -> Iterator[str]:
    """The names of all operations, those within a `jit` in its place."""
    for step in program.jaxpr.eqns:
        inner = [a for a in jax.tree.leaves(step.params) if isinstance(a, type(program))]
        if step.primitive.name in ("jit", "pjit") and inner:
            for one in inner:
                yield from _operations(one)
        else:
            yield step.primitive.name
