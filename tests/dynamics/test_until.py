"""Runs that end before their last save time because they were told to."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from networks import NETWORKS
from scipy.optimize import root_scalar

import nthsim as nth
from nthsim.solvers import Auto, Explicit, Exponential, Implicit, Until

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


def test_run_ends_where_it_comes_to_a_loss_and_records_it(data, whole):
    target = 0.3 * whole.loss[0]
    flow = trained(data, Until(loss=target), record=("kernel",))
    assert flow.stop.reason == "loss"
    assert not flow.stop.failed
    assert (1 - 1e-5) * target < flow.loss[-1] < target < flow.loss[-2]
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
    np.testing.assert_allclose(np.sqrt(c @ np.asarray(kernel) @ c), 1e-2, rtol=1e-4)


def test_loss_that_passes_through_zero_has_not_stalled_there(data):
    poisson = lambda f, y: jnp.exp(f) - (2 + y**2) * f  # noqa: E731
    run = nth.Run([40.0], solver=SOLVER, until=Until(stalled=0.01))
    flow = nth.gradient_flow(NETWORKS["fcn"], data, run, loss=poisson)
    assert flow.stop.reason == "stalled"
    t, h = flow.stop.t, 1e-3
    before = nth.gradient_flow(
        NETWORKS["fcn"], data, nth.Run([0.0, t - h, t], solver=SOLVER), loss=poisson
    ).loss
    assert before[0] > 0 > before[1]
    np.testing.assert_allclose((before[1] - before[2]) / h / -before[2], 0.01, rtol=0.01)


def test_truncations_end_where_their_own_loss_stalls(data):
    order2 = lambda ts, **until: nth.hierarchy(  # noqa: E731
        NETWORKS["fcn"], data, 2, nth.Run(ts, solver=SOLVER, **until), method="dense"
    )
    run = order2(TS, until=Until(stalled=0.18))
    assert run.stop.reason == "stalled"
    t, h = run.stop.t, 1e-4
    later = order2([t, t + h])
    # The difference's own error is of h.
    rate = (later.loss[0] - later.loss[1]) / h / later.loss[0]
    np.testing.assert_allclose(rate, 0.18, rtol=1e-3)


class Linear(eqx.Module):
    """f = w x."""

    w: jax.Array

    def __call__(self, x):
        return self.w @ x


STIFF = np.array([1.0, 30.0, 300.0])
SAVE_TIMES = ([0.0, 90.0], np.linspace(0.0, 46.0, 24), nth.log_times(1e-3, 80.0, 6))


@pytest.mark.parametrize("target", [1e-1, 1e-6])
@pytest.mark.parametrize("method", [Explicit, Exponential, Implicit, Auto])
def test_time_to_a_loss_is_that_of_the_closed_form(method, target):
    # Samples at right angles: each residual decays at its own rate.
    model, data = Linear(jnp.zeros(3)), nth.Dataset(np.diag(np.sqrt(STIFF)), [1.0, -1.0, 0.5])
    decay = lambda t: np.mean(data.y**2 * np.exp(-2 * STIFF / 3 * t)) / 2  # noqa: E731
    gap = lambda t: np.log(decay(t) / target)  # noqa: E731
    true = root_scalar(gap, bracket=(0.0, 90.0), xtol=1e-13).root
    for ts in (*SAVE_TIMES, [0.0, 0.9 * true, true, true * (1 + 1e-13), 90.0]):
        run = nth.Run(ts, solver=method(rtol=1e-9), until=Until(loss=target))
        flow = nth.gradient_flow(model, data, run)
        assert flow.stop.reason == "loss"
        # The tolerance is on the solution: the loss is 1e-6 where residuals are 1e-3.
        np.testing.assert_allclose(flow.stop.t, true, rtol=1e-7)
        assert flow.ts[-1] == flow.stop.t
        np.testing.assert_array_equal(flow.ts[:-1], [t for t in ts if t < flow.stop.t])
        np.testing.assert_allclose(flow.loss[-1], target, rtol=1e-6)
        np.testing.assert_allclose(flow.f[-1], jax.vmap(flow.model)(data.x), rtol=1e-12)


DYNAMICS = {
    "order 3, dense": (nth.hierarchy, 3, {"method": "dense"}, Exponential()),
    "order 3, series": (nth.hierarchy, 3, {"method": "series"}, Explicit()),
    "degree 2": (nth.taylor, 2, {}, Implicit()),
}


@pytest.mark.parametrize("name", DYNAMICS)
def test_time_to_a_loss_does_not_depend_on_the_save_times(data, name):
    dynamics, degree, method, solver = DYNAMICS[name]
    runs = []
    for ts in SAVE_TIMES:
        run = nth.Run(ts, solver=solver, until=Until(loss=0.2), record=("kernel",))
        runs.append(dynamics(NETWORKS["fcn"], data, degree, run, **method))
    first = runs[0]
    assert first.stop.reason == "loss"
    for run in runs[1:]:
        np.testing.assert_allclose(run.stop.t, first.stop.t, rtol=1e-6)
        np.testing.assert_allclose(run.f[-1], first.f[-1], atol=1e-6)
        np.testing.assert_allclose(run.kernel[-1], first.kernel[-1], rtol=1e-5)
        assert run.stop.t == run.ts[-1] == run.record_ts[-1]


class Folded(eqx.Module):
    """f = relu(w)."""

    w: jax.Array

    def __call__(self, x):
        return jax.nn.relu(self.w @ x)


def test_limit_that_is_jumped_over_is_met_at_the_jump():
    # w + 1 decays like exp(-t); where w is 0 the gradient falls from 1 to 0.
    data = nth.Dataset([[1.0]], [-1.0])
    run = nth.Run([0.0, 5.0], solver=SOLVER, until=Until(gradient=0.5))
    flow = nth.gradient_flow(Folded(jnp.array([2.0])), data, run)
    assert flow.stop.reason == "gradient"
    # A step over a kink misses the tolerance, by how much depends on rounding.
    assert flow.stats.forced > 0
    np.testing.assert_allclose(flow.stop.t, np.log(3.0), rtol=0.1)
    assert float(flow.model.w[0]) <= 0


def test_first_of_two_limits_ends_a_run(data, whole):
    loss, gradient = 0.3 * whole.loss[0], 1e-2
    times = {
        limits: trained(data, Until(**dict(limits))).stop.t
        for limits in ((("loss", loss),), (("gradient", gradient),))
    }
    both = trained(data, Until(loss=loss, gradient=gradient))
    np.testing.assert_allclose(both.stop.t, min(times.values()), rtol=3e-6)
    assert both.stop.reason == min(times, key=lambda limits: times[limits])[0][0]


def test_run_that_is_below_a_limit_at_its_start_ends_there(data):
    flow = trained(data, Until(loss=1e9))
    assert flow.stop.reason == "loss"
    np.testing.assert_array_equal(flow.ts, [0.0])


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
        nth.Run(TS, solver=SOLVER, until=Until(loss=target), label="é" * 50, checkpoint=tmp_path),
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


def test_loss_whose_gradient_is_not_that_of_its_value_has_no_rate_of_its_own(data):
    held = lambda f, y: (f - jax.lax.stop_gradient(0.9 * f + 0.1 * y)) ** 2  # noqa: E731
    net, ts = NETWORKS["fcn"], [1.0, 4.0]
    stalled = nth.Run(ts, until=Until(stalled=0.03))
    refusal = pytest.raises(ValueError, match=r"^`until` must have no stalled where the gradient ")
    with refusal:
        nth.gradient_flow(net, data, stalled, loss=held)
    with refusal:
        nth.hierarchy(net, data, 2, stalled, loss=held)
    whole = nth.gradient_flow(net, data, nth.Run(ts), loss=lambda f, y: 0.1 * (f - y) ** 2)
    short = nth.gradient_flow(net, data, nth.Run(ts, until=Until(gradient=1e-9)), loss=held)
    np.testing.assert_allclose(short.f, whole.f, rtol=1e-6)


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
