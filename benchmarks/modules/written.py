"""Modules whose forward pass is one function of their parts, so that a list of many stays short."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from entry import Entry

Forward = Callable[[Any, jax.Array], jax.Array]


class Written(eqx.Module):
    """Parts by name, and what is made of them."""

    parts: Any
    forward: Forward = eqx.field(static=True)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Evaluate at one input."""
        return self.forward(self.parts, x)


class Listing:
    """A list of modules, filled by decorating forward passes."""

    def __init__(self) -> None:
        """Start with none."""
        self.entries: list[Entry] = []

    def add(self, name: str, parts: Callable[..., Any], **facts: Any) -> Callable:
        """Add the decorated forward pass of what `parts` makes of five keys."""

        def add(forward: Forward) -> Forward:
            make = lambda key: Written(parts(*jr.split(key, 5)), forward)  # noqa: E731
            self.entries.append(Entry(name, make, **facts))
            return forward

        return add

    def whole(self, name: str, make: Callable[[jax.Array], Any], **facts: Any) -> None:
        """Add a module that is one as it is."""
        self.entries.append(Entry(name, make, **facts))


def linear(inner: int | str, out: int | str, key: jax.Array, **options: Any) -> eqx.nn.Linear:
    """A linear layer, with its key in a place that leaves lines short."""
    return eqx.nn.Linear(inner, out, key=key, **options)


def two(a: jax.Array, b: jax.Array, *_: jax.Array) -> dict[str, eqx.nn.Linear]:
    """The parts that most patterns need: two linear layers."""
    return {"a": linear(3, 5, a), "b": linear(5, "scalar", b)}


def cast(module: Any, dtype: Any = jnp.float64) -> Any:
    """The module with all its parameters in one precision, where its package mixes two."""
    one = lambda p: p.astype(dtype) if eqx.is_inexact_array(p) else p  # noqa: E731
    return jax.tree.map(one, module)
