"""One module of the table: how it is built, and what it is asked at."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr

#: The inputs that each module is asked at. Three samples make every slot of K^(3) differ.
SAMPLES = 3


class Entry(NamedTuple):
    """A module by others or by us.

    `make` builds it from a key; it maps one input of `shape` to a scalar or a vector. `tokens` asks
    for whole numbers below that as inputs. `wrapper` says what we put around a package's own class,
    and `rounding` is that of the lowest precision that its forward pass computes in.
    """

    name: str
    make: Callable[[jax.Array], Any]
    shape: tuple[int, ...] = (3,)
    tokens: int = 0
    wrapper: str = ""
    rounding: float = 2.0**-52

    def model(self) -> Any:
        """The module, always the same one."""
        return self.make(jr.key(5))

    def inputs(self) -> jax.Array:
        """The inputs, always the same ones."""
        shape = (SAMPLES, *self.shape)
        if self.tokens:
            return jr.randint(jr.key(6), shape, 0, self.tokens)
        return jr.normal(jr.key(6), shape, jnp.float64)
