"""Who computes cells: this process, or others."""

import abc
import dataclasses
import platform
import time
import warnings
from collections.abc import Sequence
from typing import Any

from nthsim.results.record import Record, origin

#: Seconds after which a sweep looks around again while nothing happens.
POLL = 0.2

#: What became of a cell: its record, or what went wrong.
Outcome = tuple[str, Record | Exception]


class SweepWarning(UserWarning):
    """A sweep waits, begins cells anew or cannot write finished ones; it goes on."""


def told(sentence: str) -> None:
    """Say what a user should know while a sweep goes on."""
    warnings.warn(f"{sentence}.", SweepWarning, stacklevel=2)


def clock(seconds: float) -> str:
    """A time of today, which makes each warning another one: Python shows equal ones once."""
    return time.strftime("%H:%M:%S", time.localtime(seconds))


class WorkersError(RuntimeError):
    """There is nobody left to compute cells."""


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
        """The cells that finished by now, by name; none if there were none for `POLL` seconds.

        Raises:
            WorkersError: When nothing more will come.
        """

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
            return [(cell.name, signed(self.study.compute(cell)))]
        except Exception as error:  # whatever a network, a loss or a solver may raise
            return [(cell.name, error)]

    def close(self) -> None:
        """There is nothing to give up."""


def signed(record: Record) -> Record:
    """A cell's record with the fact `worker`: the process that computed it.

    It is what `origin` says, but for the time, and the name of the machine as `host`.
    """
    worker = {name: fact for name, fact in origin().items() if name != "created"}
    facts = record.facts | {"worker": worker | {"host": platform.node()}}
    return dataclasses.replace(record, facts=facts)


def signatures(records: Sequence[Record]) -> list[dict[str, Any]]:
    """The processes that computed cells, each once."""
    found = [record.facts["worker"] for record in records]
    return [worker for i, worker in enumerate(found) if worker not in found[:i]]
