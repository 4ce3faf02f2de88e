"""Runs that can be killed: what was computed is on disk, and goes on from there."""

import dataclasses
import hashlib
import io
import json
import time
import warnings
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from nthsim.dynamics.problem import Problem
from nthsim.dynamics.recipes import store_solver
from nthsim.network.failures import first_line
from nthsim.network.regulariser import Penalty, regulariser_name
from nthsim.results.record import digest, network_digest
from nthsim.results.whole_file import named, replacing
from nthsim.solvers.abstract_run import AbstractRun
from nthsim.solvers.history import History
from nthsim.solvers.integration import AbstractKeeper
from nthsim.solvers.solver import AbstractSolver
from nthsim.solvers.stepped_run import AbstractSteps
from nthsim.solvers.stop import Stop
from nthsim.solvers.until import Until

#: The first words of a checkpoint; raised whenever an older nthsim would misread a newer one's.
FORMAT = "nthsim checkpoint 4"

#: Writing takes at most this part of the time, and happens at most once a second.
PART, LEAST_SECONDS = 0.05, 1.0

#: Ends that going on cannot change.
FINAL = ("horizon", "blow-up", "step size", "non-finite")


class CheckpointWarning(UserWarning):
    """A checkpoint could not be written; the run goes on without."""


#: Bytes of a label, which names of files have beside others.
LONGEST = 100


class Checkpoint(AbstractKeeper):
    """The file of one dynamics in a folder: written as it runs, read when it runs again.

    A line of JSON, which says what is being computed, and then the arrays as Equinox writes them;
    nothing is pickled. A file that is cut, damaged or of another run is refused.
    """

    def __init__(self, path: Path, subject: dict[str, Any], times: dict[str, list[float]]) -> None:
        """What would be computed is told by `subject`, a value of JSON for each part of it.

        `times` are the save times and those of records, of which later ones than a run has come to
        may change.
        """
        self.path, self.subject, self.times = path, subject, times
        self.written, self.took, self.broken = time.perf_counter(), 0.0, False

    def restore(self, run: AbstractRun) -> History:
        """Bring a run to where the file left it, and return what had been recorded.

        Raises:
            ValueError: When the file is damaged or of another run.
        """
        if not self.path.exists():
            return History()
        head, payload = self.read()
        for part, value in self.subject.items():
            if head["subject"].get(part) != value:
                raise ValueError(
                    f"`checkpoint` must be a folder of the same run, but {self.path} is not: "
                    f"another {part}."
                )
        self._check_times(head)
        try:
            history = self._restored(run, head, payload)
        except Exception as error:  # whatever Equinox and NumPy meet in foreign bytes
            raise self._damaged(error) from error
        if run.beyond():
            raise ValueError(
                f"`ts` must reach as far as a checkpoint, but {self.path} is at t = {head['t']:g} "
                f"and they end at t = {run.horizon:g}; take another folder."
            )
        met = run.met() if Until(**head["until"]).watched != run.until.watched else ()
        if met and head["t"] > 0:
            raise ValueError(
                f"`until` must be met later than where a checkpoint is, but {self.path} is at "
                f"t = {head['t']:g}, where its {met[0]} is met; take another folder."
            )
        return history

    def _check_times(self, head: dict[str, Any]) -> None:
        """Refuse other times than those up to which a run has come."""
        t = max([head["t"], *head["reached"]])  # those of descent may be between steps
        for name, times in head["times"].items():
            if [s for s in times if s <= t] != [s for s in self.times[name] if s <= t]:
                raise ValueError(
                    f"`checkpoint` must be a folder of the same run, but {self.path} is not: other "
                    f"{name} up to t = {t:g}, where it is; later ones may change."
                )

    def keep(self, run: AbstractRun, history: History, *, now: bool = False) -> None:
        """Write where a run is, unless that was done a moment ago and need not be `now`."""
        since = time.perf_counter() - self.written
        if self.broken or not (now or since > max(LEAST_SECONDS, self.took / PART)):
            return
        clock = time.perf_counter()
        try:
            with replacing(self.path, "checkpoint") as part:
                part.write_bytes(self._bytes(run, history))
        except ValueError as error:
            self.broken = True
            warnings.warn(
                f"{first_line(error)}; the run goes on without.", CheckpointWarning, stacklevel=2
            )
        self.written = time.perf_counter()
        self.took = self.written - clock

    def _bytes(self, run: AbstractRun, history: History) -> bytes:
        arrays = {name: _kept(np.asarray(a)) for name, a in history.stacked().items()}
        payload = io.BytesIO()
        eqx.tree_serialise_leaves(payload, (_plain(run.carry), arrays))
        body = payload.getvalue()
        head = {
            "subject": self.subject,
            "times": self.times,
            "t": float(run.carry.t),
            "horizon": run.horizon,
            "counts": run.counts(),
            "started": run.started,
            "fell_back": run.fell_back,
            "choice": run.choice,
            "stop": None if run.stop is None else dataclasses.asdict(run.stop),
            "until": dataclasses.asdict(run.until),
            "reached": history.reached,
            "rows": history.rows(),
            "records": {name: [list(a.shape), a.dtype.name] for name, a in arrays.items()},
            "bytes": len(body),
            "sha256": hashlib.sha256(body).hexdigest(),
        }
        text = json.dumps(head)
        check = hashlib.sha256(text.encode()).hexdigest()
        return f"{FORMAT} {check}\n{text}\n".encode() + body

    def read(self) -> tuple[dict[str, Any], bytes]:
        """What the file says of the run, and its arrays.

        Raises:
            ValueError: When it is not as it was written.
        """
        try:
            return self._whole()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._damaged(error) from error

    def _whole(self) -> tuple[dict[str, Any], bytes]:
        first, text, body = self.path.read_bytes().split(b"\n", 2)
        form, _, check = first.decode().rpartition(" ")
        if form != FORMAT:
            raise ValueError(f"it does not start with {FORMAT}")
        if hashlib.sha256(text).hexdigest() != check:
            raise ValueError("its head is not what was written")
        head = json.loads(text)
        if len(body) != head["bytes"] or hashlib.sha256(body).hexdigest() != head["sha256"]:
            raise ValueError("its arrays are not what was written")
        return head, body

    def _restored(self, run: AbstractRun, head: dict[str, Any], payload: bytes) -> History:
        horizon, fell_back = head["horizon"], head["fell_back"]
        run.restore(head["counts"], head["choice"], horizon=horizon, fell_back=fell_back)
        blank = run.blank() if head["started"] else run.carry
        records = head["records"].items()
        like = {name: _kept(np.empty(shape, jnp.dtype(own))) for name, (shape, own) in records}
        plain = eqx.filter_eval_shape(_plain, blank)
        carry, arrays = eqx.tree_deserialise_leaves(io.BytesIO(payload), (plain, like))
        run.carry, run.started = _keyed(carry, run.carry), head["started"]
        arrays = {name: np.asarray(array) for name, array in arrays.items()}
        history = History.unstacked(head["reached"], head["rows"], arrays)
        stop = None if head["stop"] is None else Stop(**head["stop"])
        until = Until(**head["until"])
        same = until == run.until
        if until.watched != run.until.watched:
            run.watch_anew()
        if stop is None:
            return history
        asked = stop.asked and stop.reason != "seconds"
        prolonged = stop.reason == "horizon" and run.horizon > stop.t
        if (stop.reason in FINAL and not prolonged) or (asked and same):
            run.stop = stop
        elif not stop.failed:
            history.forget_after(stop.t)
        return history

    def _damaged(self, error: Exception) -> ValueError:
        return ValueError(
            f"`checkpoint` must hold whole files, but {self.path} cannot be used: "
            f"{first_line(error)}; delete it to start anew."
        )


def _kept(array: np.ndarray) -> np.ndarray | jax.Array:
    """An array as Equinox reads and writes it: half precision that NumPy lacks as one of JAX."""
    return jnp.asarray(array) if array.dtype.kind == "V" else array


def _is_key(leaf: Any) -> bool:
    """Whether it is a random key, which Equinox does not write, or the shape of one."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(carry: Any) -> Any:
    """A carry with numbers in the place of random keys, as an optimiser may hold."""
    return jax.tree.map(lambda leaf: jr.key_data(leaf) if _is_key(leaf) else leaf, carry)


def _keyed(carry: Any, start: Any) -> Any:
    """The same with random keys where there are some at the start."""
    if not any(map(_is_key, jax.tree.leaves(start))):
        return carry
    key = lambda leaf, first: (  # noqa: E731
        jr.wrap_key_data(leaf, impl=jr.key_impl(first)) if _is_key(first) else leaf
    )
    return jax.tree.map(key, carry, start)


def subject_of(problem: Problem, by: AbstractSolver | AbstractSteps) -> dict[str, Any]:
    """What tells one run from another, in parts that a sentence can name."""
    if isinstance(by, AbstractSteps):
        how = {by.noun: by.mark}
    else:
        stored = store_solver(by)
        settings = {k: v for k, v in stored["settings"].items() if k != "max_steps"}
        how = {"solver": {"class": stored["class"], **settings}}
    return {
        "precision": problem.dtype.name,
        "model": network_digest(problem.network, problem.theta),
        "data": digest((problem.x, problem.x_test, problem.residual.y, problem.y_test)),
        "loss": problem.residual.mark,
        "regulariser": None if problem.penalty is None else _mark(problem.penalty),
        "momentum": None if problem.momentum is None else problem.momentum.word,
        **how,
    }


def _mark(penalty: Penalty) -> str:
    """What tells a regulariser from another one."""
    arrays = digest(eqx.filter(penalty.regulariser, eqx.is_array))
    return f"{regulariser_name(penalty.regulariser)}, {penalty.program.digest[:12]}, {arrays[:12]}"


def folder(path: object) -> Path | None:
    """What `checkpoint` names; None is none.

    Raises:
        ValueError: When it is no path.
    """
    return None if path is None else named(path, "checkpoint", kind="folder")


def cut(label: str, length: int) -> str:
    """A label in no more bytes than that."""
    return label.encode()[:length].decode(errors="ignore")
