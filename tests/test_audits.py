"""The error of solving beside what is shown."""

import dataclasses

import jax.random as jr
import numpy as np
import pytest
from networks import NETWORKS

import nthsim as nth
from nthsim.figures import DOUBTFUL
from nthsim.solvers import Explicit

TS = np.linspace(0.0, 1.0, 6)


def data():
    keys = jr.split(jr.key(0), 3)
    return nth.Dataset(
        jr.normal(keys[0], (5, 4)), jr.normal(keys[1], (5,)), jr.normal(keys[2], (2, 4))
    )


def compared(rtol, **settings):
    return nth.compare(
        NETWORKS["resnet"],
        data(),
        (2, 4),
        TS,
        solver=Explicit(rtol=rtol),
        certify=False,
        **settings,
    )


@pytest.fixture(scope="module")
def loose():
    return compared(0.3, audit=True, taylor=(1,), record_kernel=False)


@pytest.fixture(scope="module")
def tight():
    return compared(1e-9, audit=True, record_kernel=False)


def test_solver_error_is_the_distance_from_a_tight_solve(loose, tight):
    for run, exact in ((loose.exact, tight.exact), (loose.truncations[1], tight.truncations[1])):
        error = np.sqrt(np.mean((run.f - exact.f) ** 2, axis=1))
        np.testing.assert_allclose(run.solver_error[1:], error[1:], rtol=0.5)
        assert run.solver_error[0] == 0


def test_difference_below_the_error_of_solving_is_marked_in_table_and_figure(loose, tight):
    rows = {line.split("  ")[0]: line for line in str(loose).splitlines()}
    assert "solving" in str(loose)
    assert rows["order 4"].count("*") == 2
    assert DOUBTFUL in {text.get_text() for text in loose.plot().legends[0].get_texts()}
    assert "*" not in str(tight).split("to t =")[0].split("below that")[1]
    assert DOUBTFUL not in {text.get_text() for text in tight.plot().legends[0].get_texts()}


def test_audited_comparison_comes_back(loose, tmp_path):
    loose.save(tmp_path / "orders.nc")
    again = nth.Comparison.load(tmp_path / "orders.nc")
    assert again.audit
    assert str(again) == str(loose)
    for name, series in loose.floors().items():
        np.testing.assert_array_equal(again.floors()[name], series)


def test_comparison_without_audit_says_nothing_of_solving(tight):
    plain = dataclasses.replace(
        tight,
        exact=dataclasses.replace(tight.exact, solver_error=None),
        audit=False,
    )
    assert "solving" not in str(plain)
    assert not plain.floors()
