"""The error of solving beside what is shown."""

import dataclasses

import diffrax as dfx
import jax.random as jr
import numpy as np
import pytest
from networks import NETWORKS

import nthsim as nth
from nthsim.results.figure import DOUBTFUL
from nthsim.solvers import Explicit

TS = np.array([0.0, 4.0, 8.0])


def data():
    keys = jr.split(jr.key(0), 3)
    return nth.Dataset(
        jr.normal(keys[0], (5, 4)), jr.normal(keys[1], (5,)), jr.normal(keys[2], (2, 4))
    )


def compared(rtol):
    return nth.compare(
        NETWORKS["resnet"],
        data(),
        (2, nth.Taylor(1)),
        nth.Run(TS, solver=Explicit(rtol=rtol, method=dfx.Tsit5()), record=()),
        certify=False,
        audit=True,
    )


@pytest.fixture(scope="module")
def loose():
    return compared(1e-2)


@pytest.fixture(scope="module")
def tight():
    return compared(1e-9)


def test_solver_error_is_about_the_distance_from_a_tight_solve(loose, tight):
    pairs = [(study.exact, study.curve(nth.Taylor(1))) for study in (loose, tight)]
    for run, exact in zip(*pairs, strict=True):
        error = np.sqrt(np.mean((run.f - exact.f) ** 2, axis=1))
        assert 1 / 3 < run.solver_error[-1] / error[-1] < 3
        assert run.solver_error[0] == 0
    assert tight.exact.solver_error.max() < 1e-3 * loose.exact.solver_error.max()


def test_difference_below_the_error_of_solving_is_marked_in_table_and_figure(tight):
    assert tight.exact.solver_error.max() < 1e-6
    assert "*" not in str(tight).split("is below it")[1]
    assert DOUBTFUL not in {text.get_text() for text in tight.plot().legends[0].get_texts()}
    # As if exact flow had been solved badly at the last time, where errors are largest.
    off = dataclasses.replace(tight.exact, solver_error=np.array([0.0, 0.0, 10.0]))
    doubted = dataclasses.replace(tight, exact=off)
    lines = str(doubted).split("to t =")[0].splitlines()
    rows = [line for line in lines if line.startswith(("order", "Taylor"))]
    assert len(rows) == 2
    assert all(row.count("*") == 2 for row in rows)
    assert max(map(len, lines)) <= 100
    assert DOUBTFUL in {text.get_text() for text in doubted.plot().legends[0].get_texts()}


def test_audited_comparison_comes_back(loose, tmp_path):
    loose.save(tmp_path / "orders.nc")
    again = nth.Comparison.load(tmp_path / "orders.nc")
    assert again.asked.audit
    assert str(again) == str(loose)
    for name, series in loose.floors().items():
        np.testing.assert_array_equal(again.floors()[name], series)


def test_comparison_without_audit_says_nothing_of_solving(tight):
    bare = dataclasses.replace(tight.exact, solver_error=None)
    asked = dataclasses.replace(tight.asked, audit=False)
    plain = dataclasses.replace(tight, exact=bare, asked=asked)
    assert "solving" not in str(plain)
    assert not plain.floors()
