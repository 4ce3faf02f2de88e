"""Stabilised steps: of second order, stable far out, and few where a flow is stiff."""

import re

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from networks import NETWORKS

import nthsim as nth
from nthsim.solvers import Explicit, Stabilised, Until
from nthsim.solvers.chebyshev import Chebyshev

pytestmark = pytest.mark.slow

SPREAD = np.geomspace(1.0, 2000.0, 7)


class Linear(eqx.Module):
    """A linear model."""

    w: jax.Array

    def __call__(self, x):
        """Its output for one input."""
        return self.w @ x


@jax.jit
def steps(rates, h, count):
    """The end of so many steps of length h from one, and y' = -rates y."""
    term, solver = dfx.ODETerm(lambda t, y, args: -rates * y), Chebyshev()
    y = jnp.ones_like(rates)
    zero = jnp.zeros_like(h)
    memory = solver.init(term, zero, h, y, None)

    def one(_, pair):
        after, _, _, memory, _ = solver.step(term, zero, h, pair[0], None, pair[1], False)
        return after, memory

    return jax.lax.fori_loop(0, count, one, (y, memory))[0]


def test_steps_are_of_second_order():
    rates, off = jnp.array([0.3, 1.0, 1.7]), []
    for count in (40, 80, 160):
        end = steps(rates, jnp.array(2.0 / count), count)
        off.append(np.abs(end - np.exp(-2.0 * rates)).max())
    np.testing.assert_allclose(np.log2(np.divide(off[:-1], off[1:])), 2.0, atol=0.1)


def test_memory_is_of_one_type_so_that_nothing_is_compiled_twice():
    term, solver, h = dfx.ODETerm(lambda t, y, args: -y), Chebyshev(), jnp.array(0.1)
    y = jnp.ones(3)
    before = solver.init(term, h, h, y, None)
    after = jax.eval_shape(lambda memory: solver.step(term, h, h, y, None, memory, False), before)[
        3
    ]
    types = lambda tree: [(a.shape, a.dtype, a.weak_type) for a in jax.tree.leaves(tree)]  # noqa: E731
    assert types(after) == types(before)


@pytest.mark.parametrize("stiffness", [5.0, 100.0, 1e4, 5e5])
def test_no_component_grows_however_stiff_it_is(stiffness):
    # A spectrum without gaps; damping leaves at most 0.95 of a fast component.
    rates = jnp.linspace(0.0, stiffness, 4001)
    end = np.abs(steps(rates, jnp.array(1.0), 1))
    assert end.max() <= 1 + 1e-9
    assert end[rates > 0.4 * stiffness].max() < 0.96


@pytest.fixture(scope="module")
def stiff() -> tuple[Linear, nth.Dataset]:
    data = nth.Dataset(np.diag(np.sqrt(7 * SPREAD)), np.ones(7))
    return Linear(jnp.zeros(7)), data


def test_stiff_flow_is_that_of_the_closed_form_in_few_right_hand_sides(stiff):
    ts = np.linspace(0.0, 3.0, 4)
    exact = 1 - np.exp(-SPREAD * ts[:, None])
    flows = [
        nth.gradient_flow(stiff[0], stiff[1], nth.Run(ts, solver=kind(rtol=1e-4)))
        for kind in (Stabilised, Explicit)
    ]
    for flow in flows:
        np.testing.assert_allclose(flow.f, exact, atol=2e-3)
    assert 5 * flows[0].stats.evaluations < flows[1].stats.evaluations
    assert "Runge-Kutta-Chebyshev, rtol 1e-04" in flows[0].solver


def test_float32_is_near_to_the_closed_form_too(stiff):
    model, data = jax.tree.map(lambda a: a.astype(jnp.float32), stiff)
    flow = nth.gradient_flow(model, data, nth.Run([0.5, 3.0], solver=Stabilised(rtol=1e-3)))
    assert flow.f.dtype == np.float32
    exact = 1 - np.exp(-SPREAD * np.array([[0.5], [3.0]]))
    np.testing.assert_allclose(flow.f, exact, atol=5e-3)


def test_work_grows_like_the_root_of_the_stiffness():
    counts = []
    for top in (1e3, 1e5):
        model, x = Linear(jnp.zeros(2)), np.diag(np.sqrt(2 * np.array([1.0, top])))
        run = nth.Run([4.0], solver=Stabilised(rtol=1e-3))
        counts.append(nth.gradient_flow(model, nth.Dataset(x, [1.0, 0.0]), run).stats.evaluations)
    assert 4 < counts[1] / counts[0] < 16


@pytest.mark.parametrize(
    "walk",
    {
        "flow": lambda *a, **o: nth.gradient_flow(*a, **o),
        "series": lambda net, *a, **o: nth.hierarchy(net, a[0], 3, a[1], method="series", **o),
        "dense": lambda net, *a, **o: nth.hierarchy(net, a[0], 4, a[1], method="dense", **o),
        "Taylor": lambda net, *a, **o: nth.taylor(net, a[0], 2, a[1], **o),
    }.items(),
    ids=lambda pair: pair[0],
)
def test_every_dynamics_is_that_of_explicit_steps(walk):
    keys = jr.split(jr.key(0), 2)
    data = nth.Dataset(jr.normal(keys[0], (5, 4)), jr.normal(keys[1], (5,)))
    ts = [0.0, 0.7, 6.0]
    found, expected = (
        walk[1](NETWORKS["fcn"], data, nth.Run(ts, solver=solver))
        for solver in (Stabilised(rtol=1e-6), Explicit(rtol=1e-9))
    )
    np.testing.assert_allclose(found.f, expected.f, atol=3e-4)  # of order two


def test_run_goes_on_from_its_checkpoint(stiff, tmp_path):
    run = lambda ts, folder: nth.Run(ts, solver=Stabilised(rtol=1e-3), checkpoint=tmp_path / folder)  # noqa: E731
    whole = nth.gradient_flow(stiff[0], stiff[1], run([1.0, 3.0], "whole"))
    nth.gradient_flow(stiff[0], stiff[1], run([1.0], "parts"))
    both = nth.gradient_flow(stiff[0], stiff[1], run([1.0, 3.0], "parts"))
    np.testing.assert_allclose(both.f, whole.f, rtol=1e-11)  # the first step sees the horizon
    assert both.stats.evaluations == whole.stats.evaluations


def test_time_to_a_loss_is_that_of_the_closed_form(stiff):
    run = nth.Run([9.0], solver=Stabilised(rtol=1e-5), until=Until(loss=1e-4))
    found = nth.gradient_flow(stiff[0], stiff[1], run).stop
    assert found.reason == "loss"
    # What is left is the slowest residual: exp(-2 t) / 14.
    assert found.t == pytest.approx(np.log(1 / (14 * 1e-4)) / 2, rel=1e-3)


@jax.custom_vjp
def doubled(z):
    """Its backward pass is its own."""
    return 2 * z


doubled.defvjp(lambda z: (2 * z, None), lambda _, g: (2 * g,))


@jax.custom_vjp
def twofold(z):
    """The square, whose backward pass holds a `custom_vjp` once more."""
    return z**2


twofold.defvjp(lambda z: (z**2, z), lambda z, g: (doubled(z) * g,))


def test_what_it_cannot_step_through_is_refused(stiff):
    net = eqx.nn.MLP(4, "scalar", 3, 1, activation=twofold, key=jr.key(0))
    run = nth.Run([1.0], solver=Stabilised())
    words = "^`solver` must be another where the field has no derivatives .* but is Stabilised"
    with pytest.raises(ValueError, match=words):
        nth.gradient_flow(net, nth.Dataset(jnp.ones((2, 4)), jnp.ones(2)), run)
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), stiff[0])
    words = re.escape("`solver` must be Auto or Explicit in bfloat16, but is Stabilised.")
    with pytest.raises(ValueError, match=words):
        nth.gradient_flow(half, stiff[1], run)
