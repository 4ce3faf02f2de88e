"""Settings of the command line as TOML files."""

import dataclasses
import json
import tomllib
from pathlib import Path
from typing import Any, get_args, get_type_hints

from nthsim.cli.mistakes import meant, name_of
from nthsim.cli.settings import Common, CompareSettings, ScalingSettings, is_file

#: Every name that a TOML file may hold; those that a command has no use for are passed over.
NAMES = {
    field.name
    for command in (CompareSettings, ScalingSettings)
    for field in dataclasses.fields(command)
} - {"config"}

#: What says where, not what.
PLACES = ("config", "out", "checkpoint", "cluster")


def flags(path: Path, command: type) -> list[str]:
    """The settings in a TOML file as flags of a command.

    Raises:
        ValueError: When the file cannot be read, is no TOML, or holds an unknown key.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(
            f"`config` must be a readable file, but {path} is not: {reason}."
        ) from error
    except ValueError as error:  # no TOML, or no UTF-8
        reason = str(error).rstrip(".")
        raise ValueError(f"`config` must be a TOML file, but {path} is not: {reason}.") from error
    known = {field.name for field in dataclasses.fields(command)}
    words: list[str] = []
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in NAMES:
            guess = meant(name, sorted(NAMES))
            names = "names of settings" if guess else ", ".join(map(repr, sorted(NAMES)))
            raise ValueError(f"`config` must hold only {names}, but {path} holds {key!r}{guess}.")
        if key != name and name in table:
            raise ValueError(f"`config` must hold {name} once, but {path} holds {key} too.")
        if name == "weight_decay" and value and name not in known and "loss" in known:
            raise ValueError(
                f"`config` must hold no {name} for this command, which has none, but {path} does."
            )
        if name in known:
            _check(name, value, get_type_hints(command)[name], path)
            words += _flag(name, value)
    return words


def _check(name: str, value: Any, hint: Any, path: Path) -> None:
    """Refuse true and false where no such is meant, and numbers for names of files."""
    if isinstance(value, bool) != (hint is bool):
        raise ValueError(
            f"`config` must hold {'true or false' if hint is bool else 'no true or false'} for "
            f"{name}, but {path} holds {json.dumps(value)}."
        )
    if Path in get_args(hint) and not isinstance(value, str):
        raise ValueError(
            f"`config` must hold the name of a file or folder for {name}, but {path} holds {value}."
        )


def _flag(name: str, value: Any) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    if isinstance(value, list):
        return [flag, *map(str, value)]
    return [f"{flag}={value}"]


def as_toml(settings: Common) -> str:
    """The settings as TOML that repeats the run through `--config`, from any folder."""
    lines = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value is None or value == () == field.default or field.name in PLACES:
            continue
        if field.name == "data" and is_file(value):
            value = str(Path(value).resolve())
        plain = list(value) if isinstance(value, tuple) else value
        lines.append(f"{field.name} = {json.dumps(plain, ensure_ascii=False)}")
    return "\n".join([f"# nthsim {name_of(settings)} --config FILE", *lines, ""])
