"""Studies over sizes in a folder: batches kept, studies extended, the same numbers."""

import json
import shutil

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
import pytest

import nthsim as nth
from nthsim.models import FCN
from nthsim.results.netcdf import read
from nthsim.scaling.sweep import SweepError
from nthsim.solvers import Auto

DATA, T0 = nth.sphere(2, dim=3), np.zeros(1)


def study(
    widths=(4,),
    seeds=2,
    out=None,
    orders=(),
    ts=T0,
    data=DATA,
    make=None,
    chunk: int | None = 2,
    **settings,
):
    families = {"FCN": make or (lambda width, key: FCN(3, width, 1, key=key))}
    run = nth.Run(ts, checkpoint=out, solver=settings.pop("solver", Auto()))
    chosen = {"sweep": nth.Sweep(chunk), "kernels": 2, "progress": False, **settings}
    return nth.width_scaling(families, data, widths, seeds, orders, run, **chosen)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept") / "a"
    study(out=folder)
    return folder


@pytest.fixture
def folder(kept, tmp_path):
    return shutil.copytree(kept, tmp_path / "a")


def written(folder):
    """When each cell was written."""
    return {path.stem: path.stat().st_mtime_ns for path in folder.glob("*.nc")}


def test_study_in_a_folder_is_extended_by_widths_and_seeds(folder):
    before = written(folder)
    more = study((4, 5), 3, folder, chunk=None)  # the folder knows the chunk
    after = written(folder)
    added = {"fcn-4-seeds-2-2", "fcn-5-seeds-0-1", "fcn-5-seeds-2-2"}
    assert {name for name in after if after[name] != before.get(name)} == added
    assert str(study((4, 5), 3, folder)) == str(more)
    assert written(folder) == after
    manifest = json.loads((folder / "manifest.json").read_text())
    assert list(manifest["subject"]["make_model"]["fcn"]) == ["4", "5"]
    whole = study((4, 5), 3)
    for name in ("initial_f", "initial_kernels", "kernel_rms", "drift"):
        np.testing.assert_array_equal(getattr(more, name), getattr(whole, name))


def test_axes_of_a_batch_are_labelled(folder):
    import xarray as xr

    with xr.open_datatree(folder / "fcn-4-seeds-0-1.nc", engine="h5netcdf") as tree:
        cell = tree["cell"].to_dataset()
        assert cell["drift"].dims == ("seed", "t")
        assert cell["initial_kernels"].dims == ("seed", "entry", "other_entry")
        assert (cell.family, cell.size) == ("FCN", 4)
        labels = {"seed": [0, 1], "rank": [2], "t": [0.0], "entry": [0, 1], "other_entry": [0, 1]}
        assert set(cell.dims) == set(labels)
        for axis, values in labels.items():
            np.testing.assert_array_equal(cell[axis], values)
    _, groups = read(folder / "fcn-4-seeds-0-1.nc", "Cell")
    assert groups["cell"].facts["stops"] == {
        "exact gradient flow": {"reason": "horizon", "message": "reached t = 0"}
    }


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("make_model", {"make": lambda width, key: FCN(3, width, 2, key=key)}),
        ("data", {"data": nth.sphere(2, dim=3, seed=1)}),
        ("loss", {"loss": lambda f, y: (f - y) ** 4}),
        ("solver", {"solver": nth.solvers.Explicit(rtol=1e-3)}),
        ("orders", {"orders": (2,)}),
        ("kernels", {"kernels": 3}),
        ("save times", {"ts": np.array([0.0, 2.0])}),
        ("chunk", {"chunk": 1}),
    ],
)
def test_folder_of_another_study_is_refused_by_what_differs(part, change, folder):
    with pytest.raises(
        ValueError, match=f"`checkpoint` must be a folder .* holds another {part}\\."
    ):
        study(out=folder, **change)


def test_folder_of_other_networks_of_any_seed_is_refused(folder):
    twice = lambda net: jax.tree.map(lambda leaf: 2 * leaf if eqx.is_array(leaf) else leaf, net)  # noqa: E731

    def other(width, key):
        net = FCN(3, width, 1, key=key)
        return twice(net) if jr.key_data(key)[-1] == 1 else net

    sentence = r"fcn-4-seeds-0-1.nc cannot be used: it is of other networks than `make_model` makes"
    with pytest.raises(ValueError, match=sentence):
        study(out=folder, make=other)


def test_batch_that_fails_is_named(folder):
    def unlike(width, key):
        # Of width 5 the networks of seeds 0 and 1 have depths of their own.
        deeper = width == 5 and bool(jr.key_data(key)[-1] == 1)
        return FCN(3, width, 1 + deeper, key=key)

    sentence = r"^cell fcn-5-seeds-0-1 failed: ValueError: `make_model` must .*; 1 of 2 cells are"
    with pytest.raises(SweepError, match=sentence):
        study((4, 5), 2, folder, make=unlike)
