"""Counts and times in the settings of a command that no run could have."""

import math

from nthsim.cli.settings import (
    Command,
    Common,
    KernelsSettings,
    Ordered,
    ScalingSettings,
    ShowSettings,
    Solved,
    in_bytes,
)
from nthsim.inputs.integers import checked_integers, count, highest_rank, points

#: More save times than anybody looks at; all that is recorded is kept for each.
MOST_TIMES = 10**6


def check(command: Command) -> None:
    """Refuse counts, times and amounts of memory that are out of their range.

    They are refused before JAX is imported. Tolerances, limits to stop at, constants of the network
    and what `data` names are checked where they are used, after it.

    Raises:
        ValueError: When a number is out of its range, or two settings exclude each other.
    """
    if isinstance(command, ShowSettings):
        return
    _check_common(command)
    if isinstance(command, Solved):
        _check_times(command)
    if isinstance(command, Ordered):
        checked_integers("orders", command.orders, 2, empty=bool(command.curves))
    if isinstance(command, KernelsSettings):
        checked_integers("orders", command.orders, 2)
    if isinstance(command, ScalingSettings):
        _check_scaling(command)


def _check_common(command: Common) -> None:
    for name in ("width", "depth"):
        count(name, getattr(command, name), 1)
    points(command.n_train, command.n_test)
    if count("seed", command.seed, 0) >= 2**32:
        raise ValueError(f"`seed` must be below 2**32, but is {command.seed}.")
    if command.memory is not None:
        in_bytes(command.memory)


def _check_times(command: Solved) -> None:
    if count("num_ts", command.num_ts, 2) > MOST_TIMES:
        raise ValueError(f"`num_ts` must be at most {MOST_TIMES}, but is {command.num_ts}.")
    if not (math.isfinite(command.t1) and command.t1 > 0):
        raise ValueError(f"`t1` must be a positive number, but is {command.t1!r}.")
    count("max_steps", command.max_steps, 1)


def _check_scaling(command: ScalingSettings) -> None:
    if command.widths and command.depths:
        given = " ".join(map(str, command.widths))
        raise ValueError(f"`widths` must be left out where `depths` are given, but is {given}.")
    for name in ("widths", "depths"):
        checked_integers(name, getattr(command, name), 1, empty=True)
    count("seeds", command.seeds, 1)
    highest_rank(command.kernels, checked_integers("orders", command.orders, 2, empty=True))
    if command.chunk is not None:
        count("chunk", command.chunk, 1)
    if command.beside == command.model:
        raise ValueError(
            f"`beside` must be another network than `model`, but both are {command.model}."
        )
