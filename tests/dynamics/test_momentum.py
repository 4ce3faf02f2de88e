"""Training with inertia: exact flow, order 2 in closed form, and series."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from scipy.integrate import solve_ivp

import nthsim as nth
from nthsim.models import FCN
from nthsim.solvers import Explicit, Implicit, Until
from nthsim.solvers.momentum import momentum_of

X, Y = jr.normal(jr.key(1), (5, 3)), jnp.sin(jnp.arange(5.0))
DATA = nth.Dataset(X, Y, X[:2] + 0.1)
NET = FCN(3, 4, 2, key=jr.key(0))
TS = [0.5, 1.5, 4.0]
RUN = nth.Run(TS, solver=Explicit(rtol=1e-10))
MOMENTA = [nth.HeavyBall(0.7), nth.Nesterov(3.0)]


class Point(eqx.Module):
    weight: jax.Array

    def __call__(self, x):
        return self.weight * x[0]


@pytest.mark.parametrize("friction", [0.0, 0.5, 2.0, 5.0], ids=str)
@pytest.mark.parametrize("solver", [Explicit(rtol=1e-11), Implicit(rtol=1e-10)], ids=repr)
def test_oscillator_follows_its_closed_form(friction, solver):
    data = nth.Dataset([[1.0]], [0.0])
    ts = np.array([0.3, 1.0, 5.0])
    run = nth.Run(ts, solver=solver)
    flow = nth.gradient_flow(Point(jnp.array(1.0)), data, run, momentum=nth.HeavyBall(friction))
    half, root = friction / 2, np.emath.sqrt(friction**2 / 4 - 1)
    wave = half * ts if friction == 2 else half * np.sinh(root * ts) / root
    swing = np.real(np.exp(-half * ts) * ((1 if friction == 2 else np.cosh(root * ts)) + wave))
    np.testing.assert_allclose(flow.f[:, 0], swing, rtol=0, atol=1e-8)


def test_oscillator_of_nesterov_is_a_bessel_function():
    from scipy.special import j1

    ts = np.array([0.01, 0.3, 1.0, 5.0])
    data, run = nth.Dataset([[1.0]], [0.0]), nth.Run(ts, solver=Explicit(rtol=1e-11))
    flow = nth.gradient_flow(Point(jnp.array(1.0)), data, run, momentum=nth.Nesterov())
    np.testing.assert_allclose(flow.f[:, 0], 2 * j1(ts) / ts, rtol=0, atol=1e-8)


@pytest.mark.parametrize("momentum", MOMENTA, ids=repr)
def test_flow_is_that_of_the_second_order_equation_at_the_rates(momentum):
    rates = eqx.tree_at(lambda net: net.readout.weight, jax.tree.map(lambda _: 1.0, NET), 0.25)
    theta, static = eqx.partition(NET, eqx.is_inexact_array)
    flat, back = ravel_pytree(theta)
    speeds = ravel_pytree(jax.tree.map(lambda a, rate: rate * jnp.ones_like(a), theta, rates))[0]

    def model(row):
        return eqx.combine(back(row), static)

    slope = jax.jit(jax.grad(lambda row: 0.5 * jnp.mean((jax.vmap(model(row))(X) - Y) ** 2)))

    def side(t, pair):
        row, v = np.split(pair, 2)
        force = -np.asarray(speeds * slope(row))
        if isinstance(momentum, nth.HeavyBall):
            return np.concatenate([v, force - 0.7 * v])
        return np.concatenate([v, force - 3.0 * v / t if t > 0 else force / 4])

    start = np.concatenate([flat, np.zeros_like(flat)])
    solved = solve_ivp(side, (0, TS[-1]), start, "DOP853", TS, rtol=1e-11, atol=1e-12)
    flow = nth.gradient_flow(NET, DATA, RUN, rates=rates, momentum=momentum)
    for f, pair in zip(flow.f, solved.y.T, strict=True):
        expected = jax.vmap(model(jnp.asarray(np.split(pair, 2)[0])))(X)
        np.testing.assert_allclose(f, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("momentum", MOMENTA, ids=repr)
@pytest.mark.parametrize("regulariser", [None, nth.WeightDecay(0.3)], ids=["loss", "decay"])
def test_order_2_in_closed_form_is_that_of_the_series(momentum, regulariser):
    more = {"momentum": momentum, "regulariser": regulariser}
    run = nth.Run(TS, solver=Explicit(rtol=1e-10), record=("kernel",))
    closed = nth.hierarchy(NET, DATA, 2, run, method="dense", **more)
    series = nth.hierarchy(NET, DATA, 2, run, method="series", **more)
    assert closed.solver == "closed form"
    for name in ("f", "f_test", "kernel"):
        np.testing.assert_allclose(getattr(closed, name), getattr(series, name), rtol=0, atol=1e-8)


def test_order_2_of_another_loss_is_integrated():
    data = nth.Dataset(X, jnp.sign(Y + 0.1))
    runs = [
        nth.hierarchy(
            NET, data, 2, RUN, method=method, loss=nth.logistic, momentum=nth.HeavyBall(0.7)
        ).f
        for method in ("dense", "series")
    ]
    np.testing.assert_allclose(*runs, rtol=0, atol=1e-8)


@pytest.mark.parametrize("momentum", MOMENTA, ids=repr)
def test_errors_of_orders_fall_like_twice_their_power_of_time(momentum):
    found = nth.certificate(NET, DATA, (2, 3), momentum=momentum)
    np.testing.assert_allclose(found.slopes, [4, 6], atol=0.3)
    assert not found.verdicts()


def test_descent_with_momentum_follows_the_flow():
    def apart(h):
        rate = h**2
        steps = optax.sgd(rate, momentum=1 - 0.7 * h)
        ours = nth.descent(NET, DATA, steps, [2.0], rate=h)
        flow = nth.gradient_flow(NET, DATA, [2.0], momentum=nth.HeavyBall(0.7))
        return np.abs(ours.f - flow.f).max()

    assert apart(0.025) == pytest.approx(0.5 * apart(0.05), rel=0.1)


def test_words_hold_all_digits_of_momentum():
    for momentum in (nth.HeavyBall(0.12345678), nth.Nesterov(3.00000001), nth.HeavyBall(2.0)):
        assert momentum_of(momentum.word) == momentum
    assert nth.HeavyBall(2.0).word == "heavy-ball:2"


def test_study_with_momentum_is_saved_and_computed_again(tmp_path):
    curves = (2, nth.Order(3), nth.Taylor(1))
    study = nth.compare(NET, DATA, curves, TS, momentum=nth.HeavyBall(0.7))
    assert "heavy-ball:0.7" in str(study)
    assert np.abs(study.curve("Taylor 1").f - study.curve(2).f).max() < 1e-6
    study.save(tmp_path / "a.nc")
    again = nth.rerun(nth.Comparison.load(tmp_path / "a.nc"))
    np.testing.assert_array_equal(again.exact.f, study.exact.f)


def test_run_that_was_kept_goes_on_where_it_was(tmp_path):
    whole = nth.gradient_flow(NET, DATA, RUN, momentum=nth.Nesterov())
    first = nth.Run(TS[:2], solver=RUN.solver, checkpoint=tmp_path)
    nth.gradient_flow(NET, DATA, first, momentum=nth.Nesterov())
    rest = nth.Run(TS, solver=RUN.solver, checkpoint=tmp_path)
    kept = nth.gradient_flow(NET, DATA, rest, momentum=nth.Nesterov())
    np.testing.assert_allclose(kept.f, whole.f, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="another momentum"):
        nth.gradient_flow(NET, DATA, rest, momentum=nth.Nesterov(4.0))


def test_flow_with_momentum_ends_at_a_loss():
    until = Until(loss=0.02)
    run = nth.Run([0.0, 50.0], solver=Explicit(rtol=1e-8), until=until)
    flow = nth.gradient_flow(NET, DATA, run, momentum=nth.HeavyBall(0.7))
    assert flow.stop.reason == "loss"
    assert flow.loss[-1] == pytest.approx(0.02, rel=1e-4)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: nth.HeavyBall(-1.0), r"`friction` must be a number of at least 0, but is -1.0"),
        (lambda: nth.Nesterov(0.0), r"`r` must be a positive number, but is 0.0"),
        (lambda: momentum_of("heavy"), r"`momentum` must be a word such as heavy-ball:0.5"),
        (
            lambda: nth.hierarchy(NET, DATA, 3, TS, method="dense", momentum=MOMENTA[0]),
            r'`method` must be "series" for momentum above order 2',
        ),
        (
            lambda: nth.compare(NET, DATA, (nth.Perturbation(),), TS, momentum=MOMENTA[0]),
            r"`momentum` must be left out for perturbation theory, but is heavy-ball:0.7",
        ),
        (
            lambda: nth.compare(NET, DATA, (nth.Modified(0.1),), TS, momentum=MOMENTA[0]),
            r"`momentum` must be left out for the modified flow",
        ),
        (
            lambda: nth.gradient_flow(
                NET, DATA, nth.Run(TS, until=Until(stalled=0.1)), momentum=MOMENTA[1]
            ),
            r"`until` must have no gradient and no stalled with momentum",
        ),
        (
            lambda: nth.gradient_flow(
                NET, DATA, nth.Run(TS, record=("movement",)), momentum=MOMENTA[1]
            ),
            r"`record` must hold no movement with momentum",
        ),
    ],
)
def test_what_momentum_cannot_have_is_told_in_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=rf"^{sentence}"):
        call()
