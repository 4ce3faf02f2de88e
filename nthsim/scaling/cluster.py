"""Workers of a Dask scheduler, each of which gets a cell when it has nothing to do."""

import contextlib
import functools
import math
import pickle
import queue
import time
from collections import Counter
from concurrent.futures import CancelledError
from typing import Any, NamedTuple

import jax

from nthsim.network.failures import kind_and_line
from nthsim.results.record import Record
from nthsim.scaling.parcels import packed
from nthsim.scaling.roster import Roster
from nthsim.scaling.scheduler import Scheduler
from nthsim.scaling.workers import (
    POLL,
    AbstractWorkers,
    Outcome,
    WorkersError,
    clock,
    signed,
    told,
)

#: Seconds of waiting after which it is told, or a cell that is not begun is taken back.
PATIENCE = 5.0

#: The most cells in the scheduler's hands; each claim is an open file.
MOST = 200


class Task(NamedTuple):
    """A cell, and the address of the worker that has it."""

    cell: Any
    worker: str


class Unreadable(Exception):
    """What a worker cannot make of the study."""


class Cluster(AbstractWorkers):
    """Workers of a Dask scheduler.

    Each cell is one task for one worker with a free thread, which shares the versions of this
    process and is not paused. It is handed out only once what that thread did before has come
    back: a worker that dies takes no finished cells with it. What a worker had begun when it died
    goes to another one, up to the `distributed.scheduler.allowed-failures` of Dask's configuration,
    and what a scheduler forgot when it was started anew is handed out anew. Results come back to
    this process, so that workers need not see its disk. A cluster that adapts its size to what
    waits will not grow by that. `nthsim.patience` in Dask's configuration is after how many seconds
    of waiting that is told, and a cell that a worker does not begin is taken back, 5 by default.

    A task sets its whole worker process to the precision of this process, as JAX's is a setting of
    processes: give nthsim workers of its own, and run one sweep at a time on them.
    """

    def __init__(self, study: Any, cluster: Any) -> None:
        """Connect to `cluster`: an address, a scheduler file, a client or an object of Dask's.

        Raises:
            ValueError: When Dask is not installed, no scheduler answers, versions differ, or the
                study cannot be sent.
        """
        self.scheduler = Scheduler(cluster)
        self.client = self.scheduler.client
        self.double = bool(jax.config.read("jax_enable_x64"))
        self.tasks: dict[Any, Task] = {}
        self.again: list[Any] = []
        self.idle: dict[Any, float] = {}
        self.failures: dict[str, list[bool]] = {}
        self.done: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
        self.study: Any = None
        try:
            self.patience = _patience()
            self.roster = Roster(self.scheduler, self.patience)
            self.parcel = _sendable(study)
            self._send_study()
        except BaseException:
            self.close()
            raise

    @property
    def ready(self) -> bool:
        """Whether a thread is free that no cell waits for which was begun before."""
        known = not self.again and self.study.status != "cancelled"
        return known and len(self.tasks) < MOST and self._free() is not None

    def submit(self, cell: Any) -> None:
        """Hand a cell to a worker."""
        worker = self._free()
        assert worker is not None
        arguments = (self.study, packed(cell), self.double)
        try:
            future = self._submitted(_computed, *arguments, workers=[worker])
        except CancelledError:  # the study, as the connection was lost just now
            self.again.append(cell)
            return
        self.tasks[future] = Task(cell, worker)
        # What came back is fetched in a thread of Dask's, which may wait for it.
        future.add_done_callback(lambda future: self.done.put((future, _result(future))))

    def finished(self) -> list[Outcome]:
        """The cells that came back, and those that too many workers died of.

        Raises:
            ValueError: When workers have other versions, or cannot read the study.
            WorkersError: When the scheduler is gone.
        """
        outcomes: list[Outcome] = []
        if self.roster.look():
            if self.study.status == "cancelled":  # by a scheduler that was started anew
                self._send_study()
            outcomes += self._taken_back()
        while self.again and self._free() is not None:
            self.submit(self.again.pop())
        back = [(self.tasks.pop(future), result) for future, result in self._back(bool(outcomes))]
        lost = [task.cell for task, result in back if isinstance(result, CancelledError)]
        if lost:
            self.again += lost
            names = ", ".join(cell.name for cell in lost)
            told(f"at {clock(time.time())} the scheduler lost {names}, to be begun anew")
        for task, result in back:
            if not isinstance(result, CancelledError):
                outcomes += self._outcome(task, result)
        return outcomes

    def _back(self, at_once: bool) -> list[tuple[Any, Any]]:
        """The tasks that came back and how they ended, after `POLL` seconds at most."""
        found = []
        with contextlib.suppress(queue.Empty):
            found.append(self.done.get(timeout=0 if at_once else POLL))
            while True:
                found.append(self.done.get_nowait())
        return [(future, result) for future, result in found if future in self.tasks]

    def close(self) -> None:
        """Cancel what has not begun; a cell that a worker is busy with runs on, for nobody."""
        if self.scheduler.connected:
            self.client.cancel([*self.tasks, *([] if self.study is None else [self.study])])
        self.scheduler.close()

    def _free(self) -> str | None:
        """A worker with a free thread, if there is one."""
        return self.roster.free(Counter(task.worker for task in self.tasks.values()))

    def _send_study(self) -> None:
        # One task hands the study to all others: unlike scattered data, Dask makes it anew when
        # the worker that held it dies.
        self.study = self._submitted(bytes, self.parcel)

    def _outcome(self, task: Task, result: Any) -> list[Outcome]:
        """What became of a cell, if it is over."""
        from distributed.scheduler import KilledWorker, NoValidWorkerError

        if isinstance(result, Unreadable):
            raise ValueError(
                "`make_model` and `loss` must be what workers can import or be sent, but "
                f"{task.worker} says {result}: define it in the script itself, or in a module that "
                "is installed there too."
            ) from result
        if isinstance(result, KilledWorker | NoValidWorkerError):
            return self._failed(task)
        return [(task.cell.name, result)]

    def _taken_back(self) -> list[Outcome]:
        """Take cells from workers that are gone or do not begin; those that failed too often."""
        known = self.roster.workers
        pending = {future: task for future, task in self.tasks.items() if not future.done()}
        idle = {future: self.roster.idle(task.worker) for future, task in pending.items()}
        # A cell that was handed out just now may not have come to its worker yet.
        self.idle = {f: self.idle.get(f, at) for f, at in idle.items() if at is not None}
        stuck = [f for f, since in self.idle.items() if (idle[f] or since) >= since + self.patience]
        lost = [*stuck, *(f for f, task in pending.items() if task.worker not in known)]
        if stuck:  # perhaps since the study waits at a paused worker
            self._send_study()
        if lost:
            self.client.cancel(lost)
        return [outcome for future in lost for outcome in self._failed(self.tasks.pop(future))]

    def _failed(self, task: Task) -> list[Outcome]:
        """Have a cell begun anew that a worker has not ended, unless that was once too often."""
        import dask.config as settings

        over = self.scheduler.over_memory(task.worker)
        failures = self.failures.setdefault(task.cell.name, [])
        failures.append(over)
        if len(failures) > settings.get("distributed.scheduler.allowed-failures"):
            reason = f"no worker ended it, attempts: {len(failures)}"
            cure = "memory or a time limit may be why: see the logs of their jobs"
            if any(failures):
                reason += f", of them over the memory limit: {sum(failures)}"
                cure = "give workers more memory, or take a smaller `chunk`"
            return [(task.cell.name, WorkersError(f"{reason}; {cure}"))]
        why = "does not begin" if task.worker in self.roster.workers else "is gone, and with it"
        why = "went over its memory limit and died of" if over else why
        told(
            f"at {clock(time.time())} worker {task.worker} {why} cell {task.cell.name}, to be "
            "begun anew"
        )
        self.again.append(task.cell)
        return []

    def _submitted(self, function: Any, *arguments: Any, **place: Any) -> Any:
        import dask.config as settings

        # Of the study, which is sent only once, no warning is due.
        with settings.set({"distributed.admin.large-graph-warning-threshold": "1TB"}):
            return self.client.submit(function, *arguments, pure=False, **place)


def _patience() -> float:
    import dask.config as settings

    found = settings.get("nthsim.patience", PATIENCE)
    if isinstance(found, bool) or not (isinstance(found, int | float) and 0 < found < math.inf):
        raise ValueError(f"`nthsim.patience` must be a number of seconds, but is {found!r}.")
    return float(found)


def _result(future: Any) -> Any:
    """The record of a cell, or why there is none."""
    try:
        return future.result()
    except Exception as error:  # whatever the cell raised, or a lost connection
        return error


def _sendable(study: Any) -> bytes:
    try:
        return packed(study)
    except Exception as error:  # whatever a user's object raises
        raise ValueError(
            "`make_model` and `loss` must be what can be sent to workers, but there is a "
            f"{kind_and_line(error)}; define them in a module that is installed there too."
        ) from error


def _computed(study: bytes, cell: bytes, double: bool) -> Record:
    """The task of one cell, on a worker."""
    # First of all: unpickled in another precision, arrays would lose half their digits.
    jax.config.update("jax_enable_x64", double)
    return signed(_unpacked(study, double).compute(pickle.loads(cell)))


@functools.lru_cache(maxsize=1)
def _unpacked(study: bytes, double: bool) -> Any:
    """The study, the same object for each cell, so that nothing compiles twice."""
    del double  # part of what arrays become
    try:
        return pickle.loads(study)
    except Exception as error:  # whatever a class that is not there raises
        raise Unreadable(kind_and_line(error)) from error
