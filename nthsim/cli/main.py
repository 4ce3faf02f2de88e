"""The command `nthsim`: JAX is imported once there is something to compute, never for help."""

import contextlib
import dataclasses
import io
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, TypeVar

import tyro

from nthsim.cli.mistakes import COMMANDS, TYPED, called, explained, name_of, without_sizes
from nthsim.cli.settings import (
    Command,
    CompareSettings,
    FlowSettings,
    KernelsSettings,
    PlanSettings,
    ScalingSettings,
    ShowSettings,
)
from nthsim.cli.toml import flags

T = TypeVar("T")

DESCRIPTION = """Simulate the training of finite-width neural networks: exact gradient flow
beside the truncated Neural Tangent Hierarchy. `nthsim compare` alone runs a first
example in under a minute; `nthsim COMMAND --help` explains every setting, and
the version is told by `nthsim --version`."""

PARSER = tyro.conf.OmitSubcommandPrefixes[
    Annotated[CompareSettings, tyro.conf.subcommand("compare")]
    | Annotated[FlowSettings, tyro.conf.subcommand("flow")]
    | Annotated[KernelsSettings, tyro.conf.subcommand("kernels")]
    | Annotated[ScalingSettings, tyro.conf.subcommand("scaling")]
    | Annotated[PlanSettings, tyro.conf.subcommand("plan")]
    | Annotated[ShowSettings, tyro.conf.subcommand("show")]
]


def main(args: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    0 after success, 2 after a user's mistake, 1 after a run that failed or was interrupted, whose
    results so far are printed and saved. Tables go to standard output, all else to standard error.
    Where NTHSIM_TRACEBACK is set in the environment, an error that nobody foresaw is raised.
    """
    try:
        with called(**TYPED), _plain_warnings():
            status = _status(sys.argv[1:] if args is None else args)
        sys.stdout.flush()
    except ValueError as error:
        return _ended(2, str(error))
    except KeyboardInterrupt:
        return _ended(1, "interrupted; there was nothing to keep")
    except BrokenPipeError:
        # Python flushes standard output once more at exit, and would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("NTHSIM_TRACEBACK"):
            raise
        return _ended(1, _failure(error))
    return status


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Show warnings in one line each, without a place in the code."""
    usual, warnings.showwarning = warnings.showwarning, _warned
    try:
        yield
    finally:
        warnings.showwarning = usual


def _warned(message: Warning | str, *_: object, **__: object) -> None:
    print(f"nthsim: warning: {message}", file=sys.stderr)


def _status(args: Sequence[str]) -> int:
    """The exit status of one command; JAX is imported once its settings are known to be sound."""
    command = parsed(args)
    if command is None:
        return 0
    missing = without_sizes(args, command)
    if missing is not None:
        raise ValueError(f"{missing}; see `nthsim scaling --help`.")
    from nthsim.cli.ranges import check  # here, as NumPy is not for help

    check(command)
    from nthsim.cli import commands

    return commands.run(command)


def parsed(args: Sequence[str]) -> Command | None:
    """The command and its settings, those of `--config` under the explicit ones; None if told.

    None is for help and for `--version`, which are printed.

    Raises:
        ValueError: When they are not as the help says.
    """
    if list(args) == ["--version"]:
        print(f"nthsim {version('nthsim')}")
        return None
    parse = lambda words: tyro.cli(PARSER, prog="nthsim", description=DESCRIPTION, args=words)  # noqa: E731
    command = _quietly(parse, list(args))
    if command is None or isinstance(command, ShowSettings) or command.config is None:
        return None if command is None else _at_home(command)
    name, path = name_of(command), Path(os.path.expanduser(command.config))
    words = flags(path, type(command))
    try:
        base = _quietly(parse, [name, *words])
    except ValueError as error:
        reason = str(error).rstrip(".")
        raise ValueError(
            f"`config` must hold valid settings, but {path} does not: {reason}."
        ) from error

    def again(words: list[str]) -> Command | None:
        return tyro.cli(type(command), default=base, prog=f"nthsim {name}", args=words[1:])

    rest = list(args)
    rest.remove(name)
    told = _quietly(again, [name, *rest])
    return None if told is None else _at_home(told)


def _at_home(command: Command) -> Command:
    """The same with the own folder in the place of each ~, which shells leave in --out=~/x."""
    places = {
        field.name: type(value)(os.path.expanduser(value))
        for field in dataclasses.fields(command)
        if isinstance(value := getattr(command, field.name), Path) or field.name == "data"
    }
    return dataclasses.replace(command, **places)


def _quietly(parse: Callable[[list[str]], T], words: list[str]) -> T | None:
    """Parse the words of one command; None after help.

    Raises:
        ValueError: When tyro refuses them; one line instead of its box.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return parse(words)
    except SystemExit as end:
        if not end.code:
            return None
        reason = explained(words) or _unboxed(said.getvalue())
        command = f" {words[0]}" if words and words[0] in COMMANDS else ""
        raise ValueError(f"{reason}; see `nthsim{command} --help`.") from None


def _unboxed(box: str) -> str:
    """What an error box of tyro says, in one line; for mistakes that are not explained."""
    return " ".join(re.sub("[│╭╮╰╯─|]|-{3,}", " ", box).split()).rstrip(".")


def _failure(error: Exception) -> str:
    """An error that nobody foresaw; JAX has no class of its own for memory that ran out."""
    full = isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)
    what = "out of memory" if full else "failed"
    return f"{what}: {type(error).__name__}: {error}"


def _ended(status: int, why: str) -> int:
    print(f"nthsim: {' '.join(why.split())}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
