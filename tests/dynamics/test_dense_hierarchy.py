"""Truncated hierarchies against closed forms and against SciPy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from oracles import Product
from scipy.integrate import solve_ivp
from scipy.linalg import expm

import nthsim as nth
from nthsim.models import FCN
from nthsim.solvers import Auto, Explicit, Exponential, Implicit

pytestmark = [pytest.mark.slow, pytest.mark.compiled]

TIGHT = Explicit(rtol=1e-11)
TS = np.linspace(0.0, 4.0, 9)


@pytest.fixture(scope="module")
def data():
    x_key, y_key, test_key = jr.split(jr.key(0), 3)
    x = jr.normal(x_key, (3, 4))
    return nth.Dataset(
        x / jnp.linalg.norm(x, axis=1, keepdims=True),
        jr.normal(y_key, (3,)),
        jr.normal(test_key, (2, 4)),
    )


@pytest.fixture(scope="module")
def model():
    return FCN(4, 8, 2, key=jr.key(1))


@pytest.fixture(scope="module")
def kernels(model, data):
    """f and K^(2), K^(3), K^(4) at the start; training points, then test points, in slot one."""
    first = jnp.concatenate([data.x, data.x_test])
    f = jax.vmap(model)(first)
    return [
        np.asarray(k)
        for k in (f, *(nth.kernel(model, data.x, r, x_first=first) for r in (2, 3, 4)))
    ]


@pytest.fixture(scope="module")
def truncations(model, data):
    return {
        p: nth.hierarchy(
            model, data, p, nth.Run(TS, solver=TIGHT, record=("kernel",)), method="dense"
        )
        for p in (2, 3, 4)
    }


def test_order_two_is_the_frozen_kernel_solution(truncations, kernels, data):
    f0, K = kernels[0], kernels[1]
    n, y = 3, np.asarray(data.y)
    decay = np.stack([expm(-K[:n] * t / n) for t in TS])
    residual = decay @ (f0[:n] - y)
    np.testing.assert_allclose(truncations[2].f, y + residual, rtol=0, atol=1e-8)
    test = f0[n:] - (np.eye(n) - decay) @ (f0[:n] - y) @ np.linalg.solve(K[:n], K[n:].T)
    np.testing.assert_allclose(truncations[2].f_test, test, rtol=0, atol=1e-8)


def test_order_two_keeps_its_tangent_kernel(truncations, kernels):
    run, K = truncations[2], kernels[1]
    for recorded, frozen in ((run.kernel, K[:3]), (run.kernel_test, K[3:])):
        np.testing.assert_allclose(recorded, np.broadcast_to(frozen, recorded.shape), rtol=1e-14)


@pytest.mark.parametrize("method", ["DOP853", "Radau"])
@pytest.mark.parametrize("order", [2, 3, 4])
def test_truncation_agrees_with_scipy_on_the_same_equations(
    order, method, truncations, kernels, data
):
    top, shapes = kernels[order - 1], [k.shape for k in kernels[: order - 1]]
    ends = np.cumsum([np.prod(s) for s in shapes])

    def field(t, flat):
        levels = [
            part.reshape(s) for part, s in zip(np.split(flat, ends[:-1]), shapes, strict=True)
        ]
        c = (levels[0][:3] - np.asarray(data.y)) / 3
        return np.concatenate([(-above @ c).ravel() for above in (*levels[1:], top)])

    start = np.concatenate([k.ravel() for k in kernels[: order - 1]])
    peer = solve_ivp(
        field, (0, TS[-1]), start, method=method, t_eval=TS, rtol=1e-10, atol=1e-12
    ).y.T
    f = np.concatenate([truncations[order].f, truncations[order].f_test], axis=1)
    # Radau's own error at rtol 1e-10 is the larger one.
    np.testing.assert_allclose(f, peer[:, : ends[0]], rtol=0, atol=1e-7)
    if order > 2:
        np.testing.assert_allclose(
            truncations[order].kernel,
            peer[:, ends[0] : ends[1]].reshape(-1, *shapes[1])[:, :3],
            rtol=0,
            atol=1e-7,
        )


def test_test_points_never_act_on_training(truncations, model, data):
    alone = nth.hierarchy(
        model, nth.Dataset(data.x, data.y), 3, nth.Run(TS, solver=TIGHT), method="dense"
    )
    assert alone.f_test is None
    np.testing.assert_allclose(alone.f, truncations[3].f, atol=1e-9)


def test_vector_outputs_are_samples_of_their_own():
    # Two independent copies of a scalar network as one network with two outputs.
    keys = jr.split(jr.key(2))
    parts = [FCN(3, 4, 1, key=key) for key in keys]

    class Pair(eqx.Module):
        parts: list[FCN]

        def __call__(self, x):
            return jnp.stack([part(x) for part in self.parts])

    x, y = jr.normal(jr.key(3), (2, 3)), jr.normal(jr.key(4), (2, 2))
    together = nth.hierarchy(
        Pair(parts), nth.Dataset(x, y), 3, nth.Run(TS, solver=TIGHT), method="dense"
    )
    assert together.f.shape == (len(TS), 2, 2)
    for i, part in enumerate(parts):
        alone = nth.hierarchy(
            part, nth.Dataset(x, y[:, i]), 3, nth.Run(TS, solver=TIGHT), method="dense"
        )
        np.testing.assert_allclose(together.f[:, :, i], alone.f, atol=1e-9)


@pytest.mark.parametrize("order", [2, 3, 4, 5])
def test_with_one_sample_order_p_is_a_taylor_polynomial_in_the_residual_clock(order):
    # V4: ds/dt = y - f and f(s) = sum_{k<p} K^(k+1) s^k / k!.
    x, y = jr.normal(jr.key(5), (1, 3)), 0.4
    model = eqx.nn.MLP(3, "scalar", 4, 1, activation=jnp.tanh, key=jr.key(6))
    tower = [model(x[0]), *(nth.kernel(model, x, r).reshape(()) for r in range(2, order + 1))]
    polynomial = np.polynomial.Polynomial(
        np.array(tower, float) / np.cumprod([1, *range(1, order)])
    )
    ts = np.linspace(0.0, 1.0, 5)
    clock = solve_ivp(
        lambda t, s: y - polynomial(s), (0, 1), [0.0], "DOP853", ts, rtol=1e-12, atol=1e-14
    ).y[0]
    f = nth.hierarchy(
        model, nth.Dataset(x, [y]), order, nth.Run(ts, solver=TIGHT), method="dense"
    ).f[:, 0]
    np.testing.assert_allclose(f, polynomial(clock), rtol=0, atol=1e-10)


def product_of_three(y):
    return Product(jnp.ones(3)), nth.Dataset(jnp.ones((1, 1)), jnp.array([y]))


@pytest.mark.parametrize("solver", [Auto(), Explicit(), Exponential(), Implicit()])
@pytest.mark.parametrize(("y", "t_star"), [(0.3, 1.71290), (0.6, 7.45914)])
def test_third_order_of_a_product_blows_up_when_its_parabola_misses_the_target(y, t_star, solver):
    with pytest.raises(nth.SolveError, match="blow-up at t = ") as caught:
        nth.hierarchy(*product_of_three(y), 3, nth.Run(np.linspace(0.0, 20.0, 21), solver=solver))
    trajectory = caught.value.trajectory
    # f grows like (t* - t)^-2, so it leaves the bound 1e8 some 1e-4 before t*. Steps that are meant
    # to be long run out a little earlier.
    early = 2e-4 if isinstance(solver, Auto | Explicit) else 5e-3
    np.testing.assert_allclose(trajectory.stop.t, t_star, atol=early)
    assert len(trajectory.ts) == np.ceil(t_star)
    assert np.isfinite(trajectory.f).all()


@pytest.mark.parametrize("method", ["dense", "series"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_blow_up_is_told_from_a_vanishing_step_size_in_both_precisions(dtype, method):
    data = nth.Dataset(jnp.ones((1, 1)), jnp.array([0.05]))
    model, ts = Product(jnp.ones(3, dtype)), np.linspace(0.0, 2.0, 5)
    with pytest.raises(nth.SolveError, match=r"blow-up at t = 1\.217") as caught:
        nth.hierarchy(model, data, 5, ts, method=method)
    assert caught.value.trajectory.stop.reason == "blow-up"
    # The time at which double precision leaves the bound; single precision's rtol is 1e-4.
    np.testing.assert_allclose(caught.value.trajectory.stop.t, 1.21777, rtol=1e-4)


@pytest.mark.parametrize("solver", [Auto(), Explicit(), Exponential(), Implicit()])
def test_third_order_of_a_product_converges_when_its_parabola_meets_the_target(solver):
    trajectory = nth.hierarchy(*product_of_three(0.65), 3, nth.Run([0.0, 100.0], solver=solver))
    np.testing.assert_allclose(trajectory.f[-1], 0.65, atol=1e-6)


def test_without_readout_odd_orders_add_nothing(data, model):
    # V2: all odd kernels vanish with the readout, so order 2k+1 equals order 2k.
    silent = eqx.tree_at(lambda m: m.readout.weight, model, replace_fn=jnp.zeros_like)
    runs = {
        p: nth.hierarchy(silent, data, p, nth.Run(TS, solver=TIGHT), method="dense").f
        for p in (2, 3, 4, 5)
    }
    np.testing.assert_allclose(runs[3], runs[2], rtol=0, atol=1e-9)
    np.testing.assert_allclose(runs[5], runs[4], rtol=0, atol=1e-9)
    assert np.abs(runs[4] - runs[2]).max() > 1e-4


def test_logistic_truncation_uses_its_own_residual(model, data):
    signs = nth.Dataset(data.x, jnp.sign(data.y))
    K, f0, y = np.asarray(nth.kernel(model, data.x, 2)), jax.vmap(model)(data.x), signs.y
    peer = solve_ivp(
        lambda t, f: K @ (np.asarray(y) / (1 + np.exp(y * f))) / 3,
        (0, TS[-1]),
        np.asarray(f0),
        "DOP853",
        TS,
        rtol=1e-11,
        atol=1e-13,
    ).y.T
    frozen = nth.hierarchy(model, signs, 2, nth.Run(TS, solver=TIGHT), loss=nth.logistic)
    np.testing.assert_allclose(frozen.f, peer, rtol=0, atol=1e-8)
