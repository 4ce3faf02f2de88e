"""What is on its way from t = 0 to a horizon, in calls short enough to watch and to interrupt."""

import abc
import functools
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from nthsim.solvers.solution import Stats
from nthsim.solvers.stop import Reason, Stop
from nthsim.solvers.system import AbstractSystem
from nthsim.solvers.until import Until, gaps

#: A compiled call is kept near this long, so that progress shows and Ctrl-C is heard.
CALL_SECONDS = 0.5

#: Steps of the first call, most of whose time is compilation.
FIRST_CALL = 4

#: What is counted along the way.
COUNTS = ("steps", "rejected", "forced", "unheld", "evaluations")


class AbstractRun(abc.ABC):
    """A system, where it is, the work done so far, and the reason to stop.

    `carry` is all that one compiled call hands to the next, its time `t` and `state` among that,
    and `choice` tells the method. A keeper writes both, and `started` and `fell_back`, which say
    what a carry is made of.
    """

    carry: Any
    choice: str
    started: bool
    fell_back: bool

    def __init__(self, system: AbstractSystem, horizon: float, until: Until) -> None:
        """Nothing is done yet."""
        self.clock = time.perf_counter()
        self.system, self.horizon, self.until = system, horizon, until
        self.dtype = jnp.result_type(*jax.tree.leaves(system.initial()))
        self.started = self.fell_back = self.looked = False
        self.earlier = 0.0
        self.steps = self.rejected = self.forced = self.unheld = self.evaluations = 0
        self.limit = FIRST_CALL
        self.stop: Stop | None = None

    @abc.abstractmethod
    def advance(self, t: float) -> Iterator[float]:
        """Go on until `t`, yielding the time reached after each compiled call."""

    @abc.abstractmethod
    def state_at(self, t: float) -> PyTree[Array]:
        """The state at a time that was advanced to."""

    @abc.abstractmethod
    def blank(self) -> Any:
        """The shapes of a carry once started."""

    @abc.abstractmethod
    def part(self, ts: Float[np.ndarray, " T"]) -> float:
        """About how much of the work is done on the way to the last of `ts`, from 0 to 1."""

    @abc.abstractmethod
    def watch_anew(self) -> None:
        """Nothing is being located: what an earlier run began to has another limit."""

    @property
    def seconds(self) -> float:
        """Wall time so far."""
        return self.earlier + time.perf_counter() - self.clock

    def counts(self) -> dict[str, int | float]:
        """The work so far, as numbers that `restore` takes."""
        return {name: getattr(self, name) for name in (*COUNTS, "seconds")}

    def restore(
        self, counts: dict[str, int | float], choice: str, *, horizon: float, fell_back: bool
    ) -> None:
        """Take over the work of an earlier run of the same system to another horizon perhaps."""
        del horizon
        for name in COUNTS:
            setattr(self, name, int(counts[name]))
        self.earlier, self.choice, self.fell_back = counts["seconds"], choice, fell_back

    def stats(self) -> Stats:
        """The work so far."""
        return Stats(self.steps, self.rejected, self.forced, self.evaluations, self.seconds)

    def at(self, t: float) -> bool:
        """Whether the run is at a time, told in its own precision."""
        return bool(self.carry.t == self._number(t))

    def beyond(self) -> bool:
        """Whether the run has come further than it is asked to."""
        return bool(self.carry.t > self._number(self.horizon))

    def met(self) -> list[Reason]:
        """The limits that the state is below."""
        found = self._gaps(self.carry.state) if self.until.watched else {}
        return [reason for reason, gap in found.items() if gap > 0]

    def _look(self) -> None:
        """End a run that is below a limit where it starts, or goes on from."""
        self.looked = True
        if self.until.watched:
            reason, gap = self._furthest()
            if gap > 0:
                self.stop = self.until.stop(reason, float(self.carry.t))

    def _furthest(self) -> tuple[Reason, float]:
        """The limit that the state is furthest below, and how far."""
        return max(self._gaps(self.carry.state).items(), key=lambda item: item[1])

    def _gaps(self, state: PyTree[Array]) -> dict[Reason, float]:
        """How far below each limit a state is."""
        found = gaps(self.until.limits(self.dtype), self.system, state)
        return {name: float(gap) for name, gap in found.items()}

    def _paced(self, taken: int, seconds: float) -> None:
        """So many steps took so long: how many the next call takes."""
        # Twice as many at most: the first call's time is mostly compilation.
        self.limit = int(min(2 * self.limit, max(1, CALL_SECONDS * taken / seconds)))

    def _out_of_time(self) -> Stop | None:
        """The end of a run that has had its seconds."""
        if self.until.seconds is None or self.seconds - self.earlier <= self.until.seconds:
            return None
        return self.until.stop("seconds", float(self.carry.t))

    def _fallen(self) -> float:
        """How far the loss has come on its way down to its limit, if there is one."""
        if self.until.loss is None:
            return 0.0
        first, now = self._first_gap, self._loss_gap(self.carry.state)
        return float(np.clip(1 - now / first, 0, 1)) if first < 0 else 1.0

    @functools.cached_property
    def _first_gap(self) -> float:
        return self._loss_gap(self.system.initial())

    def _loss_gap(self, state: PyTree[Array]) -> float:
        """How far below its limit the loss is; nothing else is computed."""
        limits = self.until.limits(self.dtype)
        return float(gaps({"loss": limits["loss"]}, self.system, state)["loss"])

    def _number(self, value: float) -> Float[Array, ""]:
        return jnp.asarray(value, self.dtype)
