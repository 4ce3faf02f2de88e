"""Numbers that are made whole on the way, whose derivative is zero and whose Taylor terms are not.

JAX's Taylor arithmetic takes the conversion to a type of whole numbers, or of truth values, for
linear: it converts each coefficient, where all but the first are zero. That does no harm until
numbers are made of them again.
"""

from typing import Any

import jax
import jax.numpy as jnp

#: Operations without slope that Taylor arithmetic has right.
FLAT = frozenset(
    {"stop_gradient", "floor", "ceil", "round", "sign", "is_finite"}
    | {"gt", "lt", "ge", "le", "eq", "ne", "and", "or", "not", "xor"}
)

#: Operations that take whole numbers to look something up by, and none from them.
LOOKING = frozenset({"gather", "select_n", "dynamic_slice", "dynamic_update_slice", "scatter"})


def whole_numbers(steps: Any) -> bool:
    """Whether a program computes with something made whole that depends on what it is given.

    Followed into functions, not into loops and branches, which have no Taylor arithmetic at all.
    """
    return _followed(steps, [_moves(one) for one in steps.invars])[0]


def _followed(steps: Any, given: list[bool]) -> tuple[bool, list[bool]]:
    """Whether it does, and which outputs depend on those inputs that are `given`."""
    following = {id(one) for one, follows in zip(steps.invars, given, strict=True) if follows}
    for step in steps.eqns:
        taken = [id(one) in following for one in step.invars]
        if not any(taken) or step.primitive.name in FLAT:
            continue
        whole = any(f and not _moves(one) for one, f in zip(step.invars, taken, strict=True))
        moving = any(f and _moves(one) for one, f in zip(step.invars, taken, strict=True))
        made = step.primitive.name == "convert_element_type"
        follow = [moving if _moves(one) else whole or made for one in step.outvars]
        within = _inner(step)
        looking = within or step.primitive.name in LOOKING
        if whole and not looking and any(map(_moves, step.outvars)):
            return True, []  # numbers are made of it: by a conversion, or a product into others
        for inner in within:
            if len(inner.invars) == len(taken):
                found, follow = _followed(inner, taken)
                if found:
                    return True, []
        following |= {id(one) for one, f in zip(step.outvars, follow, strict=True) if f}
    return False, [id(one) in following for one in steps.outvars]


def _inner(step: Any) -> list[Any]:
    """The programs within a step."""
    parts = jax.tree.leaves(step.params, is_leaf=lambda part: hasattr(part, "eqns"))
    programs = [getattr(part, "jaxpr", part) for part in parts]
    return [each for each in programs if hasattr(each, "eqns")]


def _moves(one: Any) -> bool:
    """Whether something has derivatives at all, by its type."""
    return jnp.issubdtype(getattr(one.aval, "dtype", bool), jnp.inexact)
