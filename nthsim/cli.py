"""The command `nthsim`: JAX is imported once there is something to compute, never for help."""

import contextlib
import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import tyro

from nthsim.settings import Command, Compare, Flow, Kernels, Plan, Show, flags

T = TypeVar("T")

#: Broken into lines here, as tyro does not.
DESCRIPTION = """Simulate the training of finite-width neural networks: exact gradient flow
beside the truncated Neural Tangent Hierarchy. `nthsim compare` alone runs a first
example in under a minute; `nthsim COMMAND --help` explains every setting."""

COMMANDS = ("compare", "flow", "kernels", "plan", "show")

PARSER = tyro.conf.OmitSubcommandPrefixes[
    Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Flow, tyro.conf.subcommand("flow")]
    | Annotated[Kernels, tyro.conf.subcommand("kernels")]
    | Annotated[Plan, tyro.conf.subcommand("plan")]
    | Annotated[Show, tyro.conf.subcommand("show")]
]


def main(args: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    0 after success, 2 after a user's mistake, 1 after a run that failed or was interrupted, whose
    results so far are printed and saved. Tables go to standard output, all else to standard error.
    Where NTHSIM_TRACEBACK is set in the environment, an error that nobody foresaw is raised.
    """
    try:
        command = parsed(sys.argv[1:] if args is None else args)
        if command is None:
            return 0
        from nthsim import commands

        status = commands.run(command)
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


def parsed(args: Sequence[str]) -> Command | None:
    """The command and its settings, those of `--config` under the explicit ones; None after help.

    Raises:
        ValueError: When they are not as the help says.
    """
    parse = lambda words: tyro.cli(PARSER, prog="nthsim", description=DESCRIPTION, args=words)  # noqa: E731
    command = _quietly(parse, list(args))
    if command is None or isinstance(command, Show) or command.config is None:
        return command
    name = type(command).__name__.lower()
    path: Path = command.config
    try:
        base = _quietly(parse, [name, *flags(path, type(command))])
    except ValueError as error:
        if str(error).startswith("`config`"):
            raise
        reason = str(error).rstrip(".")
        raise ValueError(
            f"`config` must hold valid settings, but {path} does not: {reason}."
        ) from error
    again = lambda words: tyro.cli(type(command), default=base, prog=f"nthsim {name}", args=words)  # noqa: E731
    rest = list(args)
    rest.remove(name)
    return _quietly(again, rest)


def _quietly(parse: Callable[[list[str]], T], words: list[str]) -> T | None:
    """Parse, turning tyro's boxed errors into a ValueError of one line; None after help."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return parse(words)
    except SystemExit as end:
        if not end.code:
            return None
        command = f" {words[0]}" if words and words[0] in COMMANDS else ""
        raise ValueError(f"{_unboxed(said.getvalue())}; see `nthsim{command} --help`.") from None


def _unboxed(box: str) -> str:
    """What an error box of tyro says, in one line."""
    lines = [line.strip("│╭╮╰╯| ") for line in box.splitlines()]
    parts = [" ".join(part) for part in _split(lines)]
    if "╭" not in box:  # where there is no Unicode, the title stands above the rule, not in it
        parts = parts[1:]
    message = parts[0] if parts else "the arguments are not as the help says"
    if message.startswith("Error parsing "):
        message = re.sub(r"^Error parsing (\S+): ", r"\1: ", message)
    close = re.search(r"(?:meant|Similar).*?(--[\w-]+)", " ".join(parts[1:]))
    hint = f" (did you mean {close[1]}?)" if close else ""
    return f"{message.rstrip('.')}{hint}"


def _split(lines: list[str]) -> Iterator[list[str]]:
    """The parts of a box between its rules, without its title."""
    part: list[str] = []
    for line in lines:
        if not line or "───" in line or "---" in line:
            if part:
                yield part
            part = []
        else:
            part.append(line)


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
