"""The search for miscompiled programs compares with references that are right."""

import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
if not BENCHMARKS.is_dir():
    pytest.skip("benchmarks belong to the checkout alone", allow_module_level=True)
sys.path.insert(0, str(BENCHMARKS))

import jax.random as jr  # noqa: E402
from canary import calls, forms, networks  # noqa: E402
from canary.cases import LOSSES, judged  # noqa: E402
from canary.reference import Reference  # noqa: E402

import nthsim  # noqa: E402
from nthsim.solvers import Explicit  # noqa: E402

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(5, 4)), RNG.normal(size=3)


def subject(model, twin, loss="user's"):
    function, mine = LOSSES[loss]
    reference = Reference(twin, calls.arrays(model), X, Y, mine)
    data = nthsim.Dataset(X[:3], Y, X[3:])
    return calls.Subject(model, data, function, Explicit(rtol=1e-10), reference)


def formula(kind):
    return subject(*forms.form(kind, "erf", (4, 3, 1), np.random.default_rng(1), "float64"))


def test_the_exact_flow_of_a_convolutional_network_is_that_of_the_reference():
    model = networks.convolutional("tanh", (4, 2, "scalar"), jr.key(1))
    found = calls.flow(subject(*model), "flow", 0, "auto")
    assert judged(found, "float64")["verdict"] == "right"


def test_the_third_order_as_a_series_is_that_of_the_reference():
    found = calls.flow(formula("log Σ exp"), "order", 3, "series")
    assert judged(found, "float64")["verdict"] == "right"


def test_the_fourth_kernel_is_that_of_the_reference():
    found = calls.kernel(formula("gated"), 4, "nested", first=True)
    assert judged(found, "float64")["verdict"] == "right"


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_number_that_is_off_by_a_hundredth_is_wrong(dtype):
    right = np.linspace(1.0, 2.0, 5)
    found = [calls.Found("f", right + 0.05 * (right > 1.9), right, right - 1)]
    assert judged(found, dtype)["verdict"] == "WRONG"
