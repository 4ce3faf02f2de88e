"""Sweeps on disk: every cell computed once, whoever is killed, and no damage passed off for one."""

import dataclasses
import json
import os
import signal
import threading
import time

import disks
import h5netcdf
import numpy as np
import pytest
from sweeping import SUBJECT, Piece, Sleeper, contents, pieces, same, started

from nthsim.results.netcdf import write
from nthsim.results.record import Record
from nthsim.scaling.store import Store, alone, claimed
from nthsim.scaling.sweep import SweepError, SweepWarning, computed


@pytest.fixture
def study(tmp_path):
    return Sleeper(str(tmp_path / "log"))


def test_finished_cells_are_read_and_not_computed(study, tmp_path):
    cells = pieces(3)
    first = computed(study, cells, folder=tmp_path / "a")
    again = computed(study, cells[::-1], folder=tmp_path / "a")
    same(again[::-1], first)
    same(computed(study, cells), first)
    assert study.told("begins") == 2 * [cell.name for cell in cells]


def test_sweep_without_cells_is_done(study, tmp_path):
    assert computed(study, [], folder=tmp_path / "a") == []


def test_only_cells_and_manifest_are_left(study, tmp_path):
    computed(study, pieces(2), folder=tmp_path / "a")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["manifest.json", "number-0.nc", "number-1.nc"]
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["subject"] == SUBJECT
    assert manifest["cells"] == ["number-0", "number-1"]


def test_killed_sweep_goes_on_to_the_same_files(study, tmp_path):
    computed(study, pieces(3), folder=tmp_path / "whole")
    os.remove(study.log)
    slow = Sleeper(study.log, 0.3)
    process = started(tmp_path / "a", slow, pieces(3))
    while "number-1" not in slow.told("begins"):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (tmp_path / "a" / ".nthsim-cut").mkdir()  # as if killed while it wrote
    (tmp_path / "a" / ".nthsim-cut" / "number-1.nc").write_bytes(b"half")
    computed(study, pieces(3), folder=tmp_path / "a")
    assert contents(tmp_path / "a") == contents(tmp_path / "whole")
    assert study.told("ends") == ["number-0", "number-1", "number-2"]


def test_two_processes_share_the_cells_and_see_the_same(study, tmp_path):
    slow, cells = Sleeper(study.log, 0.2), pieces(6)
    process = started(tmp_path / "a", slow, cells)
    mine = computed(slow, cells, folder=tmp_path / "a")
    assert process.wait() == 0
    assert sorted(slow.told("begins")) == [cell.name for cell in cells]
    with open(study.log) as file:
        assert len({line.split()[2] for line in file}) == 2
    same(mine, computed(study, cells))


def test_cell_of_a_process_that_dies_is_taken_over(study, tmp_path):
    process = started(tmp_path / "a", Sleeper(study.log, 60.0), pieces(2))
    watch = threading.Timer(0.5, process.kill)
    watch.start()
    records = computed(study, pieces(2), folder=tmp_path / "a")
    process.wait()
    assert study.told("begins") == ["number-0", "number-1", "number-0"]
    assert sorted(study.told("ends")) == ["number-0", "number-1"]
    same(records, computed(study, pieces(2)))


def test_claim_is_of_one_and_leaves_no_file(tmp_path):
    path = tmp_path / "cell.lock"
    claim = claimed(path)
    assert claim is not None
    assert claimed(path) is None
    claim.release()
    assert not path.exists()
    with alone(path):
        assert claimed(path) is None
    assert list(tmp_path.iterdir()) == []


def test_claim_on_a_file_that_was_removed_meanwhile_is_none(tmp_path, monkeypatch):
    path, locked = tmp_path / "cell.lock", []

    def flock(file, operation):
        locked.append(file.fileno())
        if len(locked) == 1:
            path.unlink()  # its holder was done just then

    monkeypatch.setattr("fcntl.flock", flock)
    claim = claimed(path)
    assert claim is not None
    assert len(locked) == 2
    assert path.exists()
    claim.release()


@pytest.mark.parametrize("part", [*SUBJECT, "loss"])
def test_folder_of_another_study_is_refused_by_what_differs(part, study, tmp_path):
    computed(study, pieces(1), folder=tmp_path / "a")
    other = Sleeper(study.log, changed={part: "another"})
    sentence = f"`checkpoint` must be a folder of the same study, but .*a holds another {part}\\."
    with pytest.raises(ValueError, match=sentence):
        computed(other, pieces(1), folder=tmp_path / "a")
    (tmp_path / "a" / "manifest.json").unlink()
    with pytest.raises(ValueError, match=f"number-0.nc cannot be used: it is of another {part};"):
        computed(other, pieces(1), folder=tmp_path / "a")


def test_further_cells_extend_a_folder_and_leave_others_alone(study, tmp_path):
    computed(study, pieces(2), folder=tmp_path / "a")
    before = (tmp_path / "a" / "number-0.nc").read_bytes()
    computed(study, pieces(3, first=1), folder=tmp_path / "a")
    assert study.told("begins") == [f"number-{i}" for i in range(4)]
    assert (tmp_path / "a" / "number-0.nc").read_bytes() == before
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["cells"] == [f"number-{i}" for i in range(4)]


def test_cell_damaged_anywhere_is_refused_or_whole(study, tmp_path):
    (record,) = computed(study, pieces(1), folder=tmp_path / "a")
    store, path = Store(tmp_path / "a", SUBJECT), tmp_path / "a" / "number-0.nc"
    whole, refused = path.read_bytes(), 0
    for place in np.linspace(0, len(whole) - 1, 25).astype(int):
        path.write_bytes(whole[:place])
        with pytest.raises(ValueError, match="delete it to compute it anew"):
            store.found("number-0", lambda: "0")
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            found = store.found("number-0", lambda: "0")
            assert found is not None
            same([found], [record])  # some bytes of HDF5 mean nothing
        except ValueError as error:
            refused += "delete it to compute it anew" in str(error)
    assert refused > 5
    path.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=r"must hold whole cells .*number-0.nc cannot be used"):
        computed(study, pieces(1), folder=tmp_path / "a")
    assert study.told("begins") == ["number-0"]


def test_cell_under_another_name_is_refused(study, tmp_path):
    computed(study, pieces(1), folder=tmp_path / "a")
    (tmp_path / "a" / "number-0.nc").rename(tmp_path / "a" / "number-1.nc")
    with pytest.raises(ValueError, match=r"number-1.nc cannot be used: it is the cell number-0;"):
        computed(study, pieces(2), folder=tmp_path / "a")


@pytest.mark.parametrize("variable", ["powers", "powers-0"])
def test_changed_number_or_label_is_noticed(variable, study, tmp_path):
    computed(study, pieces(1), folder=tmp_path / "a")
    with h5netcdf.File(tmp_path / "a" / "number-0.nc", "a") as file:
        file["cell"].variables[variable][1] += 1
    with pytest.raises(ValueError, match="is cut short, damaged or changed; delete it to compute"):
        Store(tmp_path / "a", SUBJECT).found("number-0", lambda: "0")


def test_file_without_a_cell_is_refused(study, tmp_path):
    computed(study, pieces(1), folder=tmp_path / "a")
    facts = {"cell": "number-0", "subject": SUBJECT}
    write(tmp_path / "a" / "number-0.nc", "Cell", Record({}, facts), {})
    with pytest.raises(ValueError, match="it holds no numbers; delete it"):
        Store(tmp_path / "a", SUBJECT).found("number-0", lambda: "0")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "must hold a whole manifest, .* delete it"),
        ('{"format": "else"}', "must hold a whole manifest"),
        (
            '{"format": "nthsim sweep", "version": 99, "subject": {}, "cells": []}',
            "must be of format version 1 or older, .*update nthsim",
        ),
    ],
)
def test_foreign_manifest_is_refused(text, sentence, study, tmp_path):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        computed(study, pieces(1), folder=tmp_path)


@dataclasses.dataclass(frozen=True)
class Filling:
    """Numbers, while the disk is full from its first cell on and up to another."""

    last: int

    def compute(self, cell):
        """The cell's own number."""
        (disks.free if cell.number > self.last else disks.fill)()
        return Record({"number": np.full(3, cell.number)}, {"mark": ""})

    def mark(self, cell):
        """Nothing beside the subject."""
        del cell
        return ""

    def subject(self):
        """There is one such study."""
        return SUBJECT


@pytest.mark.parametrize("last", [1, 3])
def test_full_disk_costs_a_sentence_and_no_result(last, tmp_path):
    sentence = r"`checkpoint` must be writable, but .* is not: .*; the sweep goes on"
    try:
        with pytest.warns(SweepWarning, match=sentence) as said:
            records = computed(Filling(last), pieces(3), folder=tmp_path / "a", progress=False)
    finally:
        disks.free()
    assert len(said) == 1
    assert [record.arrays["number"][0] for record in records] == [0, 1, 2]
    kept = sorted(path.name for path in (tmp_path / "a").glob("*.nc"))
    assert kept == ([f"number-{i}.nc" for i in range(3)] if last == 1 else [])
    assert not list((tmp_path / "a").glob("*.lock"))


def test_folder_that_takes_no_claims_costs_a_sentence(study, tmp_path, monkeypatch):
    computed(study, [], folder=tmp_path / "a")

    def flock(file, operation):
        if not str(file.name).endswith("manifest.lock"):  # that is refused in another sentence
            raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.warns(SweepWarning, match="a takes no claims: No locks available"):
        records = computed(study, pieces(2), folder=tmp_path / "a")
    same(records, computed(study, pieces(2)))
    assert len(list((tmp_path / "a").glob("*.nc"))) == 2


class Stopping(Sleeper):
    def compute(self, cell: Piece) -> Record:
        if cell.name == "number-2":
            raise self.changed["raise"]
        return super().compute(cell)

    def subject(self):
        return SUBJECT


def test_ctrl_c_tells_what_is_done_and_the_same_call_goes_on(study, tmp_path):
    stopping = Stopping(study.log, changed={"raise": KeyboardInterrupt()})
    sentence = r"interrupted; 2 of 4 cells are done, in .*a, and the same call goes on from there"
    with pytest.raises(SweepError, match=sentence) as caught:
        computed(stopping, pieces(4), folder=tmp_path / "a")
    assert list(caught.value.records) == ["number-0", "number-1"]
    assert not list((tmp_path / "a").glob("*.lock"))
    computed(study, pieces(4), folder=tmp_path / "a")
    assert study.told("begins") == [f"number-{i}" for i in range(4)]


def test_ctrl_c_is_heard_while_another_process_is_waited_for(study, tmp_path):
    computed(study, pieces(1), folder=tmp_path / "a")
    claim = claimed(tmp_path / "a" / "number-1.lock")
    assert claim is not None
    watch = threading.Timer(0.5, signal.raise_signal, [signal.SIGINT])
    # A process in the background may have been started with Ctrl-C ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        watch.start()
        with pytest.raises(SweepError, match="interrupted; 1 of 2 cells are done"):
            computed(study, pieces(2), folder=tmp_path / "a")
    finally:
        signal.signal(signal.SIGINT, before)
    claim.release()


def test_failing_cell_is_named_and_what_is_done_is_kept(study):
    stopping = Stopping(study.log, changed={"raise": ZeroDivisionError("by\nzero")})
    sentence = (
        r"cell number-2 failed: ZeroDivisionError: by; 2 of 4 cells are done, in `.records` of "
        "this error"
    )
    with pytest.raises(SweepError, match=sentence) as caught:
        computed(stopping, pieces(4))
    same(list(caught.value.records.values()), computed(study, pieces(2)))


def test_file_in_the_place_of_the_folder_is_refused(study, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="`checkpoint` must be a folder to write to, but"):
        computed(study, pieces(1), folder=tmp_path / "file")
