"""The programs that JAX traces, and questions on them that are asked once."""

import functools
import hashlib
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from nthsim.solvers.compiled import is_traced


class Program(NamedTuple):
    """The steps of a function in words, the arrays that it holds, the shapes that it returns.

    `operations` are the names of all primitives in it, at any depth, and `promises` tells that some
    index an array and say nothing on what is beyond its end. What cannot be seen there is the
    function behind a derivative of its own or a callback.
    """

    words: str
    constants: list[Any]
    out: Any
    operations: frozenset[str]
    promises: bool

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
    words, constants = re.sub(r"0x[0-9a-f]+", "", str(traced)), list(_constants(traced))
    steps = list(_steps(traced.jaxpr, type(traced)))
    names = frozenset(step.primitive.name for step in steps)
    return Program(words, constants, out, names, any(map(_promises, steps)))


def _constants(traced: Any) -> Iterator[Any]:
    """The arrays held by a program and by those within it, as of a `jit`."""
    yield from traced.consts
    for step in traced.jaxpr.eqns:
        for inner in jax.tree.leaves(step.params):
            if isinstance(inner, type(traced)):
                yield from _constants(inner)


def _steps(steps: Any, closed: type) -> Iterator[Any]:
    """The steps of a program and of those within it, which are `closed` or not."""
    for step in steps.eqns:
        yield step
        for inner in jax.tree.leaves(step.params):
            if isinstance(inner, closed):
                inner = inner.jaxpr
            if isinstance(inner, type(steps)):
                yield from _steps(inner, closed)


def _promises(step: Any) -> bool:
    """Whether a step says nothing on what is beyond the end of an array."""
    promised = jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS
    return step.primitive.name == "gather" and step.params["mode"] == promised


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


T = TypeVar("T")


class Evaluation(eqx.Module):
    """A network, parameters and one input, of which the values do not count but the shapes."""

    network: Any
    theta: PyTree
    one: Any


def asked_once(question: Callable[[Evaluation], T]) -> Callable[[Evaluation], T]:
    """A question on the shapes in an evaluation, which is asked once for each of them."""
    known = functools.lru_cache(maxsize=256)(question)

    @functools.wraps(question)
    def ask(evaluation: Evaluation) -> T:
        theta, one = jax.tree.map(_described, (evaluation.theta, evaluation.one))
        shapes = Evaluation(evaluation.network, theta, one)
        try:
            hash(shapes)
        except TypeError:  # some part of a stranger's module has no hash, as arrays have none
            return question(shapes)
        return known(shapes)

    return ask


def _described(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
