"""Studies over sizes as labelled datasets and tidy tables: labels mean what they say."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import nthsim as nth

FAMILIES, DEPTHS, SEEDS = ("FCN", "Résnet"), (1, 2, 4, 6), (1, 3, 5, 8, 13)
ORDERS, RANKS, TS = (2, 3, 4), (2, 3, 4), (0.0, 0.5, 2.0)


def _numbered(*axes):
    """An array whose numbers are all different."""
    shape = tuple(map(len, axes))
    return np.arange(1.0, 1 + np.prod(shape)).reshape(shape)


@pytest.fixture(scope="module")
def study():
    """A study over depth, made up, in which every number tells its place."""
    networks, errors = (FAMILIES, DEPTHS, SEEDS), _numbered(FAMILIES, DEPTHS, SEEDS, ORDERS, TS)
    entries = range(2)
    return nth.Scaling(
        axis="depth",
        families=FAMILIES,
        sizes=np.array(DEPTHS),
        seeds=np.array(SEEDS),
        orders=ORDERS,
        ts=np.array(TS),
        data=nth.sphere(2, 3, dim=3),
        loss=nth.squared_error,
        solver=nth.solvers.Auto(),
        initial_f=_numbered(*networks, entries),
        initial_kernels=_numbered(*networks, entries, entries),
        kernel_rms=_numbered(*networks, RANKS),
        kernel_max=2 * _numbered(*networks, RANKS),
        kernel_mean=3 * _numbered(*networks, RANKS),
        drift=_numbered(*networks, TS),
        seconds=_numbered(FAMILIES, DEPTHS),
        networks=("a network", "another"),
        steps="some steps",
        subject={"data": "of no study"},
        predicted=(None, None),
        error_f=errors,
        error_f_test=2 * errors,
        error_kernel=np.where(errors == errors.max(), np.nan, errors),
        blown_up=(errors.max(axis=-1) == errors.max()).astype(np.int8),
    )


@pytest.fixture(scope="module")
def saved(study, tmp_path_factory):
    path = tmp_path_factory.mktemp("labels") / "a.nc"
    study.save(path)
    return path


def test_file_is_the_labelled_dataset_and_comes_back_bit_by_bit(study, saved):
    with xr.open_dataset(saved, engine="h5netcdf") as dataset:
        xr.testing.assert_identical(study.to_xarray(), dataset.load())
    loaded = nth.Scaling.load(saved)
    for field in dataclasses.fields(study):
        one, other = getattr(study, field.name), getattr(loaded, field.name)
        if isinstance(one, np.ndarray):
            assert (other.dtype, other.shape, other.tobytes()) == (
                one.dtype,
                one.shape,
                one.tobytes(),
            )
        elif field.name not in ("data", "solver"):
            assert other == one


def test_numbers_are_found_by_what_they_are_of(study, saved):
    with xr.open_dataset(saved, engine="h5netcdf") as found:
        assert not set(found.dims) - set(found.coords)
        error = found.error_f.sel(family="Résnet", size=2, seed=13, order=4, t=0.5)
        assert error == study.error_f[1, 1, 4, 2, 1]
        assert (
            found.kernel_max.sel(family="FCN", size=6, seed=3, rank=2)
            == (study.kernel_max[0, 3, 1, 0])
        )
        with pytest.raises(KeyError):
            found.error_f.sel(order=0)
        assert {found[name].dtype.name for name in ("size", "seed", "order", "rank")} == {"int32"}


def test_seed_that_needs_more_bits_is_kept_whole(study, tmp_path):
    seeds = np.array([1, 3, 5, 8, 2**31])
    dataclasses.replace(study, seeds=seeds).save(tmp_path / "a.nc")
    np.testing.assert_array_equal(nth.Scaling.load(tmp_path / "a.nc").seeds, seeds)
    with xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf") as found:
        assert found.drift.sel(family="FCN", size=1, seed=2**31, t=2.0) == study.drift[0, 0, 4, 2]


def test_table_has_each_number_once_beside_its_labels(study):
    table = study.to_dataframe()
    whole = study.to_xarray().rename(size="depth")
    given = {"x", "y", "x_test", "y_test", "initial_kernels"}
    assert set(table.columns) == (set(whole.data_vars) - given) | {
        "family", "depth", "seed", "entry", "rank", "order", "t",
    }  # fmt: skip
    for name in set(whole.data_vars) - given:
        variable = whole[name]
        others = {"family", "depth", "seed", "entry", "rank", "order", "t"} - set(variable.dims)
        rows = table[
            table[[*variable.dims]].notna().all(axis=1) & table[[*others]].isna().all(axis=1)
        ]
        assert len(rows) == variable.size
        for row in rows.to_dict("records"):
            value = variable.sel({axis: row[axis] for axis in variable.dims})
            np.testing.assert_array_equal(row[name], value)
        assert table[name].count() == int(variable.notnull().sum())


def test_table_answers_a_question_in_one_line(study):
    table = study.to_dataframe()
    assert isinstance(table.index, pd.RangeIndex)
    assert (table.columns.get_loc("family"), table.columns.get_loc("depth")) == (0, 1)
    [found] = table.query(
        "family == 'FCN' and depth == 4 and seed == 5 and order == 3 and t == 2"
    ).error_f
    assert found == study.error_f[0, 2, 2, 1, 2]
    medians = table.groupby(["family", "depth", "order", "t"]).error_f.median()
    np.testing.assert_array_equal(
        medians["Résnet", 6, 2, 0.5], np.median(study.error_f[1, 3, :, 0, 1])
    )
    assert str(table.order.dtype) == str(table.blown_up.dtype) == "Int64"
    assert table.blown_up.sum() == 1


def test_study_without_orders_has_tables_too(study):
    bare = dict.fromkeys(("error_f", "error_f_test", "error_kernel", "blown_up"))
    study = dataclasses.replace(study, orders=(), **bare)
    assert "order" not in study.to_xarray().dims
    table = study.to_dataframe()
    assert "order" not in table
    assert table.drift.count() == study.drift.size
