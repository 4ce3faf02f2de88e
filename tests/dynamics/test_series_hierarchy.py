"""Truncations without tensors: against those with them, and on their own."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from networks import NETWORKS
from oracles import Product

import nthsim as nth
from nthsim.dynamics.ladder import Ladder
from nthsim.solvers import Explicit

pytestmark = [pytest.mark.slow, pytest.mark.compiled]

TS = np.linspace(0.0, 2.0, 5)
SOLVER = Explicit(rtol=1e-9)


@functools.cache
def points(outputs: int | None = None) -> nth.Dataset:
    tail = () if outputs is None else (outputs,)
    x_key, y_key = jr.split(jr.key(0))
    x, y = jr.normal(x_key, (5, 4)), jr.normal(y_key, (5, *tail))
    return nth.Dataset(x[:3], y[:3], x[3:], y[3:])


KERNEL = ("kernel",)


def both(model, order, *, data=None, **options):
    """One truncation by either method."""
    data = points() if data is None else data
    run = nth.Run(TS, solver=SOLVER, record=KERNEL)
    return (
        nth.hierarchy(model, data, order, run, method=method, **options)
        for method in ("dense", "series")
    )


def agree(dense, series):
    for name in ("f", "f_test", "loss", "test_loss", "kernel", "kernel_test"):
        np.testing.assert_allclose(
            getattr(series, name), getattr(dense, name), rtol=1e-7, atol=1e-8, err_msg=name
        )


@pytest.mark.parametrize(
    ("name", "order"),
    [("fcn", 5), ("resnet", 2), ("mlp with biases", 3), ("convolutional", 3)],
)
def test_series_is_the_dense_truncation(name, order):
    dense, series = both(NETWORKS[name], order)
    agree(dense, series)
    assert dense.contributions is None
    terms, tests = series.contributions, series.contributions_test
    assert terms is not None
    assert terms.shape == (5, order, 3)
    np.testing.assert_allclose(terms.sum(axis=1), series.f, rtol=1e-12, atol=1e-14)
    assert tests is not None
    assert series.f_test is not None
    np.testing.assert_allclose(tests.sum(axis=1), series.f_test, atol=1e-13)


def test_series_of_vector_outputs_and_cross_entropy_is_the_dense_truncation():
    model, data = NETWORKS["mlp of three outputs"], points(3)
    data = eqx.tree_at(lambda d: (d.y, d.y_test), data, replace_fn=jax.nn.softmax)
    agree(*both(model, 3, data=data, loss=nth.softmax_cross_entropy))


class Repeated(eqx.Module):
    """One neuron that reads the input number by number, in a loop or in a scan."""

    w: jax.Array
    scanned: bool

    def __call__(self, x):
        def step(h, one):
            return jnp.tanh(self.w[0] * h + self.w[1] * one), None

        h = jnp.zeros((), x.dtype)
        if self.scanned:
            h, _ = jax.lax.scan(step, h, x)
        else:
            for one in x:
                h, _ = step(h, one)
        return self.w[2] * h


def test_module_without_taylor_rules_is_served_by_nested_derivatives():
    scanned, looped = (Repeated(jnp.array([0.7, 0.5, 1.2]), scanned) for scanned in (True, False))
    series = nth.hierarchy(scanned, points(), 3, nth.Run(TS, solver=SOLVER), method="series")
    assert "nested derivatives" in str(series)
    assert "scan" in str(series)
    other = nth.hierarchy(looped, points(), 3, nth.Run(TS, solver=SOLVER), method="series")
    assert "nested" not in str(other)
    np.testing.assert_allclose(series.f, other.f, rtol=1e-9, atol=1e-11)


def test_kernel_is_recorded_at_the_times_chosen():
    model = NETWORKS["fcn"]
    every, some, none = (
        nth.hierarchy(
            model,
            points(),
            3,
            nth.Run(TS, solver=SOLVER, record=record, record_ts=chosen),
            method="series",
        )
        for record, chosen in ((KERNEL, None), (KERNEL, [0.5, 2.0]), ((), None))
    )
    assert every.kernel is not None
    assert every.kernel_test is not None
    np.testing.assert_array_equal(every.record_ts, TS)
    np.testing.assert_array_equal(some.record_ts, [0.5, 2.0])
    np.testing.assert_array_equal(some.kernel, every.kernel[[1, 4]])
    np.testing.assert_array_equal(some.kernel_test, every.kernel_test[[1, 4]])
    assert none.kernel is None


def test_blow_up_of_a_series_is_reported_where_that_of_the_tensors_is():
    """f = w1 w2 w3 at (1, 1, 1), n = 1: order 3 runs to infinity at t* = 7.459 for y = 0.6."""
    data = nth.Dataset(jnp.ones((1, 1)), jnp.array([0.6]))
    ts = np.linspace(0.0, 10.0, 11)
    run = nth.hierarchy(Product(jnp.ones(3)), data, 3, nth.Run(ts, throw=False), method="series")
    assert run.stop.reason == "blow-up"
    assert run.stop.t == pytest.approx(7.459, abs=1e-3)
    assert len(run.ts) == 8


def test_order_is_raised_until_it_makes_no_difference():
    model, ts = NETWORKS["fcn"], [0.1, 0.3]
    run = nth.hierarchy(model, points(), "auto", ts, tol=1e-2, method="dense")
    ladder = run.ladder
    assert ladder is not None
    assert ladder.reached
    assert ladder.orders == (2, 3, 4, 5)
    assert max(ladder.differences[1:]) <= 1e-2 < ladder.differences[0]
    assert run.name == "order-5 truncation"
    one, other = (nth.hierarchy(model, points(), p, ts, method="dense") for p in (3, 4))
    apart = [
        np.sqrt(np.mean((getattr(one, name) - getattr(other, name)) ** 2, axis=1)).max()
        for name in ("f", "f_test")
    ]
    assert ladder.differences[1] == pytest.approx(max(apart), rel=1e-6)
    assert "order 5 of orders 2 to 5 tried, within tol 0.01 of the two below it" in str(run)


def test_odd_kernels_that_vanish_do_not_end_the_search_for_an_order():
    # With f odd in the readout and zero at the start, orders 2 and 3 are one.
    net = eqx.nn.MLP(4, "scalar", 3, 1, activation=jnp.tanh, key=jr.key(0))
    last = lambda net: (net.layers[-1].weight, net.layers[-1].bias)  # noqa: E731
    still = eqx.tree_at(last, net, tuple(jnp.zeros_like(a) for a in last(net)))
    run = nth.Run([0.0, 0.3], throw=False)
    found = nth.hierarchy(still, points(), "auto", run, max_order=4, method="series")
    assert found.ladder is not None
    assert found.ladder.differences[0] < 1e-8 < 1e-3 < found.ladder.differences[1]
    assert not found.ladder.reached


def test_order_that_is_not_found_is_said_and_kept(tmp_path):
    with pytest.raises(nth.SolveError, match="NOT within tol 1e-12") as caught:
        nth.hierarchy(NETWORKS["fcn"], points(), "auto", TS, tol=1e-12, max_order=4)
    run = caught.value.trajectory
    assert run.ladder is not None
    assert run.ladder == Ladder((2, 3, 4), run.ladder.differences, 1e-12, reached=False)
    run.save(tmp_path / "run.nc")
    again = nth.Trajectory.load(tmp_path / "run.nc")
    assert again.ladder == run.ladder
    assert again.method == run.method


def test_truncation_that_blows_up_is_no_order_to_stop_at():
    data = nth.Dataset(jnp.ones((1, 1)), jnp.array([0.3]))
    options = {"tol": 0.2, "max_order": 4, "method": "dense"}
    asked = nth.Run([1.0, 3.0], throw=False)
    run = nth.hierarchy(Product(jnp.ones(3)), data, "auto", asked, **options)
    assert run.ladder is not None
    assert run.ladder.differences[0] == np.inf
    assert not run.ladder.reached


def test_file_keeps_contributions_and_chosen_kernels(tmp_path):
    run = nth.hierarchy(
        NETWORKS["fcn"],
        points(),
        3,
        nth.Run(TS, solver=SOLVER, record=("kernel",), record_ts=[2.0]),
        method="series",
    )
    run.save(tmp_path / "run.nc")
    again = nth.Trajectory.load(tmp_path / "run.nc")
    for field in dataclasses.fields(run):
        if isinstance(value := getattr(run, field.name), np.ndarray):
            np.testing.assert_array_equal(getattr(again, field.name), value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"order": "best"}, '`order` must be an integer of at least 2 or "auto"'),
        ({"order": "auto", "tol": 0.0}, "`tol` must be a positive number"),
        ({"order": "auto", "tol": np.nan}, "`tol` must be a positive number"),
        ({"order": "auto", "max_order": 3}, "`max_order` must be an integer of at least 4"),
        ({"order": 3, "method": "sparse"}, "`method` must be one of 'auto', 'dense', 'series'"),
    ],
)
def test_mistakes_are_named(options, sentence):
    order = options.pop("order")
    with pytest.raises(ValueError, match=sentence):
        nth.hierarchy(NETWORKS["fcn"], points(), order, TS, **options)
