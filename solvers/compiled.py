"""Programs compiled so that they are right, and XLA's count of their work."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from nthsim.solvers.xla import compiler_options, look_once

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R], *, donate: str = "none") -> Callable[P, R]:
    """Compile a function as `equinox.filter_jit` does, by options that keep it right.

    Every program of nthsim is compiled here. Within a program of somebody else it becomes a part of
    that one, which is compiled as they like: JAX knows options of whole programs only.
    """
    part = eqx.filter_jit(function, donate=donate)

    @functools.cache
    def whole() -> Callable[P, R]:
        look_once()
        return eqx.filter_jit(function, donate=donate, compiler_options=compiler_options())

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if is_traced((args, kwargs)) or is_traced(jnp.zeros(())):
            look_once()
            return part(*args, **kwargs)
        return whole()(*args, **kwargs)

    return call


def is_traced(tree: PyTree) -> bool:
    """Whether some array in a tree is an abstract one, of a program in the making."""
    return any(_has_no_place(leaf) for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array))


def counted(function: Callable[[PyTree], PyTree], arrays: PyTree) -> dict[str, float]:
    """XLA's count of the "flops" and "bytes accessed" of a program, which is not compiled."""
    return jax.jit(function).lower(arrays).cost_analysis() or {}


def _has_no_place(array: jax.Array) -> bool:
    try:
        array.devices()
    except jax.errors.ConcretizationTypeError:
        return True
    return False
