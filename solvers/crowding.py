"""Programs are let go before they fill the memory maps that a process may have.

XLA's CPU backend maps a compiled program into memory in tens of pieces, JAX keeps every program,
and Linux grants a process 65,530 maps unless told otherwise. Beyond that nothing can be compiled,
and the process may die without a word: after some hundred comparisons of arrays of other shapes.
"""

from pathlib import Path

import jax

#: What the kernel allows, and what this process has, one per line.
ALLOWED = Path("/proc/sys/vm/max_map_count")
MAPS = Path("/proc/self/maps")

#: The part of what is allowed at which programs are let go: what is compiled between two counts
#: must fit into the rest.
FULL = 0.6

#: JAX's reports between two counts. A program makes three or more; a count takes up to 30 ms.
REPORTS = 300


class Crowding:
    """Lets go of all compiled programs when this process holds too many maps.

    Args:
        allowed: Maps that the process may have; None is what the system says, where it does.
    """

    def __init__(self, allowed: int | None = None):
        self._allowed = system_limit() if allowed is None else allowed
        self._reports = 0
        jax.monitoring.register_event_duration_secs_listener(self._report)

    def relieve(self) -> None:
        """To be called while nothing of nthsim's is being traced or computed in this thread.

        Programs that are needed once more are compiled once more.
        """
        if self._allowed is None or self._reports < REPORTS:
            return
        self._reports = 0
        if maps() > FULL * self._allowed:
            jax.clear_caches()
            if maps() > FULL * self._allowed:  # others', for which nothing can be done here
                self._allowed = None

    def _report(self, event: str, duration: float, **_: str | int) -> None:
        self._reports += 1


def system_limit() -> int | None:
    """Memory maps that a process may have, None where the system sets no limit that we know."""
    try:
        return int(ALLOWED.read_text())
    except (OSError, ValueError):
        return None


def maps() -> int:
    """Memory maps that this process has; 0 where the system does not say."""
    try:
        return MAPS.read_bytes().count(b"\n")
    except OSError:
        return 0
