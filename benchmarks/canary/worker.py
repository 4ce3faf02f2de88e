"""A process that computes one case after another, and may hang or crash at one."""

import contextlib
import multiprocessing
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from canary.cases import about, run

#: What a process compiled stays in its memory: after so many cases it is replaced.
CASES = 60


class Worker:
    """One process, which is replaced when it does not answer within `timeout` seconds."""

    def __init__(self, timeout: float, *, unprotected: bool) -> None:
        self.timeout, self.unprotected = timeout, unprotected
        self.case: int | None = None
        self._born()

    def start(self, case: int) -> None:
        """Begin a case."""
        if self.count >= CASES:
            self.end()
            self._born()
        self.case, self.began = case, time.monotonic()
        self.count += 1
        self.pipe.send(case)

    @property
    def late(self) -> bool:
        """Whether it has taken too long."""
        return time.monotonic() - self.began > self.timeout

    def taken(self) -> dict[str, Any]:
        """The record of the case that is finished, or what became of it."""
        assert self.case is not None
        case, self.case = self.case, None
        seconds = round(time.monotonic() - self.began, 1)
        try:
            if self.pipe.poll():
                return {**self.pipe.recv(), "seconds": seconds}
            verdict = "timed out"
        except EOFError:
            verdict = "crashed"
        self.end()
        self._born()
        return {**about(case), "verdict": verdict, "seconds": seconds}

    def end(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.join()
        self.pipe.close()

    def _born(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.unprotected), daemon=True)
        self.process.start()
        theirs.close()
        self.count = 0


def finished(workers: Sequence[Worker]) -> list[Worker]:
    """Wait for some that have answered, are late or are gone."""
    while True:
        ready = wait([worker.pipe for worker in workers], timeout=1.0)
        found = [worker for worker in workers if worker.pipe in ready or worker.late]
        if found:
            return found


def _serve(pipe: Connection, unprotected: bool) -> None:
    with contextlib.suppress(EOFError, BrokenPipeError, KeyboardInterrupt):  # whoever asked is gone
        while True:
            pipe.send(run(pipe.recv(), unprotected=unprotected))
