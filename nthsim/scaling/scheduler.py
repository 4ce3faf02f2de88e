"""The scheduler of a Dask cluster, and what it says of its workers."""

import contextlib
import importlib
import json
import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nthsim.network.failures import first_line

#: Seconds in which a scheduler has to answer.
ANSWER = 5.0

#: Who at Dask tells what goes wrong with a client, at length; sweeps say it in a sentence.
LOGGERS = ("distributed.client", "distributed.batched", "distributed.comm.tcp")


#: By the names of packages; None for one that is not installed.
Versions = Mapping[str, str | None]


class Scheduler:
    """A client of a scheduler of Dask, which is asked in bounded time."""

    def __init__(self, cluster: Any) -> None:
        """Connect to `cluster`: an address, a scheduler file, a client or an object of Dask's.

        Raises:
            ValueError: When Dask is not installed, or no scheduler answers.
        """
        self.client, self.borrowed = _connected(cluster)
        self.address: str = self.client.scheduler.address
        self._levels = {name: logging.getLogger(name).level for name in LOGGERS}
        for name in LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)

    @property
    def connected(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self.client.status == "running"

    @property
    def gone(self) -> bool:
        """Whether the connection is lost for good; Dask tries for a while to have it again."""
        return self.client.status in ("closing", "closed")

    def workers(self) -> Mapping[str, Mapping[str, Any]] | None:
        """What is known of each worker, by address; None if there is no answer."""
        if not self.connected:
            return None
        answer = self._asked(self.client.scheduler.identity, n_workers=-1)
        return None if answer is None else answer["workers"]

    def versions(self, packages: Sequence[str]) -> Versions | None:
        """Those of packages, and Python's, at the scheduler; None if there is no answer."""
        answer = self._asked(self.client.scheduler.versions, packages=list(packages))
        return None if answer is None else answer["packages"]

    def versions_of(self, worker: str, packages: Sequence[str]) -> Versions | None:
        """Those at the worker of an address; None if there is no answer."""
        message = {"op": "versions", "packages": list(packages)}
        words = {"msg": message, "workers": [worker], "on_error": "return"}
        answers = self._asked(self.client.scheduler.broadcast, **words) or {}
        answer = answers.get(worker)
        return answer.get("packages") if isinstance(answer, dict) else None

    def over_memory(self, address: str) -> bool:
        """Whether a worker was killed since it went over its memory limit."""
        events = self._asked(self.client.scheduler.events, topic="worker-restart-memory") or ()
        return any(event["worker"] == address for _, event in events)

    def close(self) -> None:
        """Leave the scheduler; a client of the caller's stays open."""
        if not self.borrowed:
            self.client.close()
        for name, level in self._levels.items():
            logging.getLogger(name).setLevel(level)

    def _asked(self, question: Any, **words: Any) -> Any:
        """The answer to a question; None if there is none."""
        try:
            return self.client.sync(question, callback_timeout=ANSWER, **words)
        except (OSError, TimeoutError):
            return None


def _connected(cluster: Any) -> tuple[Any, bool]:
    """A client, and whether it is the caller's."""
    try:
        distributed = importlib.import_module("distributed")
    except ImportError as error:
        raise ValueError(
            "`cluster` must be left out without Dask, but is given: pip install 'nthsim[cluster]'."
        ) from error
    if isinstance(cluster, distributed.Client):
        if cluster.asynchronous or cluster.status != "running":
            kind = "asynchronous" if cluster.asynchronous else cluster.status
            raise ValueError(f"`cluster` must be a running, synchronous client, but is {kind}.")
        return cluster, True
    place = cluster if _is_cluster(cluster) else _address(cluster)
    try:
        with warnings.catch_warnings():
            # Of versions there is a sentence, where they matter.
            warnings.simplefilter("ignore", distributed.versions.VersionMismatchWarning)
            return distributed.Client(place, set_as_default=False), False
    except (OSError, ValueError, RuntimeError) as error:
        reason = first_line(error)
        raise ValueError(
            f"`cluster` must be a running scheduler of Dask, but {cluster} is none: {reason}."
        ) from error


def _is_cluster(cluster: Any) -> bool:
    """Whether this is an object such as LocalCluster or SLURMCluster, by what clients ask for."""
    return isinstance(getattr(cluster, "scheduler_address", None), str)


def _address(cluster: Any) -> str:
    """The address of a scheduler, perhaps out of its file."""
    if isinstance(cluster, str) and "://" in cluster:
        return cluster
    if isinstance(cluster, str | Path):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            file = Path(os.path.expanduser(cluster))
            return str(json.loads(file.read_text(encoding="utf-8"))["address"])
    raise ValueError(
        "`cluster` must be the address of a scheduler such as tcp://host:8786, its scheduler "
        f"file, a distributed.Client or a cluster such as LocalCluster, but is {str(cluster)!r}."
    )
