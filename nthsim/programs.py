"""What JAX traces of a function: its program, by which functions can be compared."""

import hashlib
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nthsim.solvers.compiled import is_traced


class Program(NamedTuple):
    """The steps of a function in words, the arrays that it holds, the shapes that it returns.

    What cannot be seen there is the function behind a derivative of its own or a callback.
    """

    words: str
    constants: list[Any]
    out: Any

    def same(self, other: "Program") -> bool:
        """Whether both compute the same."""
        pairs = zip(self.constants, other.constants, strict=False)
        return (
            self.words == other.words
            and len(self.constants) == len(other.constants)
            and all(_same(*pair) for pair in pairs)
        )

    def digest(self) -> str:
        """Letters that are others once the steps or the numbers held are."""
        found = hashlib.sha256(self.words.encode())
        for constant in self.constants:
            found.update(b"traced" if is_traced(constant) else _bytes(constant))
        return found.hexdigest()


def program(function: Callable[..., Any], *arguments: Any) -> Program:
    """Trace a function for arguments of these shapes; nothing is computed."""
    # A function made anew is traced anew, whatever JAX remembers of the one inside.
    trace = jax.make_jaxpr(lambda *each: function(*each), return_shape=True)
    traced, out = trace(*arguments)
    return Program(re.sub(r"0x[0-9a-f]+", "", str(traced)), list(_constants(traced)), out)


def _constants(traced: Any) -> Iterator[Any]:
    """The arrays held by a program and by those within it, as of a `jit`."""
    yield from traced.consts
    for step in traced.jaxpr.eqns:
        for inner in jax.tree.leaves(step.params):
            if isinstance(inner, type(traced)):
                yield from _constants(inner)


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
