"""Who computes cells: this process, or the workers of a cluster."""

import abc
import contextlib
import functools
import importlib
import json
import queue
import time
from collections import Counter
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import jax

from nthsim.network.failures import first_line
from nthsim.results.record import Record

#: Seconds after which a sweep looks around again while nothing happens.
POLL = 0.2

#: What became of a cell: its record, or what went wrong.
Outcome = tuple[str, Record | Exception]


class AbstractWorkers(abc.ABC):
    """Takes cells, and hands back what became of each."""

    @property
    @abc.abstractmethod
    def ready(self) -> bool:
        """Whether one more cell may be submitted."""

    @abc.abstractmethod
    def submit(self, cell: Any) -> None:
        """Take a cell on."""

    @abc.abstractmethod
    def finished(self) -> list[Outcome]:
        """The cells that finished by now, by name; none if there were none for `POLL` seconds."""

    @abc.abstractmethod
    def close(self) -> None:
        """Give up what is not finished."""


class ThisProcess(AbstractWorkers):
    """Computes one cell at a time, here."""

    def __init__(self, study: Any) -> None:
        """The study knows how to compute a cell."""
        self.study, self.cell = study, None

    @property
    def ready(self) -> bool:
        """Whether there is no cell yet."""
        return self.cell is None

    def submit(self, cell: Any) -> None:
        """Take a cell on; it is computed once one asks for what is finished."""
        self.cell = cell

    def finished(self) -> list[Outcome]:
        """The cell, which is computed now."""
        if self.cell is None:
            time.sleep(POLL)
            return []
        cell, self.cell = self.cell, None
        try:
            return [(cell.name, self.study.compute(cell))]
        except Exception as error:  # whatever a network, a loss or a solver may raise
            return [(cell.name, error)]

    def close(self) -> None:
        """There is nothing to give up."""


#: The most cells in the scheduler's hands; each claim is an open file.
MOST = 200


class Cluster(AbstractWorkers):
    """Workers of a Dask scheduler.

    Each cell is one task. A worker that dies has its cell given to another one, by Dask, up to the
    `distributed.scheduler.allowed-failures` of its configuration. Results come back to this
    process, so that workers need not see its disk. Each cell is meant for a worker with a free
    thread, and is handed out only once what that thread did before has come back: a worker that
    dies takes no finished cells with it. A cluster that adapts its size to what waits will not
    grow by that.

    A task sets its whole worker process to the precision of this process, as JAX's is a setting of
    processes: give nthsim workers of its own, and run one sweep at a time on them.
    """

    def __init__(self, study: Any, cluster: Any) -> None:
        """Connect to `cluster`, an address, a scheduler file or a client, which stays open.

        Raises:
            ValueError: When Dask is not installed, or no scheduler answers.
        """
        self.client, self.borrowed = _connected(cluster)
        self.double = bool(jax.config.read("jax_enable_x64"))
        self.study: Any = None
        self.threads: dict[str, int] = self.client.nthreads()
        self.tasks: dict[Any, tuple[str, str | None]] = {}
        self.done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        try:
            # One task hands the study to all others: unlike scattered data, Dask makes it anew
            # when the worker that held it dies.
            self.study = self._submitted(_handed, _pickled(study))
        except BaseException:
            self.close()
            raise

    @property
    def ready(self) -> bool:
        """Whether a thread is free; the first cell may wait for a worker to come."""
        return len(self.tasks) < MOST and (self._free() is not None or not self.tasks)

    def submit(self, cell: Any) -> None:
        """Hand a cell to the scheduler."""
        worker = self._free()
        # Should that worker die, any other one will do.
        place = {} if worker is None else {"workers": [worker], "allow_other_workers": True}
        future = self._submitted(_computed, self.study, _pickled(cell), self.double, **place)
        self.tasks[future] = (cell.name, worker)
        future.add_done_callback(self.done.put)

    def finished(self) -> list[Outcome]:
        """The cells that came back."""
        self.threads = self.client.nthreads()
        outcomes: list[Outcome] = []
        try:
            future = self.done.get(timeout=POLL)
            while True:
                outcomes.append((self.tasks.pop(future)[0], _outcome(future)))
                future = self.done.get_nowait()
        except queue.Empty:
            return outcomes

    def close(self) -> None:
        """Cancel what has not begun; a cell that a worker is busy with runs on, for nobody."""
        if self.client.status == "running":
            self.client.cancel([*self.tasks, *([] if self.study is None else [self.study])])
        if not self.borrowed:
            self.client.close()

    def _free(self) -> str | None:
        """A worker with a free thread, if there is one."""
        busy = Counter(worker for _, worker in self.tasks.values())
        free = (address for address, count in self.threads.items() if busy[address] < count)
        return next(free, None)

    def _submitted(self, function: Any, *arguments: Any, **place: Any) -> Any:
        import dask.config as settings

        # Of the study, which is sent only once, no warning is due.
        with settings.set({"distributed.admin.large-graph-warning-threshold": "1TB"}):
            return self.client.submit(function, *arguments, pure=False, **place)


def _connected(cluster: Any) -> tuple[Any, bool]:
    """A client, and whether it is the caller's."""
    try:
        distributed = importlib.import_module("distributed")
    except ImportError as error:
        raise ValueError(
            "`cluster` must be left out without Dask, but is given: pip install 'nthsim[cluster]'."
        ) from error
    if isinstance(cluster, distributed.Client):
        return cluster, True
    address = _address(cluster)
    try:
        return distributed.Client(address, set_as_default=False), False
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise ValueError(
            f"`cluster` must be a running scheduler of Dask, but {cluster} is none: {reason}."
        ) from error


def _address(cluster: Any) -> str:
    """The address of a scheduler, perhaps out of its file."""
    if isinstance(cluster, str) and "://" in cluster:
        return cluster
    if isinstance(cluster, str | Path):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return str(json.loads(Path(cluster).read_text(encoding="utf-8"))["address"])
    raise ValueError(
        "`cluster` must be the address of a scheduler such as tcp://host:8786, its scheduler file "
        f"or a distributed.Client, but is {str(cluster)!r}."
    )


def _outcome(future: Any) -> Record | Exception:
    try:
        return future.result()
    except CancelledError:
        return RuntimeError("the scheduler has dropped it")
    except Exception as error:  # whatever the cell raised, or the death of too many workers
        return error


def _pickled(what: Any) -> bytes:
    import cloudpickle

    return cloudpickle.dumps(what)


def _handed(study: bytes) -> bytes:
    """The task whose result is the study."""
    return study


def _computed(study: bytes, cell: bytes, double: bool) -> Record:
    """The task of one cell, on a worker."""
    # First of all: unpickled in another precision, arrays would lose half their digits.
    jax.config.update("jax_enable_x64", double)
    import cloudpickle

    return _unpickled(study, double).compute(cloudpickle.loads(cell))


@functools.lru_cache(maxsize=1)
def _unpickled(study: bytes, double: bool) -> Any:
    """The study, the same object for each cell, so that nothing compiles twice."""
    del double  # part of what arrays become
    import cloudpickle

    return cloudpickle.loads(study)
