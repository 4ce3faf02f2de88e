"""Exact gradient flow against closed forms, conservation laws and SciPy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from oracles import DeepLinear, Product, TwoLayerLinear
from scipy.integrate import solve_ivp

import nthsim as nth
from nthsim.models import FCN
from nthsim.solvers import Explicit

pytestmark = pytest.mark.compiled

TIGHT = Explicit(rtol=1e-11)
TS = np.linspace(0.0, 4.0, 9)


@pytest.fixture(scope="module")
def data():
    x_key, y_key, test_key = jr.split(jr.key(0), 3)
    return nth.Dataset(
        jr.normal(x_key, (3, 4)),
        jr.normal(y_key, (3,)),
        jr.normal(test_key, (2, 4)),
        jnp.array([0.5, -1.0]),
    )


@pytest.fixture(scope="module")
def model():
    return eqx.nn.MLP(4, "scalar", 5, 1, activation=jnp.tanh, key=jr.key(1))


@pytest.fixture(scope="module")
def flow(model, data):
    return nth.gradient_flow(model, data, nth.Run(TS, solver=TIGHT, record=("kernel",)))


@pytest.mark.parametrize("method", ["DOP853", "Radau"])
def test_flow_agrees_with_scipy_on_the_same_equations(method, flow, model, data):
    params, static = eqx.partition(model, eqx.is_inexact_array)
    theta, unravel = ravel_pytree(params)

    def f(flat, x):
        return jax.vmap(eqx.combine(unravel(flat), static))(x)

    loss = jax.jit(lambda flat: 0.5 * jnp.mean((f(flat, data.x) - data.y) ** 2))
    field = jax.jit(jax.grad(loss))
    peer = solve_ivp(
        lambda t, flat: -np.asarray(field(flat)),
        (0, TS[-1]),
        np.asarray(theta),
        method,
        TS,
        rtol=1e-9,
        atol=1e-11,
    ).y.T
    for recorded, x in ((flow.f, data.x), (flow.f_test, data.x_test)):
        expected = np.stack([f(flat, x) for flat in peer])
        np.testing.assert_allclose(recorded, expected, rtol=0, atol=1e-7)
    trained = ravel_pytree(eqx.filter(flow.model, eqx.is_inexact_array))[0]
    np.testing.assert_allclose(trained, peer[-1], rtol=0, atol=1e-7)


def test_losses_are_means_over_samples(flow, data):
    for loss, f, y in (
        (flow.loss, flow.f, data.y),
        (flow.test_loss, flow.f_test, data.y_test),
    ):
        np.testing.assert_allclose(loss, 0.5 * np.mean((f - np.asarray(y)) ** 2, axis=1))
    assert (np.diff(flow.loss) < 0).all()
    assert flow.stats.forced == 0


def test_kernel_is_recorded_along_the_flow(flow, model, data):
    start = nth.kernel(model, data.x, 2)
    end = nth.kernel(flow.model, data.x, 2, x_first=data.x_test)
    np.testing.assert_allclose(flow.kernel[0], start, rtol=1e-12)
    np.testing.assert_allclose(flow.kernel_test[-1], end, rtol=1e-12)


def test_hierarchy_equations_hold_along_the_flow(model, data):
    # V3, by a five-point difference at t = 0.5: its own error is h^4/30 times a fifth derivative.
    h, t = 5e-3, 0.5
    stencil = np.array([t - 2 * h, t - h, t, t + h, t + 2 * h])
    along = nth.gradient_flow(model, data, nth.Run(stencil, solver=TIGHT, record=("kernel",)))
    models = [nth.gradient_flow(model, data, nth.Run([s], solver=TIGHT)).model for s in stencil]
    middle = models[2]
    assert along.kernel is not None
    weights = np.array([1, -8, 0, 8, -1]) / (12 * h)
    K2, K3, K4 = (np.asarray(nth.kernel(middle, data.x, r)) for r in (2, 3, 4))
    c = (along.f[2] - np.asarray(data.y)) / 3
    np.testing.assert_allclose(weights @ along.f, -K2 @ c, atol=1e-8)
    rate = np.tensordot(weights, along.kernel, 1)
    np.testing.assert_allclose(rate, -K3 @ c, atol=1e-7)
    np.testing.assert_allclose(weights @ along.loss, -c @ K2 @ c, atol=1e-8)
    third = np.stack([nth.kernel(moved, data.x, 3) for moved in models])
    np.testing.assert_allclose(np.tensordot(weights, third, 1), -K4 @ c, atol=1e-6)


def test_balanced_product_of_two_follows_the_logistic_curve():
    # V7, Saxe's mode equation: f = y / (1 + (y/f0 - 1) exp(-2 y t)).
    y, w = 2.0, 0.3
    flow = nth.gradient_flow(
        Product(jnp.full(2, w)), nth.Dataset([[1.0]], [y]), nth.Run(TS, solver=TIGHT)
    )
    expected = y / (1 + (y / w**2 - 1) * np.exp(-2 * y * TS))
    np.testing.assert_allclose(flow.f[:, 0], expected, rtol=1e-9)


def test_two_layer_linear_network_conserves_its_invariant():
    # V5: lambda^2 - 4 f^2 / m is constant, and both follow in closed form.
    u, v = jr.normal(jr.key(2), (2, 6))
    m, y = 6, 1.5
    flow = nth.gradient_flow(
        TwoLayerLinear(u, v[:, None]),
        nth.Dataset([[1.0]], [y]),
        nth.Run(TS, solver=TIGHT, record=("kernel",)),
    )
    assert flow.kernel is not None
    f, lam = flow.f[:, 0], flow.kernel[:, 0, 0]
    invariant = lam**2 - 4 * f**2 / m
    np.testing.assert_allclose(invariant, invariant[0], rtol=1e-9)
    peer = solve_ivp(
        lambda t, s: np.sqrt(invariant[0] + 4 * s**2 / m) * (y - s),
        (0, TS[-1]),
        f[:1],
        "DOP853",
        TS,
        rtol=1e-11,
        atol=1e-13,
    ).y[0]
    np.testing.assert_allclose(f, peer, atol=1e-8)


def test_deep_linear_network_conserves_the_balance_of_its_layers():
    # V8: W2^T W2 - W1 W1^T is constant.
    keys = jr.split(jr.key(3), 4)
    model = DeepLinear((jr.normal(keys[0], (3, 2)), jr.normal(keys[1], (2, 3))))
    data = nth.Dataset(jr.normal(keys[2], (4, 2)), jr.normal(keys[3], (4, 2)))
    trained = nth.gradient_flow(model, data, nth.Run(TS, solver=TIGHT)).model
    balance = lambda net: net.weights[1].T @ net.weights[1] - net.weights[0] @ net.weights[0].T  # noqa: E731
    np.testing.assert_allclose(balance(trained), balance(model), atol=1e-9)
    assert np.abs(trained.weights[0] - model.weights[0]).max() > 0.1


def test_relu_network_conserves_the_balance_of_each_neuron(data):
    # V8: |row_j of W|^2 - |column_j of the next|^2 is constant for every hidden neuron.
    def balance(net):
        W1, W2, a = (layer.weight for layer in (*net.layers, net.readout))
        first = jnp.sum(W1**2, axis=1) - jnp.sum(W2**2, axis=0)
        return jnp.stack([first, jnp.sum(W2**2, axis=1) - jnp.sum(a**2, axis=0)])

    # Exact on each side of a kink. Where in a step a crossing falls is chance, and so is what it
    # costs: of forty networks the worst missed by 3e-6, and by 7e-5 where it slid along a kink.
    allowed, met = {"none": 1e-13, "few": 1e-5, "sliding": 2e-4}, set()
    for key in range(6, 18):
        model = FCN(4, 5, 2, activation="relu", key=jr.key(key))
        run = nth.gradient_flow(model, data, nth.Run([0.4], solver=Explicit(rtol=1e-11)))
        kind = "none" if run.stats.forced == 0 else "few" if run.stats.forced < 10 else "sliding"
        met.add(kind)
        np.testing.assert_allclose(balance(run.model), balance(model), atol=allowed[kind])
    assert met == set(allowed)


def test_cross_entropy_flow_agrees_with_its_gradient_written_out():
    keys = jr.split(jr.key(5), 3)
    model = FCN(3, 4, 1, out_size=3, key=keys[0])
    x, labels = jr.normal(keys[1], (4, 3)), jnp.array([0, 1, 2, 1])
    one_hot = jax.nn.one_hot(labels, 3)
    h, ts = 1e-2, [0.0, 0.01, 0.02, 0.03, 0.04]
    flow = nth.gradient_flow(
        model, nth.Dataset(x, one_hot), nth.Run(ts, solver=TIGHT), loss=nth.softmax_cross_entropy
    )
    K2 = nth.kernel(model, x, 2)
    c = (jax.nn.softmax(flow.f[0]) - one_hot) / 4
    velocity = -jnp.einsum("aibj,bj->ai", K2, c)
    # A one-sided difference of fourth order: its error is h^4/5 times a fifth derivative.
    difference = np.tensordot(np.array([-25, 48, -36, 16, -3]) / (12 * h), flow.f, 1)
    np.testing.assert_allclose(difference, velocity, atol=1e-6)
    centred = nth.Dataset(x, one_hot - 1 / 3)
    again = nth.gradient_flow(
        model, centred, nth.Run(ts, solver=TIGHT), loss=nth.softmax_cross_entropy
    )
    np.testing.assert_allclose(again.f, flow.f, atol=1e-12)


def test_second_flow_of_the_same_shape_compiles_nothing(flow, model, data, caplog):
    del flow
    other = jax.tree.map(lambda a: 1.1 * a if eqx.is_inexact_array(a) else a, model)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        jax.jit(lambda a: a + 1.0)(0.5)  # a witness that compilations are seen at all
        assert [r for r in caplog.records if "XLA compilation" in r.getMessage()]
        nth.gradient_flow(other, data, nth.Run([0.0, 0.3, 7.0], solver=Explicit(rtol=1e-9)))
    compiled = [r.getMessage() for r in caplog.records]
    named = [f"XLA compilation of jit({name})" for name in ("advance", "start", "outputs")]
    assert not [message for message in compiled if any(name in message for name in named)]


def test_step_limit_raises_with_what_was_computed(model, data):
    with pytest.raises(nth.SolveError, match="step limit of 15 reached at t = ") as caught:
        nth.gradient_flow(model, data, nth.Run(TS, solver=Explicit(rtol=1e-11, max_steps=15)))
    partial = caught.value.trajectory
    assert 0 < len(partial.ts) < len(TS)
    assert partial.f.shape == (len(partial.ts), 3)
    assert partial.stop.failed
    kept = nth.gradient_flow(
        model, data, nth.Run(TS, solver=Explicit(rtol=1e-11, max_steps=15), throw=False)
    )
    np.testing.assert_array_equal(kept.f, partial.f)


def test_loss_that_is_no_number_is_a_failure_even_where_its_gradient_is_one(model, data):
    odd = lambda f, y: jnp.where(f < 1e9, jnp.nan, 0.0) + 0.5 * jnp.sum((f - y) ** 2)  # noqa: E731
    with pytest.raises(nth.SolveError, match="the loss is not finite at t = 0"):
        nth.gradient_flow(model, data, TS[:2], loss=odd)


def test_single_precision_flow_stays_near_the_double_one(model, data, flow):
    single = jax.tree.map(lambda a: a.astype(jnp.float32) if eqx.is_inexact_array(a) else a, model)
    coarse = nth.gradient_flow(single, data, TS)
    assert coarse.f.dtype == np.float32
    np.testing.assert_allclose(coarse.f, flow.f, atol=2e-3)


def test_what_moves_less_than_the_absolute_tolerance_is_told():
    linear = eqx.nn.Linear(1, "scalar", use_bias=False, key=jr.key(0))
    rest = eqx.tree_at(lambda at: at.weight, linear, jnp.zeros((1, 1)))
    x, ts = np.array([[1.0], [2.0]]), [0.0, 50.0]
    words = "where all that moved was smaller than atol / rtol, errors exceed rtol: lower atol"
    for scale, told in ((1.0, False), (1e-20, True)):
        run = nth.gradient_flow(rest, nth.Dataset(x, -scale * x[:, 0]), ts, progress=False)
        assert (words in str(run)) == told
    early = nth.gradient_flow(rest, nth.Dataset(x, x[:, 0]), [1e-8, 1e-7, 1.0], progress=False)
    assert words not in str(early)
    fine = nth.Run(ts, solver=Explicit(atol=1e-32))
    run = nth.gradient_flow(rest, nth.Dataset(x, -1e-20 * x[:, 0]), fine, progress=False)
    np.testing.assert_allclose(run.f[-1], -1e-20 * x[:, 0], rtol=1e-6)
    assert words not in str(run)
    for scale, told in ((1e-3, False), (1e-12, True)):
        saddle = Product(jnp.array([scale, scale / 2]))
        left = nth.gradient_flow(saddle, nth.Dataset(x, x[:, 0]), [0.0, 30.0], progress=False)
        np.testing.assert_allclose(left.f[-1], x[:, 0], rtol=1e-2)
        assert (words in str(left)) == told


def test_print_tells_what_happened(flow):
    text = str(flow)
    assert text.startswith("exact gradient flow: reached t = 4, loss ")
    assert "9 save times" in text
    assert "right-hand sides" in text
    assert "Dopri8, rtol 1e-11" in text
