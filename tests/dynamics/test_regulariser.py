"""Flow of the loss and of what is added to it, exact and truncated."""

import re
from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from scipy.integrate import solve_ivp
from scipy.linalg import expm

import nthsim as nth
from nthsim.dynamics.pose import pose
from nthsim.dynamics.start import Start
from nthsim.models import FCN
from nthsim.solvers import Explicit, Exponential, Until

X, Y = jr.normal(jr.key(1), (5, 3)), jnp.sin(jnp.arange(5.0))
DATA = nth.Dataset(X, Y, X[:2] + 0.1)
NET = FCN(3, 4, 2, key=jr.key(0))
TS = [0.5, 1.5]
RUN = nth.Run(TS, solver=Explicit(rtol=1e-10))
DECAY = nth.WeightDecay(0.3)


def wave(model):
    """A regulariser of a user's own, with derivatives of every order."""
    return 0.2 * jnp.sum(jnp.sin(model.layers[0].weight) ** 2)


def lasso(model):
    return 0.01 * jnp.sum(jnp.abs(model.layers[0].weight))


class Line(eqx.Module):
    weight: jax.Array

    def __call__(self, x):
        return self.weight @ x


@pytest.mark.parametrize("towards", ["zero", "start"])
@pytest.mark.parametrize("solver", [Explicit(rtol=1e-11), Exponential(rtol=1e-9)], ids=repr)
def test_linear_model_follows_the_closed_form_to_the_ridge_solution(towards, solver):
    start, decay = jnp.array([0.3, -0.2, 0.5]), nth.WeightDecay(0.4, towards)
    centre = np.asarray(start) * (towards == "start")
    second = np.asarray(X.T @ X) / 5 + 0.4 * np.eye(3)
    ridge = np.linalg.solve(second, np.asarray(X.T @ Y) / 5 + 0.4 * centre)
    run = nth.Run([0.3, 2.0, 60.0], solver=solver)
    flow = nth.gradient_flow(Line(start), DATA, run, regulariser=decay)
    for t, f in zip(flow.ts, flow.f, strict=True):
        w = ridge + expm(-t * second) @ (np.asarray(start) - ridge)
        assert np.allclose(f, X @ w, rtol=0, atol=1e-8)
    assert np.allclose(flow.model.weight, ridge, rtol=0, atol=1e-8)
    linear = nth.taylor(Line(start), DATA, 1, run, regulariser=decay)
    assert np.allclose(linear.f, flow.f, rtol=0, atol=1e-8)


@pytest.mark.parametrize("regulariser", [DECAY, wave], ids=["decay", "wave"])
def test_flow_is_that_of_loss_and_regulariser_at_the_rates(regulariser):
    rates = eqx.tree_at(lambda net: net.readout.weight, jax.tree.map(lambda _: 1.0, NET), 0.25)
    theta, static = eqx.partition(NET, eqx.is_inexact_array)
    flat, back = ravel_pytree(theta)
    speeds = ravel_pytree(jax.tree.map(lambda a, rate: rate * jnp.ones_like(a), theta, rates))[0]

    def model(row):
        return eqx.combine(back(row), static)

    def objective(row):
        squares = (jax.vmap(model(row))(X) - Y) ** 2
        added = 0.15 * row @ row if regulariser is DECAY else wave(model(row))
        return 0.5 * jnp.mean(squares) + added

    slope = jax.jit(jax.grad(objective))
    side = lambda _, row: -np.asarray(speeds * slope(row))  # noqa: E731
    solved = solve_ivp(side, (0, TS[-1]), flat, t_eval=TS, rtol=1e-11, atol=1e-12)
    flow = nth.gradient_flow(NET, DATA, RUN, rates=rates, regulariser=regulariser)
    for f, row in zip(flow.f, solved.y.T, strict=True):
        assert np.allclose(f, jax.vmap(model(jnp.asarray(row)))(X), rtol=0, atol=1e-8)


@pytest.mark.parametrize("hidden", [1, 2, 3])
def test_slot_of_decay_is_that_of_a_homogeneous_network(hidden):
    net = FCN(3, 4, hidden, activation="identity", key=jr.key(2))
    f, *kernels = Start(
        pose(net, DATA, nth.squared_error, regulariser=DECAY), progress=False
    ).kernels(4)
    levels = [np.asarray(f), *(np.asarray(K) for K in kernels)]
    for r, (here, above) in enumerate(pairwise(levels), start=1):
        inner = here[(slice(None), *[slice(5)] * (r - 1))]
        slot = above[(slice(None), *[slice(5)] * (r - 1), 5)]
        expected = 0.3 * (r * (hidden + 1) - 2 * r + 2) * inner
        assert np.abs(slot - expected).max() <= 1e-10 * np.abs(expected).max()


@pytest.mark.parametrize("regulariser", [DECAY, wave], ids=["decay", "wave"])
@pytest.mark.parametrize("order", [2, 3, 4])
def test_tensors_and_series_are_one_truncation(order, regulariser):
    net = FCN(3, 4, 1, out_size=2, key=jr.key(3))
    data = nth.Dataset(X[:3], jnp.stack([Y, -Y], axis=1)[:3], X[3:])
    run = nth.Run(TS, solver=Explicit(rtol=1e-11), record=("kernel",))
    dense, series = (
        nth.hierarchy(net, data, order, run, method=method, rates=0.5, regulariser=regulariser)
        for method in ("dense", "series")
    )
    for name in ("f", "f_test", "kernel"):
        np.testing.assert_allclose(
            getattr(dense, name), getattr(series, name), rtol=0, atol=1e-9, err_msg=name
        )


@pytest.mark.parametrize("method", ["dense", "series"])
def test_orders_leave_exact_flow_by_their_power_of_time(method):
    orders = [nth.Order(p, method=method) for p in (2, 3, 4)]
    found = nth.certificate(NET, DATA, orders, regulariser=DECAY)
    assert np.allclose(found.slopes, [2, 3, 4], atol=0.15)


def test_order_2_of_any_regulariser_is_solved_in_closed_form():
    closed = nth.hierarchy(NET, DATA, 2, TS, method="dense", regulariser=wave)
    stepped = nth.hierarchy(NET, DATA, 2, RUN, method="dense", regulariser=wave)
    assert closed.solver.startswith("closed form")
    assert np.allclose(closed.f, stepped.f, rtol=0, atol=1e-8)


def test_descent_with_decay_is_that_of_optax():
    ours = nth.descent(NET, DATA, optax.sgd(0.1), [1.0], rate=0.1, regulariser=DECAY)
    theirs = optax.chain(optax.add_decayed_weights(0.3), optax.sgd(0.1))
    by_optax = nth.descent(NET, DATA, theirs, [1.0], rate=0.1)
    assert np.allclose(ours.f, by_optax.f, rtol=0, atol=1e-14)


def test_modified_flow_is_nearer_to_descent_than_flow_is():
    curves = (nth.Descent("sgd:0.02"), nth.Modified(0.02))
    study = nth.compare(NET, DATA, curves, RUN, regulariser=DECAY)
    steps, modified = (study.curves[curve.key].f for curve in curves)
    assert np.abs(steps - modified).max() < 0.05 * np.abs(steps - study.exact.f).max()


def test_decay_adds_its_strength_to_the_sharpness():
    run = nth.Run([1e-9], record=("sharpness",))
    plain, decaying = (
        nth.gradient_flow(NET, DATA, run, regulariser=each).records["sharpness"]
        for each in (None, DECAY)
    )
    assert np.allclose(decaying - plain, 0.3, rtol=0, atol=1e-6)


def test_flow_stops_where_the_whole_gradient_is_small():
    run = nth.Run([200.0], solver=Explicit(rtol=1e-9), until=Until(gradient=1e-3))
    flow = nth.gradient_flow(NET, DATA, run, regulariser=DECAY)
    slope = jax.grad(lambda w: 0.5 * jnp.mean((jax.vmap(w)(X) - Y) ** 2) + DECAY(w))(flow.model)
    assert flow.stop.reason == "gradient"
    assert np.isclose(optax.tree.norm(slope), 1e-3, rtol=1e-4)


def test_losses_are_those_of_the_data_alone():
    flow = nth.gradient_flow(NET, DATA, TS, regulariser=DECAY)
    assert np.allclose(flow.loss, 0.5 * np.mean((flow.f - np.asarray(Y)) ** 2, axis=1))


def test_jumps_of_a_regulariser_are_told():
    run = nth.Run([1e-6], solver=Explicit(rtol=1e-6))
    for regulariser, jumps in ((lasso, True), (wave, False)):
        found = nth.gradient_flow(NET, DATA, run, regulariser=regulariser).solver
        assert ("may jump" in found) is jumps

    def said(regulariser):
        return "may jump" in pose(NET, DATA, nth.squared_error, None, regulariser).rough

    first = lambda model: model.layers[0].weight  # noqa: E731
    assert said(lambda model: jnp.max(first(model) ** 2))
    assert said(lambda model: jnp.sum(jax.nn.relu(first(model))))
    assert said(lambda model: jnp.sum(jnp.where(first(model) > 0.3, first(model), 0.0)))
    assert said(lambda model: jnp.sum(jnp.linalg.norm(first(model), axis=1)))
    assert said(lambda model: jnp.sum((first(model) ** 2) ** 0.5))
    assert not said(lambda model: jnp.sum(jax.nn.softmax(first(model)) ** 2))
    assert not said(lambda model: jax.nn.logsumexp(first(model)))
    assert not said(lambda model: jnp.sum(jnp.sqrt(1 + first(model) ** 2)))
    assert not said(lambda model: jnp.sum(jax.nn.softplus(5 * first(model))))
    assert not said(lambda model: jnp.sum(jax.nn.relu(first(model)) ** 2))
    assert not said(lambda model: jnp.sum(first(model)[:, jnp.array([0, 2])] ** 2))


def test_truncations_see_no_jumps_of_a_regulariser():
    assert "jump" not in nth.hierarchy(NET, DATA, 2, TS, regulariser=lasso).solver


def test_decay_in_a_function_of_ones_own_is_that_of_the_model():
    def composed(model):
        return nth.WeightDecay(0.2, "start")(model, NET) + wave(model)

    def by_hand(model):
        pairs = zip(model.layers, NET.layers, strict=True)
        squares = [jnp.sum((one.weight - start.weight) ** 2) for one, start in pairs]
        squares.append(jnp.sum((model.readout.weight - NET.readout.weight) ** 2))
        return 0.1 * sum(squares) + wave(model)

    whole, other = (
        nth.gradient_flow(NET, DATA, RUN, regulariser=each).f for each in (composed, by_hand)
    )
    np.testing.assert_allclose(whole, other, rtol=0, atol=1e-10)
    alone = lambda model: nth.WeightDecay(1, "start")(model)  # noqa: E731
    with pytest.raises(ValueError, match="but fails on it: `start` must be the module at the sta"):
        nth.gradient_flow(NET, DATA, RUN, regulariser=alone)


def test_arrays_that_do_not_train_are_no_part_of_decay():
    rates = eqx.tree_at(lambda net: net.readout.weight, jax.tree.map(lambda _: 1.0, NET), 0.0)
    run = nth.Run([20.0], solver=RUN.solver, until=Until(stalled=0.02))
    flow = nth.gradient_flow(NET, DATA, run, rates=rates, regulariser=DECAY)
    weights = [layer.weight for layer in flow.model.layers]

    def objective(weights):
        model = eqx.tree_at(lambda net: [one.weight for one in net.layers], flow.model, weights)
        squares = (jax.vmap(model)(X) - Y) ** 2
        return 0.5 * jnp.mean(squares) + 0.15 * sum(jnp.sum(w**2) for w in weights)

    value, slope = jax.value_and_grad(objective)(weights)
    assert flow.stop.reason == "stalled"
    assert optax.tree.norm(slope) ** 2 / value == pytest.approx(0.02, rel=1e-4)


def test_float32_regulariser_is_that_of_float64():
    narrow = jax.tree.map(lambda a: a.astype(jnp.float32) if eqx.is_array(a) else a, NET)
    run = nth.Run(TS, solver=Explicit(rtol=1e-5))
    got = nth.hierarchy(narrow, DATA, 3, run, method="dense", regulariser=DECAY)
    right = nth.hierarchy(NET, DATA, 3, RUN, method="dense", regulariser=DECAY)
    assert got.f.dtype == np.float32
    np.testing.assert_allclose(got.f, right.f, rtol=0, atol=1e-3)


def test_another_strength_and_the_same_function_anew_compile_nothing(caplog):
    def run(strength):
        added = nth.WeightDecay(strength), lambda model: jnp.sum(model.readout.weight)
        return [nth.gradient_flow(NET, DATA, RUN, regulariser=each).f for each in added]

    found, counts = [run(0.1)], []
    with jax.log_compiles(), caplog.at_level("WARNING"):
        for strength in (
            0.2,
            0.3,
        ):  # twice, as a crowded process may let all programs go in between
            caplog.clear()
            jax.jit(lambda a: a + 1.0)(0.5)  # a witness that compilations are seen at all
            found.append(run(strength))
            compiled = [r.getMessage() for r in caplog.records if "XLA comp" in r.getMessage()]
            assert compiled
            counts.append(sum("advance" in line or "outputs" in line for line in compiled))
    assert min(counts) == 0
    assert np.abs(found[0][0] - found[1][0]).max() > 1e-3
    assert np.array_equal(found[0][1], found[1][1])


def test_study_is_saved_and_computed_again(tmp_path):
    study = nth.compare(NET, DATA, (2,), TS, regulariser=nth.WeightDecay(0.2, "start"))
    study.save(tmp_path / "a.nc")
    again = nth.rerun(nth.Comparison.load(tmp_path / "a.nc"))
    assert 'squared_error + WeightDecay(0.2, towards="start")' in str(again)
    assert np.array_equal(again.exact.f, study.exact.f)


def test_file_knows_the_name_of_another_regulariser(tmp_path):
    study = nth.compare(NET, DATA, (2,), TS, regulariser=wave)
    study.save(tmp_path / "a.nc")
    with pytest.raises(ValueError, match=r"load the file with `regulariser=`, the function wave"):
        nth.rerun(nth.Comparison.load(tmp_path / "a.nc"))
    again = nth.rerun(nth.Comparison.load(tmp_path / "a.nc", regulariser=wave))
    assert np.array_equal(again.exact.f, study.exact.f)
    for other in (lasso, lambda model: 1.1 * wave(model)):
        with pytest.raises(ValueError, match="one of the file, wave, but what is given computes "):
            nth.Comparison.load(tmp_path / "a.nc", regulariser=other)
    nth.compare(NET, DATA, (2,), TS).save(tmp_path / "a.nc")
    with pytest.raises(ValueError, match="must be left out, as the file has none"):
        nth.Comparison.load(tmp_path / "a.nc", regulariser=wave)


def test_checkpoint_of_another_regulariser_is_refused(tmp_path):
    run = nth.Run(TS, checkpoint=tmp_path)
    nth.gradient_flow(NET, DATA, run, regulariser=DECAY)
    for other in (None, nth.WeightDecay(0.4), nth.WeightDecay(0.3, "start"), wave):
        with pytest.raises(ValueError, match="another regulariser"):
            nth.gradient_flow(NET, DATA, run, regulariser=other)


@pytest.mark.parametrize(
    ("regulariser", "sentence"),
    [
        (
            nth.WeightDecay,
            "must be a function of the model, such as WeightDecay(0.1), but is <class",
        ),
        (lambda model: model.nothing, "but fails on it: 'FCN' object has no attribute"),
        (
            lambda model: model.readout.weight,
            "must return a scalar for the model, but returns shape",
        ),
        (lambda model: None, "must return a scalar for the model, but returns NoneType"),
        (lambda model: jnp.float32(1.0), "of the parameters, float64, but returns float32"),
        (
            lambda model: jnp.sqrt(jnp.sum((model.readout.weight - NET.readout.weight) ** 2)),
            "must have a finite gradient at the start, but has none there",
        ),
    ],
)
def test_what_is_no_regulariser_is_told_in_one_sentence(regulariser, sentence):
    with pytest.raises(ValueError, match=rf"^`regulariser` .*{re.escape(sentence)}"):
        nth.gradient_flow(NET, DATA, TS, regulariser=regulariser)


def test_what_computes_otherwise_each_time_is_refused():
    noise, calls = np.random.default_rng(0), []

    def counted(model):
        calls.append(model)
        return len(calls) * jnp.sum(model.readout.weight)

    drawn = lambda f, y: 0.5 * (f - y - noise.normal()) ** 2  # noqa: E731
    with pytest.raises(ValueError, match=r"^`loss` must compute the same each time it is called"):
        nth.gradient_flow(NET, DATA, TS, loss=drawn)
    with pytest.raises(ValueError, match=r"^`regulariser` must compute the same each time it is"):
        nth.gradient_flow(NET, DATA, TS, regulariser=counted)


class Twice(nth.WeightDecay):
    def __call__(self, model, start=None):
        return 2 * super().__call__(model, start)


def test_class_made_of_decay_is_itself(tmp_path):
    twice = nth.compare(NET, DATA, (2,), TS, regulariser=Twice(0.2))
    once = nth.compare(NET, DATA, (2,), TS, regulariser=nth.WeightDecay(0.4))
    np.testing.assert_allclose(twice.exact.f, once.exact.f, rtol=0, atol=1e-8)
    twice.save(tmp_path / "a.nc")
    again = nth.rerun(nth.Comparison.load(tmp_path / "a.nc", regulariser=Twice(0.2)))
    np.testing.assert_array_equal(again.exact.f, twice.exact.f)


def test_stiffness_that_is_decay_is_told():
    run = nth.Run([0.05])
    flow = nth.gradient_flow(NET, DATA, run, regulariser=nth.WeightDecay(3000.0))
    assert "not stiff by the kernel: stability alone would need 27 steps" in flow.solver


@pytest.mark.parametrize("strength", [-1.0, np.nan, "a", True, jnp.array(-1.0), np.ones(2)])
def test_strength_must_be_a_number(strength):
    with pytest.raises(ValueError, match=r"^`strength` must be"):
        nth.WeightDecay(strength)


@pytest.mark.parametrize("curve", [nth.LimitKernel(), nth.Perturbation()], ids=["limit", "first"])
def test_theories_without_regularisers_refuse_them(curve):
    with pytest.raises(ValueError, match=r"^`regulariser` must be left out for .*WeightDecay\(0.3"):
        nth.compare(NET, DATA, (curve,), TS, regulariser=DECAY)


def test_bounds_and_stalled_truncations_refuse_regularisers():
    with pytest.raises(ValueError, match=r"^`regulariser` must be left out for bounds"):
        nth.compare(NET, DATA, (2,), TS, bounds=True, regulariser=DECAY)
    run = nth.Run(TS, until=Until(stalled=0.1))
    with pytest.raises(ValueError, match=r"^`regulariser` must be left out for a truncation that"):
        nth.hierarchy(NET, DATA, 2, run, regulariser=DECAY)
