"""What of a module trains, and what is none of its parameters."""

import warnings
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree

#: Classes that mark what they hold as constant, by package and name; none is imported for it.
#: `parax.AbstractConstant` is what `Freeze` and `Fixed` are made of; flowjax had its `NonTrainable`
#: before paramax.
MARKS = {
    ("paramax", "NonTrainable"): "paramax.NonTrainable",
    ("flowjax", "NonTrainable"): "flowjax.wrappers.NonTrainable",
    ("parax", "AbstractConstant"): "parax.{}",
}


class TiedWeightsWarning(UserWarning):
    """One array stands in two places of a module, and is trained apart."""


def constant(node: object) -> str | None:
    """Why nothing in this part of a module trains; None where that is not so.

    What `eqx.nn.StateIndex` and `eqx.nn.State` hold is the state of a layer. What another package
    marks as constant gets no gradient by that package's own rules.
    """
    if isinstance(node, eqx.nn.StateIndex | eqx.nn.State):
        return "state of a layer, which training by gradients leaves alone"
    for kind in type(node).__mro__:
        mark = MARKS.get((kind.__module__.partition(".")[0], kind.__qualname__))
        if mark is not None:
            return f"marked as constant by {mark.format(type(node).__qualname__)}"
    return None


def is_constant(node: object) -> bool:
    """Whether nothing in this part of a module trains."""
    return constant(node) is not None


def trained(model: PyTree) -> PyTree[bool]:
    """The same tree with True for each parameter, the floating arrays that are not constant."""

    def trains(node: Any) -> Any:
        if is_constant(node):
            return jax.tree.map(lambda _: False, node)
        return eqx.is_inexact_array(node)

    return jax.tree.map(trains, model, is_leaf=is_constant)


def stopped(model: PyTree) -> PyTree:
    """The same tree with no derivative by what is constant, should it be among the parameters."""

    def stop(node: Any) -> Any:
        floating, rest = eqx.partition(node, eqx.is_inexact_array)
        return eqx.combine(jax.lax.stop_gradient(floating), rest) if is_constant(node) else node

    return jax.tree.map(stop, model, is_leaf=is_constant)


def tied(theta: PyTree) -> tuple[tuple[str, ...], ...]:
    """The paths of each array that stands in several places."""
    places: dict[int, list[str]] = {}
    for path, leaf in jax.tree.leaves_with_path(theta):
        places.setdefault(id(leaf), []).append(jax.tree_util.keystr(path))
    return tuple(tuple(paths) for paths in places.values() if len(paths) > 1)


def warn_of_tied(theta: PyTree) -> None:
    """Tell of arrays that look like one parameter and are several.

    Warns:
        TiedWeightsWarning: When one array stands in two places.
    """
    found = tied(theta)
    if found:
        (first, *others), more = found[0], len(found) - 1
        likewise = f" ({more} more likewise)" if more else ""
        warnings.warn(
            f"`model` holds one array as {first} and as {', '.join(others)}{likewise}, which are "
            "trained apart from each other, as JAX takes them for several: tie them by "
            "`eqx.nn.Shared` if they are to stay one, or copy the array.",
            TiedWeightsWarning,
            stacklevel=3,
        )
