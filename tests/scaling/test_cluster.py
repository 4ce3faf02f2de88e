"""Clusters that pause, lose or miss workers: never a silent wait, and nothing is lost."""

import contextlib
import dataclasses
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from programs import Programs
from sweeping import Piece, Sleeper, pieces, same

import nthsim as nth
from nthsim.results.record import Record
from nthsim.scaling.sweep import SweepError, SweepWarning, computed

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.slow


@contextlib.contextmanager
def local(workers: int, **options: object) -> Iterator[Any]:
    options = {"memory_limit": 0, "threads_per_worker": 1, **options}
    with distributed.LocalCluster(n_workers=workers, dashboard_address=":0", **options) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def cluster():
    with local(2) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def impatient():
    """What takes seconds takes parts of them."""
    with dask.config.set({"nthsim.patience": 1.0}):
        yield


@pytest.fixture
def study(tmp_path):
    return Sleeper(str(tmp_path / "log"), 0.1)


@contextlib.contextmanager
def after(told: str, act: Callable[[], object]) -> Iterator[None]:
    """Act once a warning says this, which must happen."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        over = threading.Event()

        def wait() -> None:
            while not any(told in str(warning.message) for warning in caught):
                if over.wait(0.05):
                    return
            act()

        thread = threading.Thread(target=wait)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
    assert any(told in str(warning.message) for warning in caught), [str(w.message) for w in caught]
    assert {warning.category for warning in caught} == {SweepWarning}


def paused(client: Any, pause: bool, workers: list[str] | None = None) -> None:
    """Pause workers or wake them, as they do themselves near their memory limit."""

    def turn(dask_worker) -> None:
        status = type(dask_worker.status)
        dask_worker.status = status.paused if pause else status.running

    client.run(turn, workers=workers)


def test_sweep_whose_workers_are_all_paused_says_so_and_goes_on(cluster, study):
    with distributed.Client(cluster, set_as_default=False) as client:
        paused(client, True)
        told = "no worker takes further cells (2 paused at their memory limit)"
        with after(told, lambda: paused(client, False)):
            same(computed(study, pieces(3), cluster=cluster), computed(study, pieces(3)))


@dataclasses.dataclass(frozen=True)
class Late(Piece):
    """A cell on whose way to a worker something happens."""

    act: Callable[[], object]

    def __reduce__(self):
        self.act()
        return Piece, (self.name,)


def test_cell_that_a_paused_worker_has_not_begun_goes_to_another(cluster, study):
    with distributed.Client(cluster, set_as_default=False) as client:
        one, two = client.scheduler_info(n_workers=-1)["workers"]

        def turn() -> None:
            """Just after one was found to be free."""
            paused(client, True, [one])
            paused(client, False, [two])

        paused(client, True, [two])
        with after(f"worker {one} does not begin cell number-0", lambda: None):
            computed(study, [Late("number-0", turn)], cluster=client)
        paused(client, False, [one])
    assert study.told("ends") == ["number-0"]


def test_sweep_without_workers_says_so_and_goes_on_when_one_comes(study):
    told = "has no workers; the sweep goes on when some come"
    with local(0) as cluster, after(told, lambda: cluster.scale(1)):
        computed(study, pieces(2), cluster=cluster.scheduler_address)
    assert study.told("ends") == ["number-0", "number-1"]


class Greedy(Sleeper):
    """A study whose cell number-1 takes more memory than there is."""

    def compute(self, cell: Piece) -> Record:
        if cell.number == 1:
            hoard = np.ones(10**8)
            time.sleep(60)
            del hoard
        return super().compute(cell)


def test_death_by_memory_is_called_so(study, tmp_path):
    limits = {"distributed.scheduler.allowed-failures": 0, "distributed.worker.memory.pause": False}
    sentence = "no worker ended it, attempts: 1, of them over the memory limit: 1; give workers"
    failing = pytest.raises(SweepError, match=f"cell number-1 failed: {sentence}")
    with dask.config.set(limits), local(1, memory_limit="800MB") as cluster, failing as caught:
        computed(Greedy(study.log), pieces(2), cluster=cluster, folder=tmp_path / "a")
    assert list(caught.value.records) == ["number-0"]
    assert (tmp_path / "a" / "number-0.nc").exists()


def begun(study: Sleeper) -> None:
    while len(study.told("begins")) < 2:
        time.sleep(0.02)


def test_sweep_whose_scheduler_dies_says_so_in_two_sentences_of_its_own(tmp_path, capfd, caplog):
    study, file = Sleeper(str(tmp_path / "log"), 0.3), tmp_path / "scheduler.json"
    with dask.config.set({"distributed.comm.timeouts.connect": "3s"}), Programs(file) as programs:
        killer = threading.Thread(target=lambda: (begun(study), programs.kill()))
        killer.start()
        told = after("does not answer; the sweep goes on if it comes back", lambda: None)
        with told, pytest.raises(SweepError, match=r"^the scheduler at tcp:\S+ is gone; \d+ of 40"):
            computed(study, pieces(40), cluster=file, folder=tmp_path / "a")
        killer.join()
    kept = {path.stem for path in (tmp_path / "a").glob("number-*.nc")}
    assert kept >= {"number-0"}
    assert not list((tmp_path / "a").glob("*.lock"))
    assert capfd.readouterr().err == ""
    assert [r for r in caplog.records if r.name == "distributed.client" and r.levelno > 20] == []


def test_sweep_whose_scheduler_starts_anew_goes_on(tmp_path):
    study, file = Sleeper(str(tmp_path / "log"), 0.3), tmp_path / "scheduler.json"
    with Programs(file) as programs:
        again = threading.Thread(target=lambda: (begun(study), programs.kill(), programs.start()))
        again.start()
        with after("the scheduler lost number-1, to be begun anew", lambda: None):
            records = computed(study, pieces(4), cluster=file)
        again.join()
    same(records, computed(Sleeper(study.log), pieces(4)))
    assert study.told("begins")[:5].count("number-1") == 2


@contextlib.contextmanager
def answering(client: Any, worker: str, versions: dict[str, str]) -> Iterator[None]:
    """A worker that says it has other versions."""

    def lie(dask_worker) -> None:
        dask_worker.truth = dask_worker.handlers["versions"]

        def answer(**words):
            found = dask_worker.truth(**words)
            named = {name: one for name, one in versions.items() if name in found["packages"]}
            return {**found, "packages": {**found["packages"], **named}}

        dask_worker.handlers["versions"] = answer

    def own_up(dask_worker) -> None:
        dask_worker.handlers["versions"] = dask_worker.truth

    client.run(lie, workers=[worker])
    yield
    client.run(own_up, workers=[worker])


def test_worker_of_another_python_gets_no_cells(cluster, study):
    with distributed.Client(cluster, set_as_default=False) as client:
        one, _ = client.scheduler_info(n_workers=-1)["workers"]
        told = after(f"worker {one} has Python 3.2 and this process Python", lambda: None)
        with answering(client, one, {"python": "3.2.1.final.0"}), told:
            computed(study, pieces(4), cluster=client)
    pids = {line.split()[2] for line in Path(study.log).read_text().splitlines()}
    assert len(pids) == 1


def test_workers_of_another_jax_are_refused_before_the_first_cell(study):
    with local(1) as cluster, distributed.Client(cluster, set_as_default=False) as client:
        (address,) = client.scheduler_info(n_workers=-1)["workers"]
        sentence = rf"`cluster` must have workers of this process's versions, but worker {address} "
        refused = pytest.raises(
            ValueError, match=sentence + r"has jax 0\.1 and this process jax \S+: th"
        )
        with answering(client, address, {"jax": "0.1"}), refused:
            computed(study, pieces(2), cluster=client)
    assert study.told("begins") == []


def test_class_and_loss_of_a_function_compute_on_a_cluster_as_here(cluster):
    class Mine(eqx.Module):
        first: eqx.nn.Linear
        last: eqx.nn.Linear

        def __init__(self, width, key):
            one, two = jr.split(key)
            self.first = eqx.nn.Linear(3, width, key=one)
            self.last = eqx.nn.Linear(width, "scalar", key=two)

        def __call__(self, x):
            return self.last(jnp.tanh(self.first(x)))

    rng = np.random.default_rng(0)
    data = nth.Dataset(rng.normal(size=(3, 3)), rng.normal(size=3))
    there, here = (
        nth.width_scaling(Mine, data, (5,), 3, (), [0.0], sweep=sweep, progress=False)
        for sweep in (nth.Sweep(2, cluster), nth.Sweep(2))
    )
    for name in ("initial_f", "initial_kernels", "kernel_rms", "kernel_max", "kernel_mean"):
        np.testing.assert_array_equal(getattr(there, name), getattr(here, name))
    assert there.origin["workers"] == here.origin["workers"]
    (worker,) = there.origin["workers"]
    assert worker["versions"]["jax"] == jax.__version__
    assert worker["host"]


def test_module_that_workers_lack_is_named_with_the_cure(cluster, study, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("from sweeping import Sleeper\nclass Mine(Sleeper): ...")
    monkeypatch.syspath_prepend(tmp_path)
    import only_here  # pyright: ignore[reportMissingImports]

    sentence = r"must be what workers can import or be sent, but tcp:\S+ says .*'only_here': define"
    with pytest.raises(ValueError, match=sentence):
        computed(only_here.Mine(study.log), pieces(2), cluster=cluster)
    assert study.told("begins") == []


def test_patience_that_is_no_number_is_refused(cluster, study):
    with (
        dask.config.set({"nthsim.patience": "long"}),
        pytest.raises(ValueError, match=r"`nthsim.patience` must be a number of seconds"),
    ):
        computed(study, pieces(2), cluster=cluster)


def test_study_that_cannot_be_sent_is_refused_in_a_sentence(cluster, study):
    held = Sleeper(study.log, changed={"lock": threading.Lock()})
    with pytest.raises(
        ValueError, match="must be what can be sent to workers, but there is a TypeE"
    ):
        computed(held, pieces(2), cluster=cluster)
