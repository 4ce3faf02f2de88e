"""Whether a function's derivatives hang on numbers being equal that a compiler may round apart.

XLA computes a number anew wherever it is taken, rounded otherwise where a product and a sum become
one instruction: `solvers/xla`. Where two such copies are compared, or their difference with zero,
what is equal comes out as different.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.extend.core import Literal
from jaxtyping import PyTree

COMPARISONS = frozenset({"eq", "ne", "lt", "le", "gt", "ge"})

#: What cuts off numbers at others, which may be constants.
CAPS = frozenset({"max", "min", "clamp"})

#: What returns some of the numbers that it is given.
SELECTIONS = frozenset(
    {"reduce_max", "reduce_min", "argmax", "argmin", "cummax", "cummin", "sort", "top_k"}
    | {"approx_top_k", "scatter_max", "scatter_min", "scatter-max", "scatter-min"}
    | {"reduce_window_max", "reduce_window_min", "reduce_window", "select_and_scatter_add"}
    | {"select_and_gather_add", "select_and_scatter"}
)

#: What jumps at some numbers; conversions to whole numbers do too.
STEPS = frozenset({"sign", "floor", "ceil", "round", "rem"})

#: What moves numbers and leaves them as they are.
MOVES = frozenset(
    {"broadcast_in_dim", "reshape", "transpose", "squeeze", "expand_dims", "slice", "rev", "copy"}
    | {"dynamic_slice", "gather", "stop_gradient", "reduce_precision", "neg"}
)

#: Sums of products with weights, of which nothing is known any more.
CONTRACTIONS = frozenset({"dot_general", "conv_general_dilated"})

#: Where comparisons may come from, in a function or in derivatives of it.
SOURCES = COMPARISONS | CAPS | SELECTIONS | STEPS | {"abs"}


#: Where numbers are: in a program, in memory, or nowhere before they are computed.
CONSTANT, IN_MEMORY, COMPUTED = 0, 1, 2

#: That copies of a number may differ, or of its exponential.
SAME, EXP = 2, 1


class Known(NamedTuple):
    """What is known of an array: `where` it is, and whether `copies` of its numbers may differ.

    The latter are what was selected among numbers, and differences of a number from itself, SAME;
    what is made of them stays so up to a contraction. Their exponentials, EXP, become others once
    they are summed, as in a softmax. A `mask` was made of whole numbers, and a product with one
    selects. Arrays of one `root` hold the same numbers, moved, up to what their places are.
    """

    where: int
    copies: int
    mask: bool
    root: tuple[int, int]

    @property
    def computed(self) -> bool:
        """Whether it may be computed anew wherever it is taken."""
        return self.where == COMPUTED


def compares(traced: Any, function: Callable[..., Any], moving: PyTree, *fixed: PyTree) -> bool:
    """Whether second derivatives of a function by what moves compare copies of numbers.

    `traced` is the function's own program. What is `fixed` lies in memory, as data do.
    """
    if not any(map(_may_compare, equations_of(traced.jaxpr, type(traced)))):
        return False
    shapes = lambda tree: jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), tree)  # noqa: E731
    moving, fixed = shapes(moving), shapes(fixed)
    for twice in (_pushed, _pulled):
        try:
            found = jax.make_jaxpr(functools.partial(twice, function))(moving, *fixed)
        except Exception:  # whatever has no such derivatives, as of a `custom_vjp`
            continue
        given = [COMPUTED for _ in jax.tree.leaves(moving)]
        given += [IN_MEMORY for _ in jax.tree.leaves(fixed)]
        return _Reader(type(found)).found(found.jaxpr, given)
    return True


def _pushed(function: Callable[..., Any], moving: PyTree, *fixed: PyTree) -> Any:
    """The second derivative along what moves itself, forwards."""

    def once(moving: PyTree) -> Any:
        return jax.jvp(lambda moving: function(moving, *fixed), (moving,), (moving,))

    return jax.jvp(once, (moving,), (moving,))


def _pulled(function: Callable[..., Any], moving: PyTree, *fixed: PyTree) -> Any:
    """The gradient of a gradient."""

    def total(tree: PyTree) -> Any:
        return sum(
            jnp.sum(leaf) for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))
        )

    once = jax.grad(lambda moving: total(function(moving, *fixed)))
    return once(moving), jax.grad(lambda moving: total(once(moving)))(moving)


def equations_of(steps: Any, closed: type) -> Iterator[Any]:
    """The steps of a program and of those within it, `closed` or not, that it needs; last first."""
    for step, inner in _needed(steps, closed):
        yield step
        for each in inner:
            yield from equations_of(each, closed)


def _needed(steps: Any, closed: type) -> Iterator[tuple[Any, list[Any]]]:
    """The steps that a program needs, last first, and the programs within each."""
    needed = set(map(id, steps.outvars))
    for step in reversed(steps.eqns):
        if not (step.effects or needed.intersection(map(id, step.outvars))):
            continue
        needed.update(map(id, step.invars))
        parts = jax.tree.leaves(step.params)
        inner = [part.jaxpr if isinstance(part, closed) else part for part in parts]
        yield step, [each for each in inner if isinstance(each, type(steps))]


def rounds(step: Any) -> bool:
    """Whether a step makes numbers whole."""
    if step.primitive.name != "convert_element_type":
        return False
    before, after = step.invars[0].aval.dtype, step.outvars[0].aval.dtype
    return jnp.issubdtype(before, jnp.inexact) and not jnp.issubdtype(after, jnp.inexact)


class _Reader:
    """Reads a program from its first step to its last, and those within it."""

    def __init__(self, closed: type) -> None:
        """`closed` is the type of programs with constants of their own."""
        self._closed, self._told = closed, False
        self._roots: dict[Any, int] = {}

    def found(self, steps: Any, where: Sequence[int]) -> bool:
        """Whether copies are compared somewhere, given where the inputs are."""
        self._read(steps, [self._fresh(each, copies=0) for each in where])
        return self._told

    def _fresh(self, where: int, *, copies: int) -> Known:
        return Known(where, copies, False, self._root(object()))

    def _root(self, what: Any) -> tuple[int, int]:
        """The same for the same steps of the same arrays, wherever in these."""
        return self._roots.setdefault(what, len(self._roots)), 1

    def _read(self, steps: Any, given: Sequence[Known]) -> list[Known]:
        known: dict[int, Known] = dict(zip(map(id, steps.invars), given, strict=True))

        def at(one: Any) -> Known:
            literal = (str(one.aval), repr(one.val)) if isinstance(one, Literal) else id(one)
            found = None if isinstance(one, Literal) else known.get(id(one))
            return found or Known(CONSTANT, 0, False, self._root(literal))

        capped: dict[int, set[int]] = {}
        inside = {id(step): inner for step, inner in _needed(steps, self._closed)}
        for step in steps.eqns:
            if id(step) not in inside:
                continue
            sides = [at(one) for one in step.invars]
            if step.primitive.name in CAPS and not all(side.computed for side in sides):
                capped |= {id(out): set(map(id, step.invars)) for out in step.outvars}
            if _floating(step):
                self._told |= _told(step, sides, capped)
            inner = inside[id(step)]
            outs = self._within(step, inner, sides) if inner else self._after(step, sides)
            known |= dict(zip(map(id, step.outvars), outs, strict=True))
        return [at(one) for one in steps.outvars]

    def _after(self, step: Any, sides: list[Known]) -> list[Known]:
        """What is known of the results of a step."""
        name, where = step.primitive.name, max((side.where for side in sides), default=CONSTANT)
        if name in MOVES and sides:
            first, sign = sides[0], -1 if name == "neg" else 1
            root = first.root[0], sign * first.root[1]
            return [first._replace(where=where, root=root)] * len(step.outvars)
        exact = not _fraction(step.invars[0]) if sides else True
        if where == IN_MEMORY and not (exact or name in SELECTIONS):
            where = COMPUTED
        capped = name in CAPS and all(side.computed for side in sides)
        chosen = name == "dot_general" and any(side.computed and side.mask for side in sides)
        copies = max((side.copies for side in sides), default=0)
        if name in SELECTIONS or capped or chosen or _from_itself(step, sides):
            copies = SAME
        elif name == "exp":
            copies = min(copies, EXP)
        elif name in CONTRACTIONS or (name == "reduce_sum" and copies == EXP):
            copies = 0
        mask = exact or (name == "mul" and all(side.mask for side in sides))
        copies *= where == COMPUTED
        roots = tuple(side.root for side in sides)
        key = [(name, i, roots) if roots else object() for i in range(len(step.outvars))]
        return [Known(where, copies, mask, self._root(each)) for each in key]

    def _within(self, step: Any, inner: list[Any], sides: list[Known]) -> list[Known]:
        """What is known of the results of a step that programs are a part of."""
        name, params = step.primitive.name, step.params
        if name == "scan":
            # What it scans has one more axis outside; parameters that say so change with JAX.
            apart = [
                sum(one.aval.ndim != other.aval.ndim for one, other in zip(a, b, strict=True))
                for a, b in ((step.invars, inner[0].invars), (step.outvars, inner[0].outvars))
            ]
            carry = len(step.outvars) - apart[1]
            return self._looped(inner[0], sides, len(sides) - carry - apart[0], carry)
        if name == "while":
            first, more = params["cond_nconsts"], params["body_nconsts"]
            carried = sides[first + more :]
            cond, body = (params[key].jaxpr for key in ("cond_jaxpr", "body_jaxpr"))
            outs = self._looped(body, sides[first:], more, len(carried))
            self._read(cond, [*sides[:first], *outs])
            return outs
        if name == "cond":
            ways = [self._read(each, sides[1:]) for each in inner]
            return [self._either(each) for each in zip(*ways, strict=True)]
        fits = [each for each in inner if len(each.invars) == len(sides)]
        if len(inner) == 1 and fits and len(inner[0].outvars) == len(step.outvars):
            return self._read(inner[0], sides)
        worst = max((side.copies for side in sides), default=0)
        for each in inner:  # of which one does not know what becomes of what
            self._read(each, [self._fresh(COMPUTED, copies=worst) for _ in each.invars])
        return [self._fresh(COMPUTED, copies=worst) for _ in step.outvars]

    def _looped(self, body: Any, sides: list[Known], consts: int, carry: int) -> list[Known]:
        """Once more until nothing becomes worse that is handed on."""
        while True:
            outs = self._read(body, sides)
            carried = list(zip(sides[consts : consts + carry], outs[:carry], strict=True))
            worse = [self._either(pair) for pair in carried]
            if [each[:3] for each in worse] == [each[:3] for each, _ in carried]:
                return outs
            sides = [*sides[:consts], *worse, *sides[consts + carry :]]

    def _either(self, several: Sequence[Known]) -> Known:
        """What holds of each of several."""
        where, copies = (max(each[i] for each in several) for i in range(2))
        mask = any(each.mask for each in several)
        return self._fresh(where, copies=copies)._replace(mask=mask)


def _may_compare(step: Any) -> bool:
    """Whether a step or its derivative may compare numbers."""
    name = step.primitive.name
    return name in SOURCES or name.startswith("custom_") or rounds(step)


def _told(step: Any, sides: list[Known], capped: dict[int, set[int]]) -> bool:
    """Whether a step hangs on two copies of a number being equal.

    Not by a number and the larger or smaller one of it and a constant, as the derivative of
    `jnp.maximum(x, 0)` compares: nobody has seen those lost.
    """
    name = step.primitive.name
    copies = any(side.computed and side.copies for side in sides)
    if name not in COMPARISONS:
        return copies and (name in STEPS or name == "convert_element_type")
    one, other = step.invars
    if one is other:
        return False
    itself = id(one) in capped.get(id(other), ()) or id(other) in capped.get(id(one), ())
    return copies or (all(side.computed for side in sides) and not (name == "eq" and itself))


def _from_itself(step: Any, sides: list[Known]) -> bool:
    """Whether a step takes entries of an array from others of it, or divides them by such."""
    name = step.primitive.name
    if name not in ("sub", "div", "add") or step.invars[0] is step.invars[1]:
        return False
    if not any(side.computed for side in sides):
        return False  # differences of what lies in memory are right
    (one, sign), (other, turned) = (side.root for side in sides)
    return one == other and (sign == turned) == (name != "add")


def _floating(step: Any) -> bool:
    """Whether a step is of fractions; one that converts them makes them whole."""
    if not step.invars or not _fraction(step.invars[0]):
        return False
    return step.primitive.name != "convert_element_type" or not _fraction(step.outvars[0])


def _fraction(one: Any) -> bool:
    """Whether an array is of fractions."""
    return jnp.issubdtype(getattr(one.aval, "dtype", bool), jnp.inexact)
