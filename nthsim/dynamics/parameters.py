"""What of a module trains, array by array, and what does not and why."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, PyTree, Real

from nthsim.inputs.arrays import finite, real
from nthsim.network.cast import in_precision
from nthsim.network.network import Network, output_shape, precision
from nthsim.network.rates import listed, placed
from nthsim.network.split import split
from nthsim.network.trained import constant, is_constant, tied, trained
from nthsim.results.terminal import table, wrapped


class Part(eqx.Module):
    """One array of a module, by the path to it, and what is to be said of it."""

    path: str
    shape: tuple[int, ...]
    size: int
    note: str = ""

    def row(self) -> list[str]:
        """Its cells in the table."""
        return [self.path, " x ".join(map(str, self.shape)) or "scalar", f"{self.size:,}"]


class Parameters(eqx.Module):
    """The parameters of a model, `trained`, and what is none of them, `left`; print it for both.

    Each of `tied` are the paths of one array, which are trained apart all the same.
    """

    precision: str
    trained: tuple[Part, ...]
    left: tuple[Part, ...]
    tied: tuple[tuple[str, ...], ...]

    @property
    def total(self) -> int:
        """The number of parameters P."""
        return sum(part.size for part in self.trained)

    def __str__(self) -> str:
        """What trains, as a table; what does not, and why."""
        rows = [["trains", "shape", "size"], *(part.row() for part in self.trained)]
        rows += [["P", "", f"{self.total:,}"]]
        lines = [table(rows), f"all in {self.precision}"]
        lines += [wrapped(f"{part.path}: {part.note}") for part in self.trained if part.note]
        for first, *others in self.tied:
            told = f"{first}: the same array as {', '.join(others)}, but trained apart from it"
            lines.append(wrapped(f"{told}; eqx.nn.Shared ties them"))
        if not self.left:
            return "\n".join([*lines, "", "everything else is no array"])
        lines += ["", "does not train:"]
        for part in self.left:
            shape = " x ".join(map(str, part.shape)) or "scalar"
            lines.append(wrapped(f"{part.path} ({shape}): {part.note}"))
        return "\n".join(lines)


def parameters(
    model: PyTree, x: Real[Array, "n ..."] | None = None, *, rates: PyTree = None
) -> Parameters:
    """List what of a model trains, and what does not and why.

    All real floating arrays of a module train, NumPy's too, as in Equinox, but for the state of
    layers and for what paramax, parax or flowjax mark as constant.

    Args:
        model: Any Equinox module that maps one input to a scalar or a vector.
        x: Inputs, shape (n, ...), if it is to be told which parameters no gradient reaches there.
        rates: As in `nthsim.gradient_flow`.

    Raises:
        ValueError: When an argument is not as above.

    Warns:
        nthsim.network.trained.TiedWeightsWarning: When one array stands in two places.
    """
    network, theta = split(model, rates)
    reached = None if x is None else _reached(network, theta, x)
    known = listed(rates, model)
    speeds = jax.tree.map(lambda _: 1.0, model) if known is None else placed(known, model)
    moving = jax.tree.map(lambda trains, rate: trains and rate != 0, trained(model), speeds)
    own, rest = eqx.partition(model, moving)
    still = eqx.filter(rest, trained(model))
    parts, fast = [], iter(jax.tree.leaves(eqx.filter(speeds, moving)))
    for i, (path, leaf) in enumerate(jax.tree.leaves_with_path(own)):
        note = "a NumPy array, which trains as any other" if isinstance(leaf, np.ndarray) else ""
        if isinstance(leaf, np.generic):
            note = "a number of NumPy's, which trains as an array does; Python's would not"
        if reached is not None and not reached[i]:
            note = "no gradient reaches it at these inputs, so that it does not move"
        rate = next(fast)
        note = "; ".join(part for part in (f"rate {rate:g}" if rate != 1 else "", note) if part)
        parts.append(Part(jax.tree_util.keystr(path), leaf.shape, leaf.size, note))
    others = eqx.filter(rest, jax.tree.map(lambda trains: not trains, trained(model)))
    left = (*_still(still), *_kept(others), *_static("", model))
    return Parameters(precision(theta).name, tuple(parts), left, tied(own))


def _reached(network: Network, theta: PyTree[Array], x: Any) -> list[bool]:
    """Whether a gradient reaches each parameter, by outputs that are summed with random weights."""
    points = real("x", x)
    finite("x", points)
    points = in_precision(network, theta, jnp.asarray(points))
    shape = (len(points), *output_shape(network, theta, points))
    weights = jr.normal(jr.key(0), shape, precision(theta))
    pulled = jax.grad(lambda theta: jnp.sum(weights * network(theta, points)))(theta)
    return [bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(pulled)]


def _still(tree: PyTree) -> list[Part]:
    """What would train at another rate."""
    found = jax.tree.leaves_with_path(tree)
    return [Part(jax.tree_util.keystr(path), a.shape, a.size, "its rate is 0") for path, a in found]


def _kept(tree: PyTree) -> list[Part]:
    """The arrays and numbers that are no parameters, with the reason for each."""
    found = []
    for path, node in jax.tree.leaves_with_path(tree, is_leaf=is_constant):
        reason = constant(node)
        for inner, leaf in jax.tree.leaves_with_path(node):
            note = reason or _reason(leaf)
            if note is not None and not callable(leaf):
                shape = tuple(np.shape(leaf)) if not _is_array(leaf) else leaf.shape
                name = jax.tree_util.keystr((*path, *inner))
                found.append(Part(name, shape, int(np.prod(shape)), note))
    return found


def _reason(leaf: object) -> str | None:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return "a shape without numbers"
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return "a random key"
    if _is_array(leaf):
        return f"an array of {leaf.dtype.name}"  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(leaf, float | complex):
        return "a number of Python; as a jax.numpy array it would train"
    return None


def _is_array(leaf: object) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct)


def _static(path: str, node: Any) -> list[Part]:
    """The arrays in static fields of the modules in a tree."""
    found = []
    if isinstance(node, eqx.Module):
        for field in dataclasses.fields(node):
            value = vars(node).get(field.name)
            name = f"{path}.{field.name}"
            if not field.metadata.get("static", False):
                found += _static(name, value)
            elif isinstance(value, jax.Array | np.ndarray):
                found.append(Part(name, value.shape, value.size, "in a static field"))
        return found
    ends = lambda one: one is not node and isinstance(one, eqx.Module)  # noqa: E731
    for inner, one in jax.tree.leaves_with_path(node, is_leaf=ends):
        if isinstance(one, eqx.Module):
            found += _static(f"{path}{jax.tree_util.keystr(inner)}", one)
    return found
