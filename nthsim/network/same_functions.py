"""Functions made anew: those that are surely the same, and a hint on others."""

import functools
import types
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree

from nthsim.network.alike import Alike, mapped, nodes
from nthsim.network.function_contents import JITTED, Is, contents, in_library


def alike(model: PyTree) -> PyTree:
    """The same tree with each function of a user's code, in static fields too, as an `Alike`.

    Where it cannot be proven what a function depends on, the function itself stays.
    """
    if not nodes(model, is_made):
        return model
    places: dict[int, int] = {}

    def stand_in(function: Callable[..., Any]) -> Callable[..., Any]:
        found = contents(function)
        if found.unknown:
            return function
        return Alike(function, found.known, places.setdefault(id(function), len(places)))

    return mapped(stand_in, is_made, model)


def is_made(node: object) -> bool:
    """Whether this may be made anew each time: a function of Python, or one with arguments set."""
    own = isinstance(node, types.FunctionType) and not in_library(node)
    return own or type(node) is functools.partial


#: Kinds of functions that are remembered.
MOST = 256

#: What makes a function of another one, and has no more to tell of it.
WRAPPED = (JITTED, jax.custom_jvp, jax.custom_vjp)


#: Where functions were written and what they are part of, and the shapes that they came with.
Key = tuple[Hashable, Hashable]


class RecompilationWarning(UserWarning):
    """Programs are compiled again for a function that was made anew."""


#: The functions that came last, by where they were written and with which shapes they came.
_last: OrderedDict[Key, set[Hashable]] = OrderedDict()
_told: set[Hashable] = set()


def hint(name: str, tree: PyTree) -> None:
    """Tell once if functions in a tree were made anew since one of equal shapes came last.

    Functions that are surely the same, which `Alike` makes equal, are none of them.
    """
    arrays = jax.tree.leaves(eqx.filter(tree, eqx.is_array))
    shapes = tuple((array.shape, array.dtype) for array in arrays)
    found: dict[Key, set[Hashable]] = {}
    reasons: dict[Key, str] = {}
    for function in nodes(tree, _may_be_new):
        reason = _reason(function)
        if reason is not None:
            key = ((name, _origin(function)), shapes)
            found.setdefault(key, set()).add(_token(function))
            reasons[key] = f"{_place(function)}, {reason}"
    for key, tokens in found.items():
        before = _last.pop(key, tokens)
        _last[key] = tokens
        if len(_last) > MOST:
            _last.popitem(last=False)
        if not tokens & before and key[0] not in _told:
            _told.add(key[0])
            warnings.warn(
                f"`{name}` holds a function that was made anew, {reasons[key]}, so that all is "
                "compiled again and stays in memory: make it once, outside of loops, or make what "
                "it holds a field of an Equinox module.",
                RecompilationWarning,
                stacklevel=3,
            )


def _may_be_new(node: object) -> bool:
    made = is_made(node) or isinstance(node, types.MethodType)
    return made or (isinstance(node, WRAPPED) and not in_library(node))


def _reason(function: Any) -> str | None:
    """Why a function may not be told to be the same as another; None where it may."""
    if not is_made(function):
        return "which equals no other"
    held = contents(function)
    names = [name for name in dict.fromkeys((*held.unknown, *held.arrays)) if name]
    return f"which depends on {', '.join(names)}" if held.unknown or held.arrays else None


def _origin(function: Any) -> Hashable:
    """Where a function was written, as far as one can see."""
    if isinstance(function, types.FunctionType):
        return function.__code__
    inner = {functools.partial: "func", types.MethodType: "__func__"}
    name = inner.get(type(function), "__wrapped__")
    wrapped = getattr(function, name, None)
    return type(function) if wrapped is None else _origin(wrapped)


def _token(function: Any) -> Hashable:
    """What is equal for functions that one program serves, which keeps them where it does not."""
    if is_made(function):
        held = contents(function)
        if not held.unknown:
            return hash(held.known)
    return Is(function.__self__ if isinstance(function, types.MethodType) else function)


def _place(function: Any) -> str:
    """The name of a function, and where it was written."""
    code = _origin(function)
    if isinstance(code, types.CodeType):
        return f"{code.co_qualname} at line {code.co_firstlineno} of {code.co_filename}"
    return str(function)
