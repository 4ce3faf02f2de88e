"""Runs that end before their last save time because they were told to."""

import re

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from networks import NETWORKS

import nthsim as nth
from nthsim.solvers import Explicit, Until

TS = [0.0, 0.5, 50.0]
SOLVER = Explicit(rtol=1e-6)


@pytest.fixture(scope="module")
def data():
    keys = jr.split(jr.key(0), 3)
    return nth.Dataset(
        jr.normal(keys[0], (5, 4)), jr.normal(keys[1], (5,)), jr.normal(keys[2], (2, 4))
    )


def trained(data, until, **settings):
    return nth.gradient_flow(
        NETWORKS["fcn"], data, nth.Run(TS, solver=SOLVER, until=until, **settings)
    )


@pytest.fixture(scope="module")
def whole(data):
    return trained(data, Until())


def test_run_ends_at_the_first_step_below_a_loss_and_records_it(data, whole):
    target = 0.3 * whole.loss[0]
    flow = trained(data, Until(loss=target), record=("kernel",))
    assert flow.stop.reason == "loss"
    assert not flow.stop.failed
    assert flow.loss[-1] < target < flow.loss[-2]
    assert 0.5 < flow.ts[-1] == flow.stop.t < 50
    assert flow.f.shape == (3, 5)
    assert flow.f_test is not None
    assert flow.f_test.shape == (3, 2)
    np.testing.assert_array_equal(flow.record_ts, flow.ts)
    exact = nth.gradient_flow(NETWORKS["fcn"], data, nth.Run(flow.ts, solver=SOLVER))
    np.testing.assert_allclose(flow.f, exact.f, atol=1e-5)
    assert f"the loss fell below {target:g} at t = {flow.stop.t:.6g}" in str(flow)


def test_run_ends_where_the_gradient_is_small(data):
    flow = trained(data, Until(gradient=1e-2))
    assert flow.stop.reason == "gradient"
    kernel = nth.kernel(flow.model, data.x, 2)
    c = (flow.f[-1] - np.asarray(data.y)) / 5
    assert 1e-3 < np.sqrt(c @ np.asarray(kernel) @ c) < 1e-2


def test_truncations_end_where_their_own_loss_stalls(data):
    order2 = lambda ts, **until: nth.hierarchy(  # noqa: E731
        NETWORKS["fcn"], data, 2, nth.Run(ts, solver=SOLVER, **until), method="dense"
    )
    run = order2(TS, until=Until(stalled=0.18))
    assert run.stop.reason == "stalled"
    t, h = run.stop.t, 1e-4
    later = order2([t, t + h])
    assert 0.16 < (later.loss[0] - later.loss[1]) / h / later.loss[0] < 0.1801


def test_time_limit_keeps_what_was_reached(data):
    flow = trained(data, Until(seconds=1e-9))
    assert flow.stop.reason == "seconds"
    assert flow.ts[-1] == flow.stop.t < 50
    assert np.isfinite(flow.f).all()


def test_limit_that_is_never_met_changes_nothing(data, whole):
    flow = trained(data, Until(loss=1e-300))
    assert flow.stop.reason == "horizon"
    np.testing.assert_allclose(flow.f, whole.f, rtol=1e-12)


def test_all_of_a_comparison_end_with_exact_flow(data, whole, tmp_path):
    target = 0.3 * whole.loss[0]
    study = nth.compare(
        NETWORKS["fcn"],
        data,
        (2, 3, nth.Taylor(1)),
        nth.Run(TS, solver=SOLVER, until=Until(loss=target)),
        certify=False,
    )
    for run in study.curves.values():
        np.testing.assert_array_equal(run.ts, study.exact.ts)
        np.testing.assert_array_equal(run.record_ts, study.exact.ts)
    assert study.exact.stop.reason == "loss"
    study.save(tmp_path / "orders.nc")
    again = nth.Comparison.load(tmp_path / "orders.nc")
    assert again.asked.run.until == Until(loss=target)
    np.testing.assert_allclose(nth.rerun(again).exact.f, study.exact.f, rtol=1e-12)


def test_state_of_a_stop_right_after_a_save_time_is_recorded():
    # Inputs of this size: the loss falls within 1e-8 of time 0.
    rng = np.random.default_rng(0)
    line = eqx.nn.Linear(64, "scalar", use_bias=False, key=jr.key(3))
    data = nth.Dataset(300 * rng.uniform(0, 255, (5, 64)), [1.0, -1.0, 1.0, -1.0, 1.0])
    flow = nth.gradient_flow(line, data, nth.Run([0.0, 1.0], until=Until(loss=1e-3)))
    assert 0 < flow.ts[-1] == flow.stop.t < 1e-7
    assert flow.loss[-1] < 1e-3 < flow.loss[0]
    np.testing.assert_allclose(flow.f[-1], [flow.model(x) for x in data.x], rtol=1e-6)


@pytest.mark.parametrize("name", ["loss", "gradient", "stalled", "seconds"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), "1e-3"])
def test_limit_that_is_not_positive_is_refused(name, value):
    with pytest.raises(ValueError, match=re.escape(f"`{name}` must be a positive number, but is")):
        Until(**{name: value})


def test_times_even_in_their_logarithm_start_with_zero():
    ts = nth.log_times(0.1, 1000.0, 6)
    np.testing.assert_allclose(ts, [0, 0.1, 1, 10, 100, 1000])
    for t0, t1, num in ((0.0, 1.0, 5), (2.0, 1.0, 5), (1.0, jnp.inf, 5)):
        with pytest.raises(ValueError, match="`t0` and `t1` must be positive and rise"):
            nth.log_times(t0, t1, num)
