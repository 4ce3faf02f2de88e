"""Many cells of one study, computed once each: kept in a folder, and handed to a cluster."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import numpy as np

from nthsim.inputs.integers import shown
from nthsim.network.failures import first_line, kind_and_line
from nthsim.results.record import Record
from nthsim.results.terminal import Progress
from nthsim.scaling.store import Claim, Store, opened, plain
from nthsim.scaling.workers import AbstractWorkers, SweepWarning, ThisProcess, WorkersError


class SweepError(RuntimeError):
    """A sweep that ended early; the cells that are done are in `.records`, by name."""

    def __init__(self, reason: str, records: dict[str, Record], total: int, kept: str) -> None:
        """Say why it ended, how much is done and where that is."""
        super().__init__(f"{reason}; {len(records)} of {total} cells are done, {kept}")
        self.reason, self.records = reason, records


@runtime_checkable
class AnyCell(Protocol):
    """A piece of a study."""

    @property
    def name(self) -> str:
        """What it is called, among all cells; serves as the stem of a file."""
        ...


@runtime_checkable
class AnyStudy(Protocol):
    """What cells are computed by; pickled where that happens on a cluster."""

    def compute(self, cell: Any) -> Record:
        """The result of one cell; raises what it meets, KeyboardInterrupt included."""
        ...

    def mark(self, cell: Any) -> str:
        """What the numbers of a cell follow from beside that; `compute` makes it a fact, `mark`."""
        ...

    def subject(self) -> dict[str, Any]:
        """All that numbers follow from, as JSON: a value or a digest for each named part."""
        ...


class Sweep(eqx.Module):
    """How the seeds of a study are cut into batches, and who computes them.

    Args:
        chunk: How many seeds make a batch; as many as fit into the memory of this process, at most
            64, if left out, or as in the folder that the study is kept in.
        cluster: A Dask scheduler that hands batches to its workers, which need not see that folder:
            its address, its file, a `distributed.Client` or a cluster such as `LocalCluster` and
            `SLURMCluster`. They work in this process's precision and must share its versions.
    """

    chunk: int | None = None
    cluster: Any = eqx.field(static=True, default=None)


def checked_sweep(sweep: object) -> Sweep:
    """What a user handed in as a sweep.

    Raises:
        ValueError: When it is none.
    """
    if not isinstance(sweep, Sweep):
        raise ValueError(f"`sweep` must be a Sweep, but is {shown(sweep)}.")
    return sweep


def computed(
    study: AnyStudy,
    cells: Sequence[AnyCell],
    *,
    folder: Path | None = None,
    cluster: Any = None,
    progress: bool = True,
) -> list[Record]:
    """Compute every cell of a study, unless it is on disk already.

    With a folder, a cell is written as soon as it is finished, and never computed again: a sweep
    that was killed goes on, one with further cells takes up those that are there, and processes
    that work on one folder at the same time share its cells. Cells of the folder that are not
    asked for stay as they are. The warning `SweepWarning` says when one cannot be written, and when
    a sweep waits for workers of a cluster or begins a cell anew.

    Args:
        study: Knows how to compute a cell, and what all numbers follow from.
        cells: What to compute, each of another name.
        folder: Where cells are kept, made if need be.
        cluster: A scheduler of Dask that hands cells to its workers: its address, such as
            tcp://host:8786, its scheduler file, a `distributed.Client` or a cluster such as
            `LocalCluster`. By default cells are computed in this process, one after the other.
            Workers are set to the precision of this process: they should do nothing else meanwhile.
        progress: Whether to show a progress bar when on a terminal.

    Returns:
        The records of all cells, in their order, as they would be read from disk.

    Raises:
        ValueError: When the folder is of another study, holds a damaged cell or cannot be written
            to, or the cluster does not answer or has other versions than this process.
        SweepError: When a cell fails, the scheduler is gone, or at Ctrl-C; its `.records` hold the
            cells that are done.
    """
    names = [cell.name for cell in cells]
    store = None if folder is None else opened(folder, study.subject(), names)
    sweep = _Sweep(store, dict(zip(names, cells, strict=True)), study.mark)
    with Progress(f"{len(names)} cells", progress) as bar, _interruptible(sweep):
        sweep.look()
        bar.to(sweep.part)
        if sweep.part < 1:
            with sweep, contextlib.closing(_workers(study, cluster)) as workers:
                while sweep.part < 1:
                    sweep.step(workers)
                    bar.to(sweep.part)
    return [sweep.records[name] for name in names]


class _Sweep:
    """Where a sweep is: cells that wait, claims on those at work, records of those done."""

    def __init__(
        self, store: Store | None, cells: dict[str, AnyCell], mark: Callable[[Any], str]
    ) -> None:
        self.store, self.total, self.mark = store, len(cells), mark
        self.waiting = dict(cells)
        self.claims: dict[str, Claim] = {}
        self.records: dict[str, Record] = {}
        self.unwritten: set[str] = set()
        self.warned = False

    @property
    def part(self) -> float:
        """How much is done, from 0 to 1."""
        return len(self.records) / self.total if self.total else 1.0

    @property
    def unkept(self) -> bool:
        """Whether there are cells that only this process has."""
        return bool(self.unwritten if self.store is not None else self.records)

    def look(self) -> None:
        """Take up what is on disk."""
        for name in list(self.waiting):
            self._found(name)

    def step(self, workers: AbstractWorkers) -> None:
        """Hand out what is neither done nor claimed, and keep what has come back."""
        for name, cell in list(self.waiting.items()):
            if not workers.ready:
                break
            # Another process may have finished it before, or between the look and the claim.
            if self._found(name) or not self._claim(name) or self._found(name):
                continue
            del self.waiting[name]
            workers.submit(cell)
        outcomes = workers.finished()
        for name, outcome in outcomes:
            if isinstance(outcome, Record):
                self._keep(name, outcome)
        for name, outcome in outcomes:
            if isinstance(outcome, Exception):
                raise _Failed(name) from outcome

    def ended(self, reason: str) -> SweepError:
        """The error that says where the sweep is."""
        if self.store is None:
            kept = "in `.records` of this error"
        elif self.unwritten:
            kept = f"{len(self.unwritten)} of them only in `.records` of this error"
        else:
            kept = f"in {self.store.folder}, and the same call goes on from there"
        return SweepError(reason, self.records, self.total, kept)

    def __enter__(self) -> "_Sweep":
        return self

    def __exit__(self, *error: object) -> None:
        self._write()
        for name in list(self.claims):
            self._release(name)

    def _found(self, name: str) -> bool:
        """Whether a cell is on disk, from where it is then taken."""
        mark = lambda: self.mark(self.waiting[name])  # noqa: E731
        record = None if self.store is None else self.store.found(name, mark)
        if record is None:
            return False
        self.records[name] = record
        del self.waiting[name]
        self._release(name)
        return True

    def _claim(self, name: str) -> bool:
        """Whether this process may compute a cell."""
        if self.store is None:
            return True
        try:
            claim = self.store.claim(name)
        except OSError as error:
            self._warn(f"{self.store.folder} takes no claims: {error.strerror or error}")
            return True
        if claim is not None:
            self.claims[name] = claim
        return claim is not None

    def _release(self, name: str) -> None:
        if name in self.claims:
            self.claims.pop(name).release()

    def _keep(self, name: str, record: Record) -> None:
        arrays = {key: np.asarray(array) for key, array in record.arrays.items()}
        facts, axes = plain(record.facts), record.coordinates
        self.records[name] = Record(arrays, facts, coordinates=axes)
        if self.store is not None:
            self.unwritten.add(name)
            self._write()

    def _write(self) -> None:
        """Write what is unwritten, the newest and what failed before."""
        for name in sorted(self.unwritten):
            assert self.store is not None
            try:
                if name in self.claims or self._claim(name):
                    self.store.keep(name, self.records[name])
                    self.unwritten.discard(name)
            except ValueError as error:
                self._warn(first_line(error))
            # Also after a failure: who waits for it may then compute it.
            self._release(name)

    def _warn(self, reason: str) -> None:
        if not self.warned:
            self.warned = True
            warnings.warn(
                f"{reason}; the sweep goes on, holds finished cells in memory and tries again with "
                "the next one.",
                SweepWarning,
                stacklevel=2,
            )


class _Failed(Exception):
    """The cell whose failure is this one's cause."""


def _workers(study: AnyStudy, cluster: Any) -> AbstractWorkers:
    if cluster is None:
        return ThisProcess(study)
    from nthsim.scaling.cluster import Cluster  # the import of Dask takes a second

    return Cluster(study, cluster)


@contextlib.contextmanager
def _interruptible(sweep: _Sweep) -> Iterator[None]:
    """Say where the sweep is when it ends early."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise sweep.ended("interrupted") from interrupt
    except _Failed as failed:
        cause = failed.__cause__ or failed
        words = first_line(cause) if isinstance(cause, WorkersError) else kind_and_line(cause)
        raise sweep.ended(f"cell {failed} failed: {words}") from cause
    except SweepError:
        raise
    except WorkersError as error:
        raise sweep.ended(first_line(error)) from error
    except Exception as error:  # a warning that the caller made an error, say
        if isinstance(error, ValueError) and not sweep.unkept:
            raise
        raise sweep.ended(kind_and_line(error)) from error
