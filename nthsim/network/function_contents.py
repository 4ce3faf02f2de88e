"""All that a Python function depends on, so that two functions can be compared."""

import builtins
import dis
import functools
import hashlib
import types
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

#: Packages whose own functions and classes are taken to stay what they are.
LIBRARIES = frozenset(
    {"jax", "jaxlib", "numpy", "equinox", "diffrax", "optimistix", "lineax", "nthsim"}
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


def contents(function: Callable[..., Any]) -> Contents:
    """All that a Python function or a `functools.partial` depends on, at this moment.

    That is its code, defaults and attributes, what it captures, and the global variables that it
    and the functions it calls look up, which may have changed since another one was made.
    """
    reader = _Reader()
    known = reader.value("", function)
    return Contents((known,), tuple(reader.unknown), tuple(reader.arrays))


def described(function: Any) -> str:
    """What a function depends on in words, the same in every process where it is all known.

    Of what is not, each object goes by its place in memory: it is asked anew when it is called, but
    another one in its place is not it. A library's function that wraps one of a user's is that.
    """
    if isinstance(function, types.MethodType):
        return f"{described(function.__func__)} of {id(function.__self__)}"
    if in_library(function):
        held = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
        return " ".join([_name(function), *(described(each) for each in held if callable(each))])
    found = contents(function)
    return _in_words(found.known, placed=bool(found.unknown))


def _in_words(known: object, *, placed: bool) -> str:
    if isinstance(known, types.CodeType):
        return _in_words((known.co_code, known.co_names, known.co_consts), placed=placed)
    if isinstance(known, tuple):
        return f"({', '.join(_in_words(each, placed=placed) for each in known)})"
    if isinstance(known, frozenset):
        return f"{{{', '.join(sorted(_in_words(each, placed=placed) for each in known))}}}"
    if isinstance(known, Is):
        return f"{_name(known.thing)} {id(known.thing) if placed else ''}"
    return repr(known)


def _name(thing: object) -> str:
    return f"{type(thing).__qualname__} {getattr(thing, '__name__', '')}"


def in_library(thing: object) -> bool:
    """Whether a function or class is one of a library's own."""
    return str(getattr(thing, "__module__", None)).partition(".")[0] in LIBRARIES


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
            Is(found),
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
