"""Functions in the tree of a module, and what stands for those that are made anew."""

import dataclasses
from collections.abc import Callable, Hashable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree


class Alike:
    """A function that equals every other one of the same code, with the same of all it reads.

    JAX keeps a compiled program by the functions that were traced, and a function made anew equals
    no other. In the place of a network's or a loss's own functions these make programs be found
    again; what is traced is always the function itself (`originals`). `place` tells which of
    several functions of one model it is, as a model may ask whether two of its functions are one.
    """

    def __init__(self, function: Callable[..., Any], holds: Hashable, place: int) -> None:
        """`holds` is all that the function depends on, as from `contents`."""
        self.function, self._key = function, (holds, place)
        self._hash = hash(self._key)  # of all that it holds, asked for at each call
        self.__name__ = getattr(function, "__name__", type(function).__name__)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self.function(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Alike) and self._key == other._key

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return repr(self.function)


def originals(model: PyTree) -> PyTree:
    """The same tree with the functions themselves in the place of each `Alike`."""
    return mapped(lambda node: node.function, lambda node: isinstance(node, Alike), model)


def nodes(tree: PyTree, wanted: Callable[[object], bool]) -> list[Any]:
    """All that is `wanted` in a tree, in static fields of modules too."""
    found: list[Any] = []

    def note(node: Any) -> Any:
        found.append(node)
        return node

    mapped(note, wanted, tree)
    return found


def mapped(change: Callable[[Any], Any], wanted: Callable[[object], bool], node: Any) -> Any:
    """A tree in which `change` was applied to what is `wanted`, static fields included."""
    if wanted(node):
        return change(node)
    if isinstance(node, eqx.Module):
        return _rebuilt(change, wanted, node)

    def inner(one: Any) -> Any:
        return one if one is node else mapped(change, wanted, one)

    def ends(one: Any) -> bool:
        return one is not node and (isinstance(one, eqx.Module) or wanted(one))

    return jax.tree.map(inner, node, is_leaf=ends)


def _rebuilt(
    change: Callable[[Any], Any], wanted: Callable[[object], bool], module: eqx.Module
) -> eqx.Module:
    """A copy of a module, made as JAX makes one: without its `__init__`."""
    static = {f.name for f in dataclasses.fields(module) if f.metadata.get("static", False)}
    copy = object.__new__(type(module))
    for name, value in vars(module).items():
        if name not in static:
            value = mapped(change, wanted, value)
        elif wanted(value):
            value = change(value)
        elif type(value) is tuple:
            value = tuple(change(one) if wanted(one) else one for one in value)
        object.__setattr__(copy, name, value)
    return copy
