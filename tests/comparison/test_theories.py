"""Comparisons carry theories along, by their names."""

import dataclasses

import numpy as np
import studies
from numpy.testing import assert_allclose

import nthsim as nth
from nthsim.results.terminal import COLUMNS
from nthsim.solvers import Auto


def test_theories_are_those_that_are_computed_alone():
    study = studies.predicted()
    assert list(study.curves) == ["order 2", "limit kernel", "perturbation"]
    theory = nth.perturbation(
        study.asked.model, study.asked.data, nth.Run(studies.TS, record=("kernel",))
    )
    solver = Auto(rtol=1e-5)
    limit = nth.limit_flow(
        study.asked.model, study.asked.data, nth.Run(studies.TS, solver=solver, record=("kernel",))
    )
    for name, alone in (("perturbation", theory), ("limit kernel", limit)):
        run = study.curves[name]
        for part in ("f", "f_test", "loss", "test_loss", "kernel", "kernel_test"):
            assert_allclose(getattr(run, part), getattr(alone, part), rtol=1e-12, atol=1e-13)


def test_theories_have_their_rows_and_curves():
    study = studies.predicted()
    lines = str(study).splitlines()
    for name in ("limit kernel", "perturbation"):
        assert len([line for line in lines if line.startswith(f"{name} ")]) == 2
    figure = study.plot()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[:4] == ["exact flow", "order 2", "limit kernel", "perturbation"]
    drawn = {line.get_label(): line for line in figure.axes[1].get_lines()}
    looks = {(line.get_color(), line.get_marker()) for line in drawn.values()}
    assert len(looks) == len(drawn)
    assert study.bounds is not None
    bound = np.asarray(drawn["a-priori bound, order 2"].get_ydata())
    np.testing.assert_array_equal(bound, study.bounds.f_bound[1:])
    dashed = {line.get_label(): line for line in figure.axes[3].get_lines()}
    bound = dashed["a-priori bound on the drift"].get_ydata()
    np.testing.assert_array_equal(bound, study.bounds.drift_bound[1:])


def test_text_tells_the_bounds_beside_what_was_measured():
    study = studies.predicted()
    lines, bounds, drift = str(study).splitlines(), study.bounds, study.drift()
    assert bounds is not None
    assert drift is not None
    [line] = [one for one in lines if one.startswith("a-priori bound on the error of f")]
    error = study.errors(2).train_rms.max()
    assert line.endswith(f": {bounds.f_bound[-1]:.1e} at the end; measured at most {error:.1e}")
    assert max(map(len, lines)) <= COLUMNS
    [line] = [one for one in lines if one.startswith("a-priori bound on the drift")]
    end = f"{bounds.drift_bound[-1]:.1e} at the end; measured at most {drift.max():.1e}"
    assert line.endswith(f": {end}")


def test_theories_and_bounds_come_back_from_a_file_and_are_asked_for_again(tmp_path):
    study = studies.predicted()
    study.save(tmp_path / "a.nc")
    loaded = nth.Comparison.load(tmp_path / "a.nc")
    assert studies.same(loaded, study)
    assert str(loaded) == str(study)
    assert loaded.asked.curves == (nth.Order(2), nth.LimitKernel(), nth.Perturbation())
    assert loaded.asked.bounds


def test_text_of_a_comparison_that_was_interrupted_names_what_is_missing():
    study = dataclasses.replace(
        studies.predicted(), curves={"order 2": studies.predicted().curve(2)}, bounds=None
    )
    lines = [line for line in str(study).splitlines() if line.endswith("not started")]
    assert lines == [f"{name}: not started" for name in ("limit kernel", "perturbation", "bounds")]
