"""Gradient flow of Taylor polynomials."""

import jax.numpy as jnp
import numpy as np
import pytest
from networks import NETWORKS
from oracles import Product
from studies import TS, points

import nthsim as nth
from nthsim.solvers import Auto, Explicit

SOLVER = Explicit(rtol=1e-9)


def test_degree_one_is_the_hierarchy_at_order_two():
    model, data = NETWORKS["mlp with biases"], points()
    linear = nth.taylor(model, data, 1, nth.Run(TS, solver=SOLVER, record=("kernel",)))
    frozen = nth.hierarchy(model, data, 2, nth.Run(TS, solver=SOLVER, record=("kernel",)))
    for name in ("f", "f_test", "loss", "kernel", "kernel_test"):
        ours, theirs = getattr(linear, name), getattr(frozen, name)
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-9, err_msg=name)


def test_polynomial_of_the_network_s_own_degree_is_the_network():
    """f = w1 w2 w3 is its own Taylor polynomial of degree 3, and not that of degree 2."""
    data = nth.Dataset(np.ones((1, 1)), np.array([0.3]))
    run = lambda q: nth.taylor(Product(jnp.ones(3)), data, q, nth.Run(TS, solver=SOLVER))  # noqa: E731
    exact = nth.gradient_flow(Product(jnp.ones(3)), data, nth.Run(TS, solver=SOLVER))
    np.testing.assert_allclose(run(3).f, exact.f, rtol=1e-9)
    assert abs(run(2).f[-1] - exact.f[-1]) > 1e-3


def test_comparison_carries_taylor_models_along(tmp_path):
    study = nth.compare(
        NETWORKS["fcn"],
        points(),
        (2, nth.Taylor(2), nth.Taylor(1)),
        nth.Run(TS, solver=Auto(rtol=1e-5)),
        certify=False,
    )
    assert list(study.curves) == ["order 2", "Taylor 1", "Taylor 2"]
    np.testing.assert_allclose(study.curve(nth.Taylor(1)).f, study.curve(2).f, atol=1e-4)
    for name in ("Taylor 1", "Taylor 2"):
        assert str(study).count(f"\n{name}") == 3
    labels = [text.get_text() for text in study.plot().legends[0].get_texts()]
    assert {"Taylor 1", "Taylor 2", "order 2", "exact flow"} < set(labels)
    study.save(tmp_path / "study.nc")
    again = nth.Comparison.load(tmp_path / "study.nc")
    assert str(again) == str(study)
    np.testing.assert_array_equal(again.curve(nth.Taylor(2)).f, study.curve(nth.Taylor(2)).f)
    with pytest.raises(ValueError, match="`which` must be one of"):
        study.curve(nth.Taylor(3))


@pytest.mark.parametrize("degree", [0, -1])
def test_degree_is_a_positive_integer(degree):
    with pytest.raises(ValueError, match="`degree` must be an integer of at least 1"):
        nth.taylor(NETWORKS["fcn"], points(), degree, TS)
