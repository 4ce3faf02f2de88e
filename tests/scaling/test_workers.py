"""Cells on a real cluster of worker processes: the same files as without, whoever dies."""

import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from sweeping import Sleeper, contents, pieces, same

from nthsim.scaling.sweep import SweepError, SweepWarning, computed

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0"
    ) as cluster:
        yield cluster


@pytest.fixture
def study(tmp_path):
    return Sleeper(str(tmp_path / "log"))


def test_cluster_writes_the_same_files_as_this_process(cluster, study, tmp_path):
    computed(study, pieces(4), folder=tmp_path / "here")
    elsewhere = Sleeper(str(tmp_path / "other"))
    computed(elsewhere, pieces(2), folder=tmp_path / "there")
    computed(elsewhere, pieces(4), folder=tmp_path / "there", cluster=cluster.scheduler_address)
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    assert sorted(elsewhere.told("begins")) == [cell.name for cell in pieces(4)]


def test_cell_of_a_worker_that_is_killed_is_computed_by_another(cluster, study, tmp_path):
    fatal = Sleeper(study.log, fatal=("number-1",))
    with pytest.warns(SweepWarning, match=r"worker \S+ is gone, and with it cell number-1, to be"):
        computed(fatal, pieces(5), folder=tmp_path / "there", cluster=cluster)
    assert sorted(fatal.told("begins")).count("number-1") == 2
    assert sorted(fatal.told("ends")) == [cell.name for cell in pieces(5)]
    computed(study, pieces(5), folder=tmp_path / "here")
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


def test_workers_compute_in_the_precision_of_this_process(cluster, study):
    with distributed.Client(cluster, set_as_default=False) as client:
        for double, dtype in ((False, np.float32), (True, np.float64)):
            jax.config.update("jax_enable_x64", double)
            try:
                records = computed(study, pieces(2), cluster=client)
            finally:
                jax.config.update("jax_enable_x64", True)
            assert [record.arrays["powers"].dtype for record in records] == [dtype, dtype]
            same(computed(study, pieces(2), cluster=client), computed(study, pieces(2)))
        assert client.status == "running"


class Failing(Sleeper):
    def compute(self, cell):
        if cell.name == "number-1":
            raise ZeroDivisionError("by zero")
        return super().compute(cell)


def test_cell_that_fails_on_a_worker_is_named(cluster, study, tmp_path):
    sentence = r"^cell number-1 failed: ZeroDivisionError: by zero; \d of 2 cells are done, in .*a,"
    with pytest.raises(SweepError, match=sentence):
        computed(
            Failing(study.log), pieces(2), folder=tmp_path / "a", cluster=cluster.scheduler_address
        )
    assert not list((tmp_path / "a").glob("*.lock"))


def test_scheduler_file_leads_to_the_cluster(cluster, study, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "scheduler.json"
    file.write_text(json.dumps({"address": cluster.scheduler_address, "type": "Scheduler"}))
    for named in (file, "~/scheduler.json"):
        same(computed(study, pieces(2), cluster=named), computed(study, pieces(2)))


def test_finished_sweep_needs_no_cluster(study, tmp_path):
    computed(study, pieces(1), folder=tmp_path / "a")
    computed(study, pieces(1), folder=tmp_path / "a", cluster="tcp://127.0.0.1:1")


@pytest.mark.parametrize(
    ("cluster", "sentence"),
    [
        (
            "tcp://127.0.0.1:1",
            r"`cluster` must be a running scheduler of Dask, but tcp:\S+ is none",
        ),
        (
            "none.json",
            r"`cluster` must be the address of a scheduler such as .*, but is 'none.json'",
        ),
        (Path("none.json"), r"`cluster` must be the address of a scheduler .*, but is 'none.json'"),
        (__file__, r"`cluster` must be the address of a scheduler .*, but is .*test_workers.py'"),
        (3, r"`cluster` must be the address of a scheduler such as .*, but is '3'"),
    ],
)
def test_no_cluster_is_refused_in_a_sentence(cluster, sentence, study):
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "500ms"}),
        pytest.raises(ValueError, match=sentence),
    ):
        computed(study, pieces(1), cluster=cluster)


def test_cluster_without_dask_is_refused_in_a_sentence(study, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match=r"without Dask, but is given: pip install 'nthsim\[cl"):
        computed(study, pieces(1), cluster="tcp://127.0.0.1:1")
