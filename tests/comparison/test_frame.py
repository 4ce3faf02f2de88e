"""Comparisons and runs as tidy tables."""

import dataclasses

import numpy as np
import pandas as pd
import studies

from nthsim.results.record import Label


def test_table_of_a_comparison_has_a_row_for_each_curve_and_time():
    study = studies.scalar()
    table = study.to_dataframe()
    assert isinstance(table.index, pd.RangeIndex)
    assert list(table.curve.unique()) == ["exact flow", "order 2", "order 3"]
    for key, rows in table.groupby("curve"):
        run = study.exact if key == "exact flow" else study.curve(str(key))
        np.testing.assert_array_equal(rows.t, run.ts)
        np.testing.assert_array_equal(rows.loss, run.loss)
        np.testing.assert_array_equal(rows.test_loss, run.test_loss)
    found, true = table[table.curve == "order 3"], study.errors(3)
    np.testing.assert_array_equal(found.error_f, true.train_rms)
    np.testing.assert_array_equal(found.error_f_test_max, true.test_max)
    np.testing.assert_array_equal(found.error_kernel, true.kernel)
    np.testing.assert_array_equal(table[table.curve == "exact flow"].drift, study.drift())
    assert table[table.curve == "exact flow"].error_f.isna().all()


def test_table_of_a_run_that_ended_early_ends_with_it():
    study = studies.blow_up()
    table = study.to_dataframe()
    assert table.curve.value_counts().to_dict() == {
        "exact flow": 16, "order 3": len(study.curve(3).ts),
    }  # fmt: skip
    assert "error_f_test" not in table


def test_table_of_a_run_tells_points_apart():
    run = studies.scalar().exact
    table = run.to_dataframe()
    assert [*table.columns] == ["sample", "test_sample", "t", "f", "f_test", "loss", "test_loss"]
    assert len(table) == 6 * (3 + 2 + 1)
    [f] = table[(table["sample"] == 2) & (table.t == studies.TS[3])].f
    assert f == run.f[3, 2]
    np.testing.assert_array_equal(table.loss.dropna(), run.loss)


def test_table_of_vector_outputs_has_a_column_for_the_output():
    run = studies.vector().curve(2)
    table = run.to_dataframe()
    [f] = table.query("sample == 1 and output == 1 and t == @studies.TS[2]").f
    assert f == run.f[2, 1, 1]


def test_numbers_recorded_at_fewer_times_stand_in_the_rows_of_these_times():
    run = studies.scalar().exact
    own = {"norm": np.array([1.0, 2.0])}
    run = dataclasses.replace(
        run, records=own, record_ts=studies.TS[[1, 4]], labels={"norm": Label((), "1", {})}
    )
    table = run.to_dataframe()
    rows = table[table.norm.notna()]
    np.testing.assert_array_equal(rows.t, studies.TS[[1, 4]])
    np.testing.assert_array_equal(rows.norm, [1.0, 2.0])
    np.testing.assert_array_equal(rows.loss, run.loss[[1, 4]])
