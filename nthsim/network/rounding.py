"""Numbers that are made whole on the way, whose derivative is zero and whose Taylor terms are not.

JAX's Taylor arithmetic takes the conversion to a type of whole numbers for linear: it makes each
coefficient whole, where all but the first are zero.
"""

from typing import Any

import jax
import jax.numpy as jnp


def whole_numbers(steps: Any) -> bool:
    """Whether a program makes something whole that depends on what it is given."""
    return _followed(steps, [_moves(one) for one in steps.invars])[0]


def _followed(steps: Any, given: list[bool]) -> tuple[bool, list[bool]]:
    """Whether it does, and which outputs depend on those inputs that are `given`."""
    moving = {id(one) for one, moves in zip(steps.invars, given, strict=True) if moves}
    for step in steps.eqns:
        taken = [id(one) in moving for one in step.invars]
        if not any(taken):
            continue
        if step.primitive.name == "convert_element_type" and not any(map(_moves, step.outvars)):
            return True, []
        moved = [True] * len(step.outvars)
        for inner in _inner(step):
            # A loop or a branch takes other things besides: there all may depend on it.
            each = taken if len(inner.invars) == len(taken) else [True] * len(inner.invars)
            looped = step.primitive.name in ("scan", "while")
            found, out = _followed(inner, [True] * len(each) if looped else each)
            if found:
                return True, []
            moved = out if len(out) == len(moved) and not looped else moved
        moving |= {id(one) for one, m in zip(step.outvars, moved, strict=True) if m and _moves(one)}
    return False, [id(one) in moving for one in steps.outvars]


def _inner(step: Any) -> list[Any]:
    """The programs within a step."""
    parts = jax.tree.leaves(step.params, is_leaf=lambda part: hasattr(part, "eqns"))
    programs = [getattr(part, "jaxpr", part) for part in parts]
    return [each for each in programs if hasattr(each, "eqns")]


def _moves(one: Any) -> bool:
    """Whether something has derivatives at all, by its type."""
    return jnp.issubdtype(getattr(one.aval, "dtype", bool), jnp.inexact)
