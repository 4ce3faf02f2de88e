"""The programs that JAX traces, and questions on them that are asked once."""

import dataclasses
import functools
import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Var, jaxpr_as_fun
from jaxtyping import PyTree

from nthsim.solvers.comparisons import equations_of, rounds
from nthsim.solvers.compiled import is_traced

#: Derivatives up to this order are looked at, while functions with one of their own are in them.
DEEPEST = 2

#: How the names of steps begin that have one, and where JAX keeps its own, which do not change.
OWN, LIBRARY = ("custom_jvp", "custom_vjp"), f"{Path(jax.__file__).parent}/"

#: Where JAX makes one derivative of those that are handed to it.
HANDED = "/custom_derivatives.py"

#: What puts into words all that a function of Python depends on.
Described = Callable[[Callable[..., Any]], str]


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """The steps of a function in words, the arrays that it holds, the shapes that it returns.

    A function with a derivative of its own shows no more than its name there, so that the programs
    of such derivatives are a part of it, those of JAX's functions aside.
    """

    words: str
    constants: list[Any]
    out: Any
    traced: Any
    order: int

    @functools.cached_property
    def steps(self) -> list[Any]:
        """The steps that the outputs need, at any depth."""
        return list(equations_of(self.traced.jaxpr, type(self.traced)))

    @property
    def operations(self) -> frozenset[str]:
        """The names of all primitives."""
        return frozenset(step.primitive.name for step in self.steps)

    @property
    def promises(self) -> bool:
        """Whether some step indexes an array and says nothing on what is beyond its end."""
        return any(map(_promises, self.steps))

    @property
    def rounds(self) -> bool:
        """Whether some step makes numbers whole."""
        return any(map(rounds, self.steps))

    @functools.cached_property
    def derivatives(self) -> list["Program"]:
        """The programs of those gradients that functions have of their own."""
        deeper = filter(_is_own, self.steps if self.order < DEEPEST else [])
        found = [_derivative(step, self.traced, self.order + 1) for step in deeper]
        return [one for one in found if one is not None]

    def same(self, other: "Program", described: Described) -> bool:
        """Whether both compute the same."""
        called = [list(map(described, one.callbacks)) for one in (self, other)]
        return (
            self.words == other.words
            and called[0] == called[1]
            and _all(_same if self.order == 0 else _alike, self.constants, other.constants)
            and _all(lambda a, b: a.same(b, described), self.derivatives, other.derivatives)
        )

    @property
    def callbacks(self) -> list[Callable[..., Any]]:
        """The functions of Python that it calls, which show no more than their names."""
        parts = [part for step in self.steps for part in step.params.values()]
        found = [getattr(part, "callback_func", None) for part in parts]
        return [function for function in found if callable(function)]

    def agrees(self, other: "Program", *arguments: Any) -> bool:
        """Whether both make the same numbers of these, as if only numberings in them differ."""
        leaves = jax.tree.leaves(arguments)
        if is_traced(leaves, self.constants, other.constants):
            return False
        found = (jaxpr_as_fun(each.traced)(*leaves) for each in (self, other))
        return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(*found, strict=True))

    def digest(self, described: Described) -> str:
        """Letters that are others once the steps, the numbers held or what is called back are."""
        found = hashlib.sha256(self.words.encode())
        for constant in self.constants:
            found.update(b"traced" if is_traced(constant) else _bytes(constant))
        for derivative in self.derivatives:
            found.update(derivative.digest(described).encode())
        for function in self.callbacks:
            found.update(described(function).encode())
        return found.hexdigest()


def program(function: Callable[..., Any], *arguments: Any, order: int = 0) -> Program:
    """Trace a function for arguments of these shapes; nothing is computed.

    `order` is that of the derivative which the function is of another one.
    """
    # A function made anew is traced anew, whatever JAX remembers of the one inside.
    trace = jax.make_jaxpr(lambda *each: function(*each), return_shape=True)
    traced, out = trace(*arguments)
    words = re.sub(r"0x[0-9a-f]+", "", str(traced))
    return Program(words, list(_constants(traced)), out, traced, order)


def repeatable(
    name: str, first: Program, again: Program, described: Described, *arguments: Any
) -> str:
    """The digest of what a user handed in, of which two programs were traced.

    Where only numberings in the two differ, they agree for these arguments.

    Raises:
        ValueError: When the two compute different things.
    """
    digest = first.digest(described)
    if again.digest(described) != digest and not first.agrees(again, *arguments):
        raise ValueError(
            f"`{name}` must compute the same each time it is called, but two calls differ, as "
            "with numbers that NumPy draws at random, or what one call keeps for the next."
        )
    return digest


def _derivative(step: Any, traced: Any, order: int) -> Program | None:
    """The program of the gradient of one step; none where taking it fails."""
    inputs = [one for one in step.invars if isinstance(one, Var)]  # without numbers
    outputs = [one for one in step.outvars if type(one) is Var]  # without what is dropped
    alone = {"constvars": [], "invars": inputs, "outvars": outputs, "eqns": [step]}
    closed = traced.replace(jaxpr=traced.jaxpr.replace(**alone), consts=[])
    function = jaxpr_as_fun(closed)

    def pulled(*each: Any) -> Any:
        numbers, others = eqx.partition(each, eqx.is_inexact_array)
        found = lambda numbers: eqx.filter(  # noqa: E731
            function(*eqx.combine(numbers, others)), eqx.is_inexact_array
        )
        out, pull = jax.vjp(found, numbers)
        return pull(jax.tree.map(jnp.ones_like, out))

    shapes = (jax.ShapeDtypeStruct(each.shape, each.dtype) for each in closed.in_avals)
    try:
        return program(pulled, *shapes, order=order)
    except Exception:  # whatever a stranger's derivative raises, which is told where it is used
        return None


def _all(holds: Callable[[Any, Any], bool], some: list[Any], others: list[Any]) -> bool:
    return len(some) == len(others) and all(map(holds, some, others))


def _is_own(step: Any) -> bool:
    """Whether a step has a derivative of its own, in code that is not JAX's.

    A user may give another one to a function of JAX. Of that nothing is known where it was handed
    to `defjvps`, as JAX does itself for functions that stand under their names in `jax.nn`.
    """
    if not step.primitive.name.startswith(OWN):
        return False
    parts = [getattr(part, "jaxpr", part) for part in step.params.values()]
    known = [part.debug_info for part in parts if hasattr(part, "debug_info")]
    sources = [getattr(info, "func_src_info", None) or "" for info in known]
    if not all(LIBRARY in source for source in sources):
        return True
    if len(sources) > 1 and not any(HANDED in source for source in sources):
        return False
    named = [getattr(jax.nn, source.split(" at ")[0], None) for source in sources]
    around = any(f"{own}_call" in str(part) for part in parts for own in OWN)
    return around or not any(isinstance(one, jax.custom_jvp) for one in named)


def _constants(traced: Any) -> Iterator[Any]:
    """The arrays held by a program and by those within it, as of a `jit`."""
    yield from traced.consts
    for step in traced.jaxpr.eqns:
        for inner in jax.tree.leaves(step.params):
            if isinstance(inner, type(traced)):
                yield from _constants(inner)


def _promises(step: Any) -> bool:
    """Whether a step says nothing on what is beyond the end of an array."""
    promised = jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS
    return step.primitive.name == "gather" and step.params["mode"] == promised


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    return not is_traced(one, other) and _bytes(one) == _bytes(other)


def _alike(one: Any, other: Any) -> bool:
    """The same, or of one shape where a derivative takes what the function took when traced."""
    if is_traced(one) and is_traced(other):
        return (one.shape, one.dtype) == (other.shape, other.dtype)
    return _same(one, other)


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
