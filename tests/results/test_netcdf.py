"""A results file gives back every bit, labels it, and never passes damage off as a result."""

import dataclasses
import json
import os
import re
import resource
import stat
from pathlib import Path

import equinox as eqx
import h5netcdf
import h5py
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import studies
import xarray as xr
from oracles import Product

import nthsim as nth
from nthsim.results import netcdf
from nthsim.results.record import Label, Record, fingerprint

LOAD = {
    "scalar": {},
    "vector": {"model": True, "loss": studies.absolute_quartic},
    "blow_up": {"model": True},
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("results")
    paths = {name: folder / f"{name}.nc" for name in LOAD}
    for name, path in paths.items():
        getattr(studies, name)().save(path)
    return paths


@pytest.fixture
def copy(saved, tmp_path):
    """A file of one's own to spoil."""
    path = tmp_path / "copy.nc"
    path.write_bytes(saved["scalar"].read_bytes())
    return path


def _refused(path, sentence: str, kind: type = nth.Comparison) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        kind.load(path)


def _damaged(path) -> str:
    return f"`path` must be an intact netCDF-4 file, but {path} is cut short, damaged or changed."


@pytest.mark.parametrize("name", LOAD)
def test_comparison_comes_back_bit_by_bit(name, saved):
    study = getattr(studies, name)()
    options = dict(LOAD[name])
    if "model" in options:
        # Of the same structure, with other parameters.
        model = study.asked.model
        options["model"] = eqx.tree_at(_first, model, _first(model) + 1)
    loaded = nth.Comparison.load(saved[name], **options)
    assert studies.same(loaded, study)
    assert str(loaded) == str(study)
    for key in study.curves:
        assert studies.same(loaded.errors(key), study.errors(key))


def test_text_needs_neither_model_nor_loss(saved):
    for name in ("vector", "blow_up"):
        loaded = nth.Comparison.load(saved[name])
        assert loaded.asked.model is None
        assert loaded.exact.model is None
        assert str(loaded) == str(getattr(studies, name)())


def test_trained_model_comes_back(saved):
    study = studies.scalar()
    assert study.exact.model is not None
    loaded = nth.Comparison.load(saved["scalar"])
    f = [loaded.exact.model(x) for x in study.asked.data.x]
    # Evaluated one by one here, in a batch there.
    np.testing.assert_allclose(f, study.exact.f[-1], rtol=1e-12)


def test_saving_again_keeps_all_of_it(saved, tmp_path):
    loaded = nth.Comparison.load(saved["scalar"])
    loaded.save(tmp_path / "again.nc")
    assert studies.same(nth.Comparison.load(tmp_path / "again.nc"), loaded)


def test_file_is_plain_labelled_netcdf(saved):
    study = studies.scalar()
    with xr.open_datatree(saved["scalar"], engine="h5netcdf") as tree:
        assert set(tree.children) == {
            "exact", "order_2", "order_3", "certificate", "parameters", "trained_parameters",
        }  # fmt: skip
        assert tree["exact/kernel"].dims == ("record_time", "sample", "other_sample")
        assert tree["exact/f_test"].dims == ("t", "test_sample")
        assert tree["x"].dims == ("sample", "input")
        np.testing.assert_array_equal(tree["exact/t"], studies.TS)
        np.testing.assert_array_equal(tree["save_time"], studies.TS)
        np.testing.assert_array_equal(tree["order_3/f"], study.curve(3).f)
        np.testing.assert_array_equal(
            tree["parameters/readout.weight"], study.asked.model.readout.weight
        )
        assert list(tree.attrs) == ["Conventions", "title", "history", "nthsim", "nthsim_sha256"]
        assert tree.attrs["Conventions"] == "CF-1.8"
        assert tree.attrs["history"].startswith(study.origin["created"])
        for node in tree.subtree:
            for name, variable in node.to_dataset(inherit=False).variables.items():
                assert variable.attrs["long_name"]
                assert variable.attrs.get("units") == (None if name == "bound" else "1")


def _texts(file: h5py.File):
    """The types of all attributes that are text."""
    found = []

    def look(_, node):
        kinds = [h5py.check_string_dtype(node.attrs.get_id(key).dtype) for key in node.attrs]
        found.extend(kind for kind in kinds if kind is not None)

    look("/", file)
    file.visititems(look)
    return found


def test_texts_are_of_fixed_length_and_numbers_without_filters_that_readers_lack(saved):
    with h5py.File(saved["scalar"]) as file:
        kinds = _texts(file)
    assert len(kinds) > 50
    assert all(kind.length is not None for kind in kinds)
    with h5netcdf.File(saved["scalar"]) as file:
        assert not any(file["exact"].variables[name].fletcher32 for name in ("f", "kernel", "loss"))


@pytest.mark.parametrize("name", [*LOAD, "predicted"])
def test_every_axis_has_coordinates_but_those_of_parameters(name, tmp_path):
    getattr(studies, name)().save(tmp_path / "a.nc")
    for group, part in xr.open_groups(tmp_path / "a.nc", engine="h5netcdf").items():
        bare = set(part.dims) - set(part.coords)
        assert bare == (set(part.dims) if "parameters" in group else set())
        part.close()


def test_places_are_found_by_their_labels(saved):
    study = studies.scalar()
    certificate = study.certificate
    assert certificate is not None
    with xr.open_datatree(saved["scalar"], engine="h5netcdf") as tree:
        slopes = tree["certificate"]
        assert slopes["slopes"].sel(order=2) == certificate.slopes[0]
        assert slopes["windows"].sel(order=2, bound="last") == certificate.windows[0, 1]
        np.testing.assert_array_equal(
            tree["order_3"]["f"].sel(t=studies.TS[4], sample=2), study.curve(3).f[4, 2]
        )


def test_xarray_of_a_comparison_is_what_its_file_holds(saved):
    for name in LOAD:
        with xr.open_datatree(saved[name], engine="h5netcdf") as tree:
            xr.testing.assert_identical(getattr(studies, name)().to_xarray(), tree.load())
    loaded = nth.Comparison.load(saved["vector"])  # without its model
    np.testing.assert_array_equal(loaded.to_xarray()["exact/f"], studies.vector().exact.f)


def test_xarray_of_a_run_is_what_its_file_holds(tmp_path):
    run = studies.scalar().curve(3)
    run.save(tmp_path / "run.nc")
    with xr.open_dataset(tmp_path / "run.nc", engine="h5netcdf") as dataset:
        xr.testing.assert_equal(run.to_xarray(), dataset.load())
        np.testing.assert_array_equal(dataset.f.sel(t=studies.TS[1]), run.f[1])


def test_vector_outputs_have_axes_of_their_own(saved):
    with xr.open_datatree(saved["vector"], engine="h5netcdf") as tree:
        assert tree["exact/f"].dims == ("t", "sample", "output")
        assert tree["exact/kernel"].dims == (
            "record_time", "sample", "output", "other_sample", "other_output",
        )  # fmt: skip
        assert "x_test" not in tree
        assert "f_test" not in tree["exact"]


def test_truncation_that_ended_early_has_its_own_times(saved):
    with xr.open_datatree(saved["blow_up"], engine="h5netcdf") as tree:
        assert tree["order_3"].sizes["t"] < tree["exact"].sizes["t"] == 16
        assert json.loads(tree["order_3"].attrs["nthsim"])["stop"]["reason"] == "blow-up"


def test_facts_say_how_it_was_computed(saved):
    with xr.open_datatree(saved["vector"], engine="h5netcdf") as tree:
        facts = json.loads(tree.attrs["nthsim"])
        model = json.loads(tree["parameters"].attrs["nthsim"])
        stats = json.loads(tree["exact"].attrs["nthsim"])["stats"]
    assert (facts["format"], facts["version"], facts["kind"]) == ("nthsim", 7, "Comparison")
    facts |= facts["asked"]
    assert facts["curves"] == [{"curve": "order", "p": 2, "method": "auto"}]
    assert facts["loss"] == {"name": "absolute_quartic", "own": False}
    assert facts["solver"]["class"] == "Explicit"
    assert facts["solver"]["settings"] == {
        "rtol": 1e-5, "atol": 1e-9, "max_steps": 500, "method": "Tsit5",
    }  # fmt: skip
    assert set(facts["origin"]["versions"]) >= {"python", "nthsim", "jax", "diffrax", "numpy"}
    assert facts["origin"]["created"].endswith("+00:00")
    assert facts["origin"]["device"].startswith("cpu")
    assert (model["class"], model["settings"]) == ("MLP", None)
    assert stats == dataclasses.asdict(studies.vector().exact.stats)


def test_run_that_is_saved_again_says_when_it_was_computed(saved, tmp_path):
    study = nth.Comparison.load(saved["scalar"])
    long_ago = eqx.tree_at(lambda run: run.origin["created"], study.exact, "2020-02-20T20:20:20")
    for path in (tmp_path / "run.nc", tmp_path / "again.nc"):
        long_ago.save(path)
        long_ago = nth.Trajectory.load(path)
    assert long_ago.origin == study.exact.origin | {"created": "2020-02-20T20:20:20"}


def test_missing_file_is_named(tmp_path):
    path = tmp_path / "missing.nc"
    _refused(path, f"`path` must be a readable file, but {path} is not: No such file or directory.")


def test_folder_is_no_file(tmp_path):
    _refused(tmp_path, f"`path` must be a readable file, but {tmp_path} is not: Is a directory.")


@pytest.mark.parametrize("content", [b"", b"hello", b"CDF\x01" + bytes(60)])
def test_file_of_another_format_is_told_from_a_damaged_one(content, tmp_path):
    path = tmp_path / "a.nc"
    path.write_bytes(content)
    _refused(path, f"`path` must be a netCDF-4 file, but {path} is of another format.")


@pytest.mark.parametrize("part", ["first 8 bytes", *np.linspace(0.02, 0.98, 20), "last byte"])
def test_file_that_was_cut_is_refused(part, copy):
    content = copy.read_bytes()
    kept = {"first 8 bytes": 8, "last byte": len(content) - 1}.get(part) or int(part * len(content))
    copy.write_bytes(content[:kept])
    _refused(copy, _damaged(copy))


def test_foreign_netcdf_is_refused(tmp_path):
    path = tmp_path / "foreign.nc"
    xr.Dataset({"x": ("i", np.ones(2))}).to_netcdf(path, engine="h5netcdf")
    _refused(path, f"`path` must be a results file of nthsim, but {path} is none.")


def _other_calendar(path):
    months = ("time", np.arange(3.0), {"units": "months since 2000-01-01"})
    xr.Dataset({"time": months}).to_netcdf(path, engine="h5netcdf")


def _plain_hdf5(path):
    with h5py.File(path, "w") as file:
        file["x"] = np.ones((2, 3))


@pytest.mark.parametrize("made", [_other_calendar, _plain_hdf5])
def test_intact_file_of_a_stranger_is_not_called_damaged(made, tmp_path):
    made(tmp_path / "foreign.nc")
    assert netcdf.kind_of(tmp_path / "foreign.nc") is None


def test_changed_number_is_noticed(copy):
    content = bytearray(copy.read_bytes())
    start = content.find(studies.scalar().exact.f.tobytes())
    assert start > 0
    content[start + 3] ^= 1
    copy.write_bytes(content)
    _refused(copy, _damaged(copy))


@pytest.mark.parametrize("place", np.linspace(0, 0.999, 40))
def test_damaged_byte_is_noticed_before_hdf5_meets_it(place, copy):
    content = bytearray(copy.read_bytes())
    content[max(len(netcdf.SIGNATURE), int(place * len(content)))] ^= 255
    copy.write_bytes(content)
    _refused(copy, _damaged(copy))


def test_remark_that_another_program_adds_is_no_damage(copy):
    with h5py.File(copy, "a") as file:
        file.attrs["remark"] = "that of Tuesday"
    again = nth.Comparison.load(copy)
    np.testing.assert_array_equal(again.exact.f, studies.scalar().exact.f)


def _rewrite(path, group: str, change) -> None:
    with h5netcdf.File(path, "a") as file:
        attributes = file[group].attrs if group else file.attrs
        attributes["nthsim"] = change(attributes["nthsim"])


@pytest.mark.parametrize("group", ["", "exact", "order_3", "parameters"])
@pytest.mark.parametrize("text", ["", "{", "{}", "[]", "null", '{"format": "nthsim"}'])
def test_damaged_facts_are_refused(group, text, copy):
    _rewrite(copy, group, lambda facts: text)
    with pytest.raises(ValueError, match=rf"^`path` must .*, but {re.escape(str(copy))} .*\.$"):
        nth.Comparison.load(copy)


def test_facts_that_do_not_fit_the_arrays_are_refused(copy):
    _rewrite(copy, "", lambda facts: facts.replace('"order 3"]', '"order 3", "order 4"]'))
    _refused(copy, _damaged(copy))


def test_parameters_that_are_not_those_saved_are_refused(copy):
    with h5netcdf.File(copy, "a") as file:
        weights = file["parameters"].variables["readout.weight"]
        weights[...] = weights[...] + 1
    _refused(copy, _damaged(copy))


@pytest.mark.parametrize(
    ("version", "cure"), [(6, "only an older nthsim reads it"), (8, "update nthsim")]
)
def test_file_of_another_version_is_refused_and_names_both(copy, version, cure):
    _rewrite(copy, "", lambda facts: facts.replace('"version": 7', f'"version": {version}'))
    _refused(
        copy, f"`path` must be of format version 7, but {copy} is of version {version}: {cure}."
    )


def test_kinds_are_not_mixed_up(copy, tmp_path):
    _refused(copy, f"`path` must hold a Trajectory, but {copy} holds a Comparison.", nth.Trajectory)
    path = tmp_path / "flow.nc"
    studies.scalar().exact.save(path)
    _refused(path, f"`path` must hold a Comparison, but {path} holds a Trajectory.")


def test_trajectory_comes_back_bit_by_bit(tmp_path):
    for run in (studies.scalar().exact, studies.blow_up().curve(3)):
        run.save(tmp_path / "run.nc")
        assert studies.same(nth.Trajectory.load(tmp_path / "run.nc"), run)


def test_trained_model_of_a_stranger_needs_one_of_its_structure(tmp_path):
    run = studies.vector().exact
    run.save(tmp_path / "run.nc")
    assert nth.Trajectory.load(tmp_path / "run.nc").model is None
    loaded = nth.Trajectory.load(tmp_path / "run.nc", model=studies.vector().asked.model)
    assert studies.same(loaded, run)


def test_trajectory_that_reached_nothing_comes_back(tmp_path):
    run = studies.scalar().curve(2)
    empty = {
        name: getattr(run, name)[:0]
        for name in ("ts", "f", "f_test", "loss", "test_loss", "record_ts")
    }
    records = {name: array[:0] for name, array in run.records.items()}
    run = dataclasses.replace(run, records=records, **empty)
    run.save(tmp_path / "run.nc")
    assert studies.same(nth.Trajectory.load(tmp_path / "run.nc"), run)


def test_every_kind_of_number_comes_back_bit_by_bit(tmp_path):
    odd = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324, 1 / 3])
    arrays = {"ts": odd, "f": odd.reshape(7, 1), "loss": odd}
    parameters = {"time": odd, "f-0": odd[:0], "scalar": np.array(1 / 3, np.float32)}
    netcdf.write(
        tmp_path / "a.nc", "Test", Record({}, {}),
        {"run": Record(arrays, {}), "parameters": Record(parameters, {})},
    )  # fmt: skip
    _, groups = netcdf.read(tmp_path / "a.nc", "Test")
    assert fingerprint(groups["run"].arrays) == fingerprint(arrays)
    assert fingerprint(groups["parameters"].arrays) == fingerprint(parameters)


def test_axes_of_a_users_own_are_called_after_themselves_unless_that_is_taken(tmp_path):
    rows = {"even": [0, 2], "odd": [1, 3], "t": [5.0, 7.0]}
    places = {name: np.array(row) for name, row in rows.items()}
    labels = {
        "a": Label(("mode", "t"), "1", {"mode": places["even"], "t": places["t"]}),
        "b": Label(("mode",), "µm", {"mode": places["even"]}),
        "c": Label(("mode",), "1", {"mode": places["odd"]}),
    }
    arrays = {"a": np.arange(4.0).reshape(1, 2, 2), "b": np.ones((1, 2)), "c": np.ones((1, 2))}
    record = Record(arrays | {"record_ts": np.zeros(1)}, {}, labels)
    netcdf.write(tmp_path / "a.nc", "Test", record, {})
    root, _ = netcdf.read(tmp_path / "a.nc", "Test")
    assert fingerprint(root.arrays) == fingerprint(record.arrays)
    with xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf") as found:
        dims = {name: found[name].dims[1:] for name in labels}
        assert dims == {"a": ("mode", "a_t"), "b": ("mode",), "c": ("c_mode",)}
        assert found.a.sel(mode=2, a_t=7.0) == 3.0
        assert found.b.attrs["units"] == "µm"


def test_images_may_be_inputs(tmp_path):
    arrays = {"x": np.arange(12.0).reshape(3, 2, 2), "y": np.zeros(3), "ts": np.zeros(1)}
    netcdf.write(tmp_path / "a.nc", "Test", Record(arrays, {}), {})
    root, _ = netcdf.read(tmp_path / "a.nc", "Test")
    assert fingerprint(root.arrays) == fingerprint(arrays)


def test_failed_write_leaves_the_old_file_as_it_was(copy):
    before = copy.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A real failure amid writing; HDF5, if it wrote the file, would end the process.
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        sentence = f"`path` must be writable, but {copy} is not: File too large."
        with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
            studies.scalar().save(copy)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert copy.read_bytes() == before
    assert list(copy.parent.iterdir()) == [copy]


def test_interrupted_write_leaves_the_old_file_as_it_was(copy, monkeypatch):
    before = copy.read_bytes()
    whole = Path.write_bytes

    def interrupted(path, data):
        whole(path, b"half a file")
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        studies.scalar().save(copy)
    assert copy.read_bytes() == before
    assert list(copy.parent.iterdir()) == [copy]


def test_new_file_takes_the_place_of_the_old(copy):
    studies.blow_up().save(copy)
    assert list(nth.Comparison.load(copy).curves) == ["order 3"]
    assert list(copy.parent.iterdir()) == [copy]


def test_file_has_the_permissions_of_any_other(tmp_path):
    (tmp_path / "plain").touch()
    studies.scalar().save(tmp_path / "a.nc")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "a.nc")}
    assert len(modes) == 1


def test_link_is_written_through(copy, tmp_path):
    link = tmp_path / "link.nc"
    link.symlink_to(copy)
    studies.blow_up().save(link)
    assert link.is_symlink()
    assert copy.read_bytes() == link.read_bytes()


def test_folder_must_exist(tmp_path):
    path = tmp_path / "missing" / "a.nc"
    with pytest.raises(
        ValueError, match=r"^`path` must be in an existing folder, but .* is none\.$"
    ):
        studies.scalar().save(path)


def test_folder_is_not_overwritten(tmp_path):
    sentence = f"`path` must be the name of a file, but {tmp_path} is a folder."
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        studies.scalar().save(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_must_be_writable(tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    with pytest.raises(ValueError, match=r"^`path` must be writable, but .*: Permission denied\.$"):
        studies.scalar().save(folder / "a.nc")


def _first(model):
    return model.w if isinstance(model, Product) else model.layers[0].weight


def test_module_of_other_functions_is_refused_by_its_outputs(tmp_path):
    net = lambda act: eqx.nn.MLP(4, "scalar", 5, 1, activation=act, key=jr.key(0))  # noqa: E731
    study = nth.compare(net(jnp.tanh), studies.points(), (2,), [0.5, 1.0], certify=False)
    study.save(tmp_path / "a.nc")
    sentence = (
        "^`model` must be the one of the file, MLP, but what is given computes something else"
    )
    with pytest.raises(ValueError, match=sentence):
        nth.Comparison.load(tmp_path / "a.nc", model=net(jnp.sin))
    assert nth.Comparison.load(tmp_path / "a.nc", model=net(jnp.tanh)).asked.model is not None


def test_another_loss_without_a_name_is_refused_by_its_value(saved):
    options = {"model": studies.vector().asked.model}
    sentence = "^`loss` must be the one of the file, absolute_quartic, but what is given computes "
    with pytest.raises(ValueError, match=sentence):
        nth.Comparison.load(saved["vector"], loss=lambda f, y: jnp.sum((f - y) ** 2), **options)
    known = nth.Comparison.load(saved["vector"], loss=studies.absolute_quartic, **options)
    assert known.asked.loss is studies.absolute_quartic
