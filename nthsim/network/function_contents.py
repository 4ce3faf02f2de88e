"""All that a Python function depends on, to be compared and in words."""

import builtins
import collections
import contextlib
import dis
import functools
import hashlib
import sys
import types
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

#: Packages whose own functions and classes are taken to stay what they are.
LIBRARIES = frozenset(
    {"jax", "jaxlib", "numpy", "equinox", "diffrax", "optimistix", "lineax", "nthsim"}
    | {"jaxtyping", "beartype", "typeguard", "inspect", "typing", "contextlib", "dataclasses"}
    | {"math", "operator", "functools", "itertools"}
)

#: Builtins whose answer depends on their arguments alone.
PURE = frozenset(
    {"abs", "all", "any", "bool", "complex", "dict", "divmod", "enumerate", "filter", "float"}
    | {"frozenset", "int", "isinstance", "len", "list", "map", "max", "min", "pow", "range"}
    | {"reversed", "round", "set", "slice", "sorted", "str", "sum", "tuple", "zip"}
    | {"TypeError", "ValueError", "True", "False", "None", "NotImplementedError"}
)

#: What `jax.jit` returns.
JITTED = type(jax.jit(lambda x: x))

#: Functions that a function may depend on before it is taken to be beyond comparison.
MOST = 500


class Contents(NamedTuple):
    """What a function depends on: functions with equal `known` and nothing `unknown` do the same.

    `unknown` are the names of what can change behind a function's back, `arrays` those of the
    arrays it holds, which `known` has by their values.
    """

    known: tuple[Hashable, ...]
    unknown: tuple[str, ...]
    arrays: tuple[str, ...]


class Names(NamedTuple):
    """Global variables and attributes by name, and whether something is imported."""

    variables: tuple[str, ...]
    attributes: tuple[str, ...]
    imports: bool


class Is:
    """An object that equals itself alone; held, so that no other one can come in its place."""

    def __init__(self, thing: object) -> None:
        self.thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Is) and self.thing is other.thing

    def __hash__(self) -> int:
        return id(self.thing)


class Scope(Is):
    """The global variables that a function looks its own up in."""


def contents(function: Callable[..., Any]) -> Contents:
    """All that a Python function or a `functools.partial` depends on, at this moment.

    That is its code, defaults and attributes, what it captures, and the global variables that it
    and the functions it calls look up, which may have changed since another one was made.
    """
    reader = _Reader()
    known = reader.value("", function)
    unknown, arrays = (tuple(dict.fromkeys(names)) for names in (reader.unknown, reader.arrays))
    return Contents((known,), unknown, arrays)


def described(function: Any, *, placed: bool = True, inside: bool = True) -> str:
    """What a function depends on in words, the same in every process where it is all known.

    Of an object that is not known the words hold what is `inside` at this moment, and where it is
    `placed` in memory: it is asked anew when it is called, but another one in its place is not it.
    """
    found = contents(function)
    return _Words(placed=placed and bool(found.unknown), inside=inside).all(found.known)


class _Words:
    """Puts contents into words, and then what is in the objects met there, each once."""

    def __init__(self, *, placed: bool, inside: bool) -> None:
        self._placed, self._inside = placed, inside
        self._places: dict[int, int] = {}
        self._met: list[Any] = []  # kept, so that no place is taken twice

    def all(self, known: object) -> str:
        """The words for contents and for all objects in them."""
        words = [self._of(known)]
        for thing in self._met:  # which grows
            words.append(" ".join(self._of(_Reader().value("", part)) for part in _parts(thing)))
        return "\n".join(words)

    def _of(self, known: object) -> str:
        if isinstance(known, types.CodeType):
            return self._of((known.co_code, known.co_names, known.co_consts))
        if isinstance(known, tuple):
            return f"({', '.join(map(self._of, known))})"
        if isinstance(known, frozenset):
            return f"{{{', '.join(sorted(map(self._of, known)))}}}"
        if not isinstance(known, Is):
            return repr(known)
        thing = known.thing
        words = [type(thing).__qualname__, getattr(thing, "__name__", "")]
        if not isinstance(known, Scope):
            words.append(self._place(thing))
        return " ".join(map(str, words + ([id(thing)] if self._placed else [])))

    def _place(self, thing: object) -> str:
        """Which of the objects met it is."""
        closed = isinstance(thing, types.ModuleType | type) or not self._inside
        if closed or len(self._places) > MOST:
            return ""
        if id(thing) not in self._places:
            self._places[id(thing)] = len(self._places)
            self._met.append(thing)
        return f"no. {self._places[id(thing)]}"


def _parts(thing: Any) -> list[Any]:
    """What is in a container, a function or another object, methods of a user's class included."""
    if isinstance(thing, list | tuple | collections.deque):
        return list(thing)
    if isinstance(thing, set | frozenset):
        return sorted(thing, key=repr)
    if isinstance(thing, dict):
        return [part for pair in thing.items() for part in pair]
    if isinstance(thing, types.FunctionType):
        held = []
        for cell in thing.__closure__ or ():
            with contextlib.suppress(ValueError):  # nothing is assigned yet
                held.append(cell.cell_contents)
        if in_library(thing):  # which may wrap a function of a user's
            return list(filter(callable, held))
        return [thing.__code__, thing.__defaults__, *held]
    if isinstance(thing, JITTED):
        return [vars(thing)["__wrapped__"]]
    kinds = type(thing).__mro__
    slots = [name for kind in kinds for name in vars(kind).get("__slots__", ()) if len(name) > 1]
    named = {name: getattr(thing, name, None) for name in slots} | getattr(thing, "__dict__", {})
    known = LIBRARIES | sys.stdlib_module_names
    users = [kind for kind in kinds if _package(kind) not in known]
    parts = [part for kind in users for part in vars(kind).values()]
    methods = [part for part in parts if isinstance(part, types.FunctionType)]
    return [*named, *named.values(), *methods]


def in_library(thing: object) -> bool:
    """Whether a function or class is one of a library's own."""
    return _package(thing) in LIBRARIES


def _package(thing: object) -> str:
    return str(getattr(thing, "__module__", None)).partition(".")[0]


class _Reader:
    """Reads a function and those that it calls, each once."""

    def __init__(self) -> None:
        self.unknown: list[str] = []
        self.arrays: list[str] = []
        self._places: dict[int, int] = {}

    def value(self, name: str, value: Any) -> Hashable:
        """Something that is equal for two values only if they are and stay the same."""
        kind = type(value)
        if value is None or kind in (bool, int, str, bytes):
            return kind, value  # as True == 1
        if kind in (float, complex) or isinstance(value, np.dtype):
            return kind, repr(value)  # as 0.0 == -0.0
        if kind is types.CodeType:
            return value
        if kind is tuple:
            return kind, tuple(self.value(name, one) for one in value)
        if kind is np.ndarray or isinstance(value, jax.Array | np.generic):
            return self._array(name, value)
        if kind is functools.partial:
            keywords = self._values(name, value.keywords)
            parts = self.value(name, value.func), self.value(name, value.args)
            return kind, *parts, keywords, self._values(name, vars(value))
        if isinstance(value, types.FunctionType) and not in_library(value):
            return self._function(value)
        if isinstance(value, types.MethodType):
            return kind, self.value(name, value.__func__), self.value(name, value.__self__)
        if not (isinstance(value, types.ModuleType) or _stays(value)):
            self.unknown.append(name)
        return Is(value)

    def _values(self, name: str, values: Mapping[str, Any]) -> Hashable:
        return tuple((key, self.value(key or name, one)) for key, one in sorted(values.items()))

    def _array(self, name: str, array: Any) -> Hashable:
        try:
            values = np.asarray(array)
        except (TypeError, jax.errors.TracerArrayConversionError):  # random keys; what is traced
            self.unknown.append(name)
            return Is(array)
        if values.dtype.hasobject:
            self.unknown.append(name)
        self.arrays.append(name)
        digest = hashlib.sha256(values.tobytes()).digest()
        weak = isinstance(array, jax.Array) and array.weak_type
        return type(array), str(values.dtype), values.shape, weak, digest

    def _function(self, function: types.FunctionType) -> Hashable:
        if id(function) in self._places:
            return "again", self._places[id(function)]
        self._places[id(function)] = len(self._places)
        code, found = function.__code__, function.__globals__
        names = _names(code)
        if names.imports or len(self._places) > MOST:
            self.unknown.append(function.__qualname__)
            return Is(function)
        cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
        called = sorted(name for name, value in list(found.items()) if value is function)
        return (
            code,
            function.__module__,
            function.__qualname__,
            Scope(found),
            tuple(called),  # as somebody may ask whether a function `is` that of a name
            self.value("defaults", function.__defaults__),
            self._values("defaults", function.__kwdefaults__ or {}),
            self._values("attributes", vars(function)),
            tuple(self._cell(name, cell) for name, cell in cells),
            self._globals(names, found),
        )

    def _cell(self, name: str, cell: types.CellType) -> Hashable:
        try:
            return self.value(name, cell.cell_contents)
        except ValueError:  # nothing is assigned yet
            return "empty"

    def _globals(self, names: Names, found: dict[str, Any]) -> Hashable:
        """The variables that a function looks up, and what it looks up in modules of a user."""
        read: list[Hashable] = []
        scopes: list[tuple[str, Mapping[str, Any]]] = [("", found)]
        for prefix, scope in scopes:  # which grows
            for name in names.attributes if prefix else names.variables:
                full = f"{prefix}{name}"
                if name in scope:
                    value = scope[name]
                    read.append((full, self.value(full, value)))
                    own = isinstance(value, types.ModuleType) and not _is_library(value)
                    scopes += [(f"{full}.", vars(value))] if own and len(scopes) < MOST else []
                elif not prefix and name in vars(builtins) and name not in PURE:
                    self.unknown.append(name)
        return tuple(read)


def _stays(value: object) -> bool:
    """Whether an object does always the same; one that `jax.jit` made compiles just once."""
    if isinstance(value, JITTED):
        return True
    if isinstance(value, types.BuiltinFunctionType):
        return isinstance(value.__self__, types.ModuleType) and in_library(value)
    kinds = (type, types.FunctionType, np.ufunc, jax.custom_jvp, jax.custom_vjp)
    return isinstance(value, kinds) and (in_library(value) or isinstance(value, np.ufunc))


def _is_library(module: types.ModuleType) -> bool:
    return module.__name__.partition(".")[0] in LIBRARIES


@functools.lru_cache(maxsize=1024)
def _names(code: types.CodeType) -> Names:
    """The names that code and that inside it looks up."""
    found, attributes, imports = set(), set(), False
    for step in dis.get_instructions(code):
        if step.opname.startswith("LOAD_") and ("GLOBAL" in step.opname or "NAME" in step.opname):
            found.add(step.argval)
        imports |= step.opname == "IMPORT_NAME"
    attributes |= set(code.co_names) - found
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            inner = _names(const)
            found, attributes = found | set(inner.variables), attributes | set(inner.attributes)
            imports |= inner.imports
    return Names(tuple(sorted(found)), tuple(sorted(attributes | found)), imports)
