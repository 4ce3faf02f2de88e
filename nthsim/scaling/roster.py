"""Which workers of a cluster may be given cells, and a word where none may."""

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

from nthsim.scaling.scheduler import Scheduler
from nthsim.scaling.versions import PACKAGES, mismatch
from nthsim.scaling.workers import WorkersError, clock, told

#: Parts of a sweep's patience that pass between looks at the workers.
LOOK = 0.2

Kind = Literal["able", "paused", "leaving", "silent", "foreign"]

#: What workers of each kind are called.
WORDS: dict[Kind, str] = {
    "able": "able",
    "paused": "paused at their memory limit",
    "leaving": "about to leave",
    "silent": "that do not answer",
    "foreign": "of other versions",
}

#: What Dask calls a task that a worker is at work on.
BUSY = ("executing", "waiting", "fetch", "flight")


class Roster:
    """The workers that a scheduler knows, their versions compared with those of this process."""

    def __init__(self, scheduler: Scheduler, patience: float) -> None:
        """Nothing is known of workers before the first look.

        After `patience` seconds in which none takes cells that is told.

        Raises:
            ValueError: When the scheduler has other versions than this process.
        """
        self.scheduler, self.patience = scheduler, patience
        versions = scheduler.versions(tuple(PACKAGES))
        difference = None if versions is None else mismatch("the scheduler", versions)
        if difference is not None:
            raise ValueError(
                f"`cluster` must have a scheduler of this process's versions, but {difference}."
            )
        self.workers: Mapping[str, Mapping[str, Any]] = {}
        self.answers = False
        self.mismatches: dict[str, str | None] = {}
        self.unanswered: Counter[str] = Counter()
        self.trusted = False
        self.looked = -patience
        self.since: float | None = None
        self.said: set[tuple[str, ...]] = set()

    def look(self) -> bool:
        """Ask the scheduler, unless that was just done; whether it has answered.

        Raises:
            ValueError: When no worker has had the versions of this process so far.
            WorkersError: When the scheduler is gone.
        """
        if time.monotonic() < self.looked + LOOK * self.patience:
            return False
        if self.scheduler.gone:
            raise WorkersError(f"the scheduler at {self.scheduler.address} is gone")
        found = self.scheduler.workers()
        self.looked, self.answers = time.monotonic(), found is not None
        if found is not None:
            self.workers = found
            self._compare()
        self._tell()
        return self.answers

    def free(self, busy: Counter[str]) -> str | None:
        """A worker with a free thread, if there is one; `busy` counts cells by worker."""
        if not (self.answers and self.scheduler.connected):
            return None
        able = (a for a in self.workers if self._able(a) and busy[a] < self.workers[a]["nthreads"])
        return next(able, None)

    def idle(self, address: str) -> float | None:
        """When a worker told that it neither computes nor fetches, by its clock; None if it does.

        A paused worker ends what it has begun, and fetches nothing.
        """
        if address not in self.workers:
            return None
        metrics = self.workers[address]["metrics"]
        busy = BUSY[:1] if self._kind(address) == "paused" else BUSY
        at_work = any(state in metrics["task_counts"] for state in busy)
        return None if at_work else metrics["time"]

    def _able(self, address: str) -> bool:
        return self._kind(address) == "able"

    def _compare(self) -> None:
        """Compare the versions of workers that are new, up to the first that does not answer.

        Next time those come first that did not keep this process waiting.
        """
        differences = []
        new = (address for address in self.workers if address not in self.mismatches)
        for address in sorted(new, key=self.unanswered.__getitem__):
            versions = self.scheduler.versions_of(address, tuple(PACKAGES))
            if versions is None:
                self.unanswered[address] += 1
                break
            found = self.mismatches[address] = mismatch(f"worker {address}", versions)
            self.trusted = self.trusted or found is None
            differences += [] if found is None else [found]
        for found in differences:
            if not self.trusted:
                raise ValueError(
                    f"`cluster` must have workers of this process's versions, but {found}."
                )
            told(f"{found}; it gets no cells")

    def _tell(self) -> None:
        """Say it when nobody has been able to take cells for a while, once for each reason."""
        kinds = self._kinds()
        if "able" in kinds:
            self.since = None
            self.said.clear()
            return
        self.since = self.since or time.time()
        reason = (str(self.answers), *sorted(kinds))
        if reason not in self.said and time.time() >= self.since + self.patience:
            self.said.add(reason)
            told(f"since {clock(self.since)} {self._sentence(kinds)}")

    def _kinds(self) -> dict[Kind, int]:
        """How many workers are of which kind."""
        kinds: Counter[Kind] = Counter()
        if self.answers:
            kinds.update(self._kind(address) for address in sorted(self.workers))
        return dict(kinds)

    def _kind(self, address: str) -> Kind:
        if address not in self.mismatches:
            return "silent"
        if self.mismatches[address] is not None:
            return "foreign"
        status = self.workers[address]["status"]
        known: dict[str, Kind] = {"running": "able", "paused": "paused"}
        return known.get(status, "leaving")

    def _sentence(self, kinds: dict[Kind, int]) -> str:
        address = self.scheduler.address
        if not self.answers:
            return f"the scheduler at {address} does not answer; the sweep goes on if it comes back"
        if not kinds:
            return (
                f"the scheduler at {address} has no workers; the sweep goes on when some come: for "
                "jobs of a queue ask by adapt(minimum=n, maximum=n), as scale(n) replaces none"
            )
        counted = ", ".join(f"{count} {WORDS[kind]}" for kind, count in kinds.items())
        cure = ": it needs more memory, or a smaller `chunk`" if "paused" in kinds else ""
        return f"no worker takes further cells ({counted}); the sweep goes on when one does{cure}"
