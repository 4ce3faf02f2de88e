"""How much memory there is, and the refusal of what will not fit into it."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import jax
import psutil

from nthsim.inputs.integers import count

_LIMIT: contextvars.ContextVar[int | None] = contextvars.ContextVar("memory_limit", default=None)

#: Where Linux keeps the limits of the container that this runs in.
CGROUP = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def memory_limit(memory: int) -> Iterator[None]:
    """Let everything inside plan for this many bytes, whatever is free; nothing else enforces it.

    Raises:
        ValueError: When `memory` is not an integer of at least 1.
    """
    token = _LIMIT.set(count("memory", memory, 1))
    try:
        yield
    finally:
        _LIMIT.reset(token)


def available(memory: int | None = None) -> int:
    """The bytes to plan for: as said here or by `memory_limit`, else what is free on the device.

    Raises:
        ValueError: When `memory` is neither None nor an integer of at least 1.
    """
    limit = _LIMIT.get() if memory is None else count("memory", memory, 1)
    if limit is not None:
        return limit
    device = jax.devices()[0]
    stats = None if device.platform == "cpu" else device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    free, left = psutil.virtual_memory().available, container_memory(CGROUP)
    return free if left is None else min(free, left)


def container_memory(folder: Path) -> int | None:
    """The bytes that a control group of version 2 or 1 leaves; None where it has no limit.

    The inactive part of the kernel's file cache counts as used there, but gives way.
    """
    for limit, usage, parts, cache in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        ),
    ):
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max" in it
            left = int((folder / limit).read_text()) - int((folder / usage).read_text())
            with contextlib.suppress(OSError):
                words = (folder / parts).read_text().split()
                left += int(dict(zip(words[::2], words[1::2], strict=True)).get(cache, 0))
            return max(1, left)
    return None


def check_fits(
    name: str,
    order: int,
    n: int,
    need: Callable[[int, int], int],
    *,
    points: str = "data",
    least: int = 2,
) -> None:
    """Refuse, before anything is allocated, an order that does not fit into memory.

    Args:
        name: The argument that holds the order.
        order: The highest order that is wanted.
        n: The number of training points.
        need: The bytes at the peak for an order and a number of training points; rises with both.
        points: The argument that holds the training points.
        least: The lowest order that could be taken instead.

    Raises:
        ValueError: When it does not fit; the sentence names the largest order or n that does.
    """
    free = available()
    needed = need(order, n)
    if needed <= free:
        return
    lower = largest(lambda p: need(p, n) <= free, least, order - 1)
    fewer = largest(lambda fewer: need(order, fewer) <= free, 1, n - 1)
    shortage = f"order {order} needs {readable(needed)} and {readable(free)} are available"
    if lower is not None:
        other = "" if fewer is None else f"; at order {order}, n = {fewer} fits"
        raise ValueError(
            f"`{name}` must be at most {lower} for n = {n} here, but is {order}: {shortage}{other}."
        )
    if fewer is not None:
        raise ValueError(f"`{points}` must hold at most {fewer} points, but holds {n}: {shortage}.")
    raise ValueError(
        f"`model` must be smaller to fit into memory, or that be larger, but {shortage}."
    )


def largest(fits: Callable[[int], bool], low: int, high: int) -> int | None:
    """The largest number from `low` to `high` that fits, if any does, by bisection."""
    if low > high or not fits(low):
        return None
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def readable(count: int) -> str:
    """A number of bytes in MB or GB, of powers of ten."""
    if count < 999 * 10**6:
        return f"{-(-count // 10**6)} MB"
    # Decimal, as floats end at 1e308 and some plans do not.
    return f"{Decimal(count).scaleb(-9):.{'1f' if count < 10**14 else '1e'}} GB"
