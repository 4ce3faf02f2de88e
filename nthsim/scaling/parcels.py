"""Studies on their way to another process, with classes and functions that it cannot import."""

import dataclasses
import inspect
import io
from typing import Any

import equinox as eqx

#: What making a class makes, and what belongs to it alone.
MADE = frozenset(
    (
        *("__dict__", "__weakref__", "__abstractmethods__", "_abc_impl"),
        *("__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__"),
        *("__dataclass_fields__", "__dataclass_params__", "__match_args__", "__replace__"),
        *("__abstractvars__", "__abstractclassvars__"),
    )
)


def packed(what: Any) -> bytes:
    """Anything as bytes for `pickle.loads`; what a script or function defines goes along.

    Raises:
        Exception: Whatever an object raises that cannot be sent.
    """
    import cloudpickle

    class Pickler(cloudpickle.Pickler):
        """Sends the classes of Equinox modules in a way of their own.

        cloudpickle makes an empty class first and fills it then: for Equinox, which looks at the
        fields of a class when it is made, that is a module without fields.
        """

        def reducer_override(self, obj: Any) -> Any:
            """How to send an object."""
            reduced = super().reducer_override(obj)
            if reduced is NotImplemented or not _is_module_class(obj):
                return reduced
            return _shell, _outline(obj), _contents(obj), None, None, _fill

    with io.BytesIO() as file:
        Pickler(file).dump(what)
        return file.getvalue()


def _is_module_class(obj: Any) -> bool:
    return isinstance(obj, type) and issubclass(obj, eqx.Module)


def _contents(cls: type) -> dict[str, Any]:
    """What a class holds that its user wrote."""
    made = MADE | ({"__init__"} if _has_made_init(cls) else set())
    return {name: value for name, value in vars(cls).items() if name not in made}


def _has_made_init(cls: type) -> bool:
    return vars(cls)["__dataclass_params__"].init


def _outline(cls: type) -> tuple[Any, ...]:
    """What a class needs when it is made: its fields, and the names of what it holds.

    The contents come later: methods may lead back to their class.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}
    notes = inspect.get_annotations(cls)
    own = {name: note for name, note in notes.items() if note is not dataclasses.KW_ONLY}
    settings = {name: _settings(fields[name]) for name in own if name in fields}
    contents = _contents(cls)
    words = {"__module__", "__doc__", "__orig_bases__"}
    early = {name: value for name, value in contents.items() if name in words}
    early["__qualname__"] = cls.__qualname__
    early |= {name: contents[name] for name in own if name in contents and name not in fields}
    late = {
        name: bool(getattr(value, "__isabstractmethod__", False))
        for name, value in contents.items()
        if name not in early and name not in settings
    }
    return type(cls), cls.__name__, cls.__bases__, own, settings, early, late


def _settings(field: dataclasses.Field) -> dict[str, Any]:
    """What `dataclasses.field` was called with."""
    names = ("default", "default_factory", "init", "repr", "hash", "compare", "kw_only")
    found = {name: getattr(field, name) for name in names}
    found = {name: value for name, value in found.items() if value is not dataclasses.MISSING}
    return found | {"metadata": dict(field.metadata)}


def _shell(
    kind: Any,
    name: str,
    bases: tuple[type, ...],
    annotations: dict[str, Any],
    fields: dict[str, dict[str, Any]],
    early: dict[str, Any],
    late: dict[str, bool],
) -> type:
    """A class of that outline, whose contents are to come."""
    namespace = early | {name: _to_come(is_abstract) for name, is_abstract in late.items()}
    namespace |= {name: dataclasses.field(**settings) for name, settings in fields.items()}
    return kind(name, bases, namespace | {"__annotations__": annotations})


def _to_come(is_abstract: bool) -> Any:
    """What stands for a method until it is there."""

    def stand_in(self: Any) -> None:
        del self

    stand_in.__isabstractmethod__ = is_abstract  # pyright: ignore[reportFunctionMemberAccess]
    return stand_in


def _fill(cls: type, contents: dict[str, Any]) -> None:
    for name, value in contents.items():
        setattr(cls, name, value)
