"""Mistakes on the command line, told in the words that were typed."""

import contextlib
import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from nthsim.cli.settings import (
    CompareSettings,
    FlowSettings,
    KernelsSettings,
    PlanSettings,
    ScalingSettings,
    ShowSettings,
)


@contextlib.contextmanager
def called(**names: str) -> Iterator[None]:
    """Call arguments what the user calls them, as in `called(path="data")`, in whatever is raised.

    Raises:
        ValueError: When that is raised inside; the same one where it names nothing that is renamed.
    """
    try:
        yield
    except ValueError as error:
        sentence = re.sub(r"`(\w+)`", lambda name: f"`{names.get(name[1], name[1])}`", str(error))
        if sentence == str(error):
            raise
        raise ValueError(sentence) from error


COMMANDS = {
    "compare": CompareSettings,
    "flow": FlowSettings,
    "kernels": KernelsSettings,
    "scaling": ScalingSettings,
    "plan": PlanSettings,
    "show": ShowSettings,
}


def name_of(command: object) -> str:
    """What a command is called."""
    return next(name for name, kind in COMMANDS.items() if type(command) is kind)


#: What is told without a flag.
POSITIONAL = {"file"}

#: What settings are called on the command line.
TYPED = {
    name: "FILE" if name in POSITIONAL else f"--{name.replace('_', '-')}"
    for command in COMMANDS.values()
    for name in get_type_hints(command)
}


def explained(words: Sequence[str]) -> str | None:
    """The first mistake that is found in the words of one command; None if none is."""
    head, *rest = words or [""]
    if head not in COMMANDS:
        listed = ", ".join(map(repr, COMMANDS))
        found = f"is {head!r}{meant(head, COMMANDS)}" if head else "is missing"
        return f"`command` must be one of {listed}, but {found}"
    hints = get_type_hints(COMMANDS[head])
    positional = POSITIONAL & set(hints)
    loose, flags = _grouped(rest)
    for flag, values in flags:
        mistake = _mistake(flag, values, hints, head)
        if mistake is not None:
            return mistake
        if get_origin(hints.get(_name(flag))) is not tuple:
            loose = loose + values[1:]
    if positional and not loose:
        return "`FILE` must be a result of nthsim compare, flow or scaling, but is missing"
    if len(loose) > len(positional):
        only = "one FILE" if positional else "flags with their values"
        return f"`nthsim {head}` must get only {only}, but gets {loose[-1]!r} too"
    return None


def without_sizes(words: Sequence[str], command: object) -> str | None:
    """What is wrong where sizes were about to be given, and none were."""
    if not isinstance(command, ScalingSettings) or command.widths or command.depths:
        return None
    for flag in ("--widths", "--depths"):
        if flag in words:
            return f"`{flag}` must be followed by {_wanted(tuple[int, ...])}, but is by nothing"
    return None


def _grouped(words: Sequence[str]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The words before the first flag, and the flags with those behind them."""
    loose: list[str] = []
    flags: list[tuple[str, list[str]]] = []
    for word in words:
        if word.startswith("-") and not _reads(float, word):
            flag, equals, value = word.partition("=")
            flags.append((flag, [value] if equals else []))
        else:
            (flags[-1][1] if flags else loose).append(word)
    return loose, flags


def _mistake(flag: str, values: list[str], hints: dict[str, Any], command: str) -> str | None:
    """What is wrong with one flag and the words behind it."""
    name = _name(flag)
    switches = {f"no_{name}" for name, hint in hints.items() if hint is bool}
    known = (set(hints) | switches) - POSITIONAL
    if name not in known or not flag.startswith("--"):
        guess = meant(
            name.replace("_", "-"), [one.replace("_", "-") for one in sorted(known)], "--"
        )
        return f"`{flag}` must be a flag of `nthsim {command}`, but is none{guess}"
    hint = hints.get(name, bool)
    if hint is bool:
        found = f"`{flag}` must have no value, but is followed by {' '.join(values)!r}"
        return found if values else None
    several = get_origin(hint) is tuple
    if not values and not several:
        return f"`{flag}` must be followed by {_wanted(hint)}, but is by nothing"
    said = values if several else values[:1]
    wrong = f"`{flag}` must be {_wanted(hint)}, but is {' '.join(said)!r}"
    return None if all(_reads(hint, word) for word in said) else wrong


def _name(flag: str) -> str:
    return flag.lstrip("-").replace("-", "_")


def meant(word: str, known: Iterable[str], dashes: str = "") -> str:
    """The known word that is nearest to a misspelt one, as a question; nothing if none is near."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {dashes}{close[0]}?)" if close else ""


def _reads(hint: Any, word: str) -> bool:
    """Whether a word is a value of a type."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return any(_reads(part, word) for part in get_args(hint))
    if origin is tuple:
        return _reads(get_args(hint)[0], word)
    if origin is Literal:
        return word in get_args(hint)
    if hint is NoneType:
        return word == "None"
    if hint in (int, float):
        try:
            hint(word)
        except ValueError:
            return False
    return True


def _wanted(hint: Any) -> str:
    """The values of a type in words."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(_wanted(part) for part in parts if part is not NoneType)
    if origin is tuple:
        several = {int: "integers such as 2 3 4", float: "numbers such as 1 0.5"}
        return several.get(parts[0], f"some of {_listed(parts[0])}")
    if origin is Literal:
        return parts[0] if len(parts) == 1 else f"one of {_listed(hint)}"
    return {int: "an integer", float: "a number"}.get(hint, "its value")


def _listed(literal: Any) -> str:
    return ", ".join(map(repr, get_args(literal)))
