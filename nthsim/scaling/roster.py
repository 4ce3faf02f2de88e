"""Which workers of a cluster may be given cells, and a word where none may."""

import time
import warnings
from collections import Counter
from collections.abc import Mapping
from typing import Any

from nthsim.scaling.scheduler import Scheduler
from nthsim.scaling.versions import PACKAGES, mismatch
from nthsim.scaling.workers import SweepWarning, WorkersError

#: Seconds between looks at the workers, and those of waiting after which it is told.
LOOK, PATIENCE = 1.0, 5.0

#: What workers are called that are near their memory limit.
PAUSED = "paused at their memory limit"

#: What Dask calls a task that a worker is at work on.
BUSY = ("executing", "waiting", "fetch", "flight")


class Roster:
    """The workers that a scheduler knows, their versions compared with those of this process."""

    def __init__(self, scheduler: Scheduler) -> None:
        """Nothing is known of workers before the first look.

        Raises:
            ValueError: When the scheduler has other versions than this process.
        """
        self.scheduler = scheduler
        versions = scheduler.versions(tuple(PACKAGES))
        difference = versions and mismatch("the scheduler", versions)
        if difference:
            raise ValueError(
                f"`cluster` must have a scheduler of this process's versions, but {difference}."
            )
        self.workers: Mapping[str, Mapping[str, Any]] = {}
        self.answers = False
        self.mismatches: dict[str, str] = {}
        self.trusted = False
        self.looked = -LOOK
        self.since: float | None = None
        self.said: set[tuple[str, ...]] = set()

    def look(self) -> bool:
        """Ask the scheduler, unless that was just done; whether it has answered.

        Raises:
            ValueError: When no worker has had the versions of this process so far.
            WorkersError: When the scheduler is gone.
        """
        if time.monotonic() < self.looked + LOOK:
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
        busy = BUSY[:1] if self._kind(address) == PAUSED else BUSY
        at_work = any(state in metrics["task_counts"] for state in busy)
        return None if at_work else metrics["time"]

    def _able(self, address: str) -> bool:
        return self._kind(address) == "able"

    def _compare(self) -> None:
        """Compare the versions of workers that are new."""
        differences = []
        for address in (address for address in self.workers if address not in self.mismatches):
            versions = self.scheduler.versions_of(address, tuple(PACKAGES))
            if versions is None:  # it did not answer, and is asked again
                continue
            found = self.mismatches[address] = mismatch(f"worker {address}", versions)
            self.trusted = self.trusted or not found
            differences += [found] if found else []
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
        reason = (str(self.answers), *kinds)
        if reason not in self.said and time.time() >= self.since + PATIENCE:
            self.said.add(reason)
            told(f"since {clock(self.since)} {self._sentence(kinds)}")

    def _kinds(self) -> dict[str, int]:
        """How many workers are of which kind."""
        kinds = Counter(self._kind(address) for address in self.workers) if self.answers else {}
        return dict(sorted(kinds.items()))

    def _kind(self, address: str) -> str:
        found, status = self.mismatches.get(address), self.workers[address]["status"]
        if found is None:
            return "that do not answer"
        if found:
            return "of other versions"
        if status == "paused":
            return PAUSED
        return "able" if status == "running" else "about to leave"

    def _sentence(self, kinds: dict[str, int]) -> str:
        address = self.scheduler.address
        if not self.answers:
            return f"the scheduler at {address} does not answer; the sweep goes on if it comes back"
        if not kinds:
            return (
                f"the scheduler at {address} has no workers; the sweep goes on when some come: for "
                "jobs of a queue ask by adapt(minimum=n, maximum=n), as scale(n) replaces none"
            )
        counted = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        cure = ": it needs more memory, or a smaller `chunk`" if PAUSED in kinds else ""
        return f"no worker takes further cells ({counted}); the sweep goes on when one does{cure}"


def told(sentence: str) -> None:
    """Say what a user should know while a sweep goes on."""
    warnings.warn(f"{sentence}.", SweepWarning, stacklevel=2)


def clock(seconds: float) -> str:
    """A time of today, which makes each warning another one: Python shows equal ones once."""
    return time.strftime("%H:%M:%S", time.localtime(seconds))
