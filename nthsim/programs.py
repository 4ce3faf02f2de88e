"""What JAX traces of a function: its program, by which functions can be compared."""

import hashlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nthsim.solvers.compiled import is_traced


class Program(NamedTuple):
    """The steps of a function in words, and the arrays that it holds."""

    words: str
    constants: list[Any]

    def same(self, other: "Program") -> bool:
        """Whether both compute the same."""
        return self.words == other.words and all(map(_same, self.constants, other.constants))

    def digest(self) -> str:
        """Letters that are others once the steps or the numbers held are."""
        found = hashlib.sha256(self.words.encode())
        for constant in self.constants:
            found.update(b"traced" if is_traced(constant) else _bytes(constant))
        return found.hexdigest()


def program(function: Callable[..., Any], *arguments: Any) -> Program:
    """Trace a function for arguments of these shapes; nothing is computed."""
    # A function made anew is traced anew, whatever JAX remembers of the one inside.
    traced = jax.make_jaxpr(lambda *each: function(*each))(*arguments)
    return Program(re.sub(r"0x[0-9a-f]+", "", str(traced)), traced.consts)


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    return not is_traced(one, other) and _bytes(one) == _bytes(other)


def _bytes(constant: Any) -> bytes:
    """An array by its shape, type and numbers; random keys by what they are made of."""
    if isinstance(constant, jax.Array) and jnp.issubdtype(constant.dtype, jax.dtypes.prng_key):
        constant = jax.random.key_data(constant)
    values = np.asarray(constant)
    return f"{values.shape} {values.dtype}".encode() + values.tobytes()
