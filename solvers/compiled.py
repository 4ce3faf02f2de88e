"""Programs compiled so that they are right, and XLA's count of their work."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from nthsim.solvers.crowding import Crowding
from nthsim.solvers.xla import Traced, compiler_options, look_once

P = ParamSpec("P")
R = TypeVar("R")

crowding = Crowding()


def compiled(function: Callable[P, R], *, donate: str = "none") -> Callable[P, R]:
    """Compile a function as `equinox.filter_jit` does, by options that keep it right.

    Every program of nthsim is compiled here; without fusions where something `Traced` among its
    arguments asks for that. Within a program of somebody else it becomes a part of that one, which
    is compiled as they like: JAX knows options of whole programs only.
    """
    part = eqx.filter_jit(function, donate=donate)

    @functools.cache
    def whole(unfused: bool) -> Callable[P, R]:
        look_once()
        options = compiler_options(unfused=unfused)
        return eqx.filter_jit(function, donate=donate, compiler_options=options)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if is_staged(args, kwargs):
            look_once()
            return part(*args, **kwargs)
        crowding.relieve()
        return whole(_unfused(args, kwargs))(*args, **kwargs)

    return call


def is_traced(*trees: PyTree) -> bool:
    """Whether some array in the trees has no values yet, as within `jit`, `grad` and `vmap`."""
    leaves = jax.tree.leaves(trees)
    return any(_has_no_place(leaf) for leaf in leaves if isinstance(leaf, jax.Array))


def is_staged(*trees: PyTree) -> bool:
    """Whether what is made of these arrays becomes a part of another program.

    Within `jit` no new array has values, whatever it is made of.
    """
    return is_traced(*trees, jnp.zeros(()))


def counted(function: Callable[[PyTree], PyTree], arrays: PyTree) -> dict[str, float]:
    """XLA's count of the "flops" and "bytes accessed" of a program, which is not compiled."""
    return jax.jit(function).lower(arrays).cost_analysis() or {}


def lowers(function: Callable[..., PyTree], *shapes: PyTree) -> bool:
    """Whether a function that takes derivatives can be compiled; nothing is computed.

    That derivatives of a `custom_vjp` are taken in forward mode shows when they are lowered: JAX
    traces them without a word.
    """
    try:
        jax.jit(function).lower(*shapes)
    except (TypeError, NotImplementedError):  # of once, and of further ones
        return False
    return True


def _unfused(*trees: PyTree) -> bool:
    """Whether a program of these arguments has to be compiled without fusions."""
    found = lambda node: isinstance(node, Traced)  # noqa: E731
    return any(node.compares for node in jax.tree.leaves(trees, found) if found(node))


def _has_no_place(array: jax.Array) -> bool:
    try:
        array.devices()
    except jax.errors.ConcretizationTypeError:
        return True
    return False
