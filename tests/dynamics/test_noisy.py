"""Gradient flow with noise has the moments that stochastic calculus gives it."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import studies
from jax.flatten_util import ravel_pytree

import nthsim as nth
from nthsim.models import FCN
from nthsim.results.record import Label

KEY = jr.key(11)


class Line(eqx.Module):
    """A linear model."""

    w: jax.Array

    def __call__(self, x):
        """The output for one input."""
        return self.w @ x


def _fit():
    """A linear model, its data, and the Hessian and the gradients' parts there."""
    x = jr.normal(jr.key(0), (7, 2))
    y = x @ jnp.array([1.0, -2.0]) + 0.3 * jr.normal(jr.key(1), (7,))
    return Line(jnp.zeros(2)), nth.Dataset(x, y), np.asarray(x), np.asarray(y)


def _paths(found, of="path_f"):
    values = getattr(found, of)
    assert values is not None
    return values


def _weights(found, x):
    """Those of each path at each time, shape (T, paths, d)."""
    return _paths(found) @ np.linalg.pinv(x).T


def _stationary(**options):
    model, data, x, y = _fit()
    ts = np.linspace(12.0, 72.0, 16)
    found = nth.noisy(model, data, nth.Noisy(0.2, 4, key=KEY, paths=300, **options), ts)
    return _weights(found, x), x, y


def _check_covariance(w, wanted):
    """Within three standard errors, as if times so far apart were independent."""
    rows = w.reshape(-1, w.shape[-1])
    found, count = np.cov(rows.T), len(rows)
    error = np.sqrt((wanted**2 + np.outer(np.diag(wanted), np.diag(wanted))) / count)
    assert np.all(np.abs(found - wanted) < 3 * error)


def test_isotropic_noise_comes_to_the_gibbs_distribution():
    w, x, y = _stationary(sigma=1.3)
    hessian = x.T @ x / len(x)
    _check_covariance(w, 0.2 * 1.3**2 / (2 * 4) * np.linalg.inv(hessian))
    best = np.linalg.lstsq(x, y, rcond=None)[0]
    assert np.all(np.abs(w.mean((0, 1)) - best) < 3 * w.std((0, 1)) / np.sqrt(16 * 300))


def test_noise_of_batches_comes_to_the_covariance_of_lyapunov():
    w, x, y = _stationary()
    hessian, best = x.T @ x / len(x), np.linalg.lstsq(x, y, rcond=None)[0]
    wanted = np.zeros((2, 2))
    for _ in range(100):  # the noise depends on the spread, by the square of each residual
        squares = (x @ best - y) ** 2 + np.einsum("bi,ij,bj->b", x, wanted, x)
        noise = (x.T * squares) @ x / len(x) - hessian @ wanted @ hessian
        wanted = scipy.linalg.solve_continuous_lyapunov(hessian, 0.2 / 4 * noise)
    _check_covariance(w, wanted)


@pytest.mark.parametrize("rates", [None, [0.7, 0.0]])
def test_short_time_covariance_is_that_of_gradients(rates):
    net = FCN(3, 4, 1, out_size=2, activation="tanh", key=jr.key(2))
    data = nth.Dataset(jr.normal(jr.key(3), (5, 3)), jr.normal(jr.key(4), (5, 2)))
    tree = True
    if rates is not None:
        leaves = eqx.filter(net, eqx.is_inexact_array)
        tree = jax.tree.unflatten(jax.tree.structure(leaves), rates)
    noise = nth.Noisy(0.1, 3, key=KEY, paths=4000, step=1e-5)
    found = nth.noisy(net, data, noise, [1e-5], rates=tree)

    params, static = eqx.partition(net, eqx.is_inexact_array)
    flat, back = ravel_pytree(params)
    pairs = zip(jax.tree.leaves(params), rates or [1.0, 1.0], strict=True)
    scale = np.concatenate([np.full(a.size, rate) for a, rate in pairs])
    model = lambda row, x: eqx.combine(back(row), static)(x)  # noqa: E731
    loss = lambda row, x, y: 0.5 * jnp.sum((model(row, x) - y) ** 2)  # noqa: E731
    g = np.asarray(jax.vmap(jax.grad(loss), (None, 0, 0))(flat, data.x, data.y)) * scale
    jacobian = np.asarray(jax.vmap(jax.jacobian(model), (None, 0))(flat, data.x)).reshape(10, -1)
    rows = (g - g.mean(0)) @ jacobian.T
    wanted = 0.1 / 3 * 1e-5 * rows.T @ rows / 5
    _check_covariance(_paths(found).reshape(1, 4000, 10), wanted)


@pytest.mark.parametrize(
    ("one", "two", "sigma"), [((0.1, 2), (0.3, 6), None), ((0.05, 1), (0.2, 4), 1.3)]
)
def test_only_the_ratio_of_rate_and_batch_matters(one, two, sigma):
    model, data, _, _ = _fit()
    first, second = (
        nth.noisy(model, data, nth.Noisy(*pair, key=KEY, step=0.1, sigma=sigma), [1.0, 2.0])
        for pair in (one, two)
    )
    np.testing.assert_allclose(_paths(first), _paths(second), rtol=1e-13)


def test_paths_follow_from_the_key_alone():
    model, data, _, _ = _fit()

    def walked(key, paths):
        noise = nth.Noisy(0.1, 2, key=key, paths=paths)
        return _paths(nth.noisy(model, data, noise, [1.0, 2.0]))

    first = walked(KEY, 5)
    assert np.array_equal(first, walked(KEY, 5))
    np.testing.assert_allclose(first[:, :3], walked(KEY, 3), rtol=1e-12)
    assert not np.any(np.isclose(first, walked(jr.key(12), 5), rtol=1e-6))


def test_without_noise_it_is_gradient_flow_to_second_order():
    net = FCN(4, 5, 1, activation="tanh", key=jr.key(5))
    data, ts = studies.points(), [0.4, 2.0]
    exact = nth.gradient_flow(net, data, ts)
    off = []
    for step in (0.1, 0.05):
        noise = nth.Noisy(0.1, 2, key=KEY, paths=2, sigma=0.0, step=step)
        found = nth.noisy(net, data, noise, ts)
        assert np.array_equal(_paths(found)[:, 0], _paths(found)[:, 1])
        off.append(np.abs(found.f - exact.f).max())
    assert 1.8 < np.log2(off[0] / off[1]) < 2.2


def test_means_and_quantiles_are_those_of_the_paths():
    net = FCN(4, 5, 1, activation="tanh", key=jr.key(5))
    data = studies.points()
    found = nth.noisy(net, data, nth.Noisy(0.1, 1, key=KEY, paths=9), [0.4, 2.0])
    np.testing.assert_allclose(found.f, _paths(found).mean(1), rtol=1e-12)
    y = np.asarray(data.y)
    np.testing.assert_allclose(
        _paths(found, "path_loss"), ((_paths(found) - y) ** 2).mean(2) / 2, rtol=1e-12
    )
    np.testing.assert_allclose(found.loss, _paths(found, "path_loss").mean(1), rtol=1e-13)
    assert np.array_equal(
        found.quantiles(0.5, "f_test"), np.median(_paths(found, "path_f_test"), axis=1)
    )
    assert found.quantiles([0.1, 0.9], "loss").shape == (2, 2)
    with pytest.raises(ValueError, match=r"^`of` must be something that paths with noise have"):
        nth.gradient_flow(net, data, [0.4]).quantiles(0.5)
    with pytest.raises(ValueError, match=r"^`q` must be from 0 to 1, but is 2\.$"):
        found.quantiles(2)


def test_run_goes_on_from_its_checkpoint_bit_by_bit(tmp_path):
    model, data, _, _ = _fit()
    noise, other = (nth.Noisy(0.1, 2, key=KEY, paths=paths) for paths in (3, 4))
    walked = lambda run: nth.noisy(model, data, noise, run)  # noqa: E731
    whole = walked([0.55, 1.0, 2.0])
    walked(nth.Run([0.55, 1.0], checkpoint=tmp_path))
    again = walked(nth.Run([0.55, 1.0, 2.0], checkpoint=tmp_path))
    assert np.array_equal(_paths(again), _paths(whole))
    with pytest.raises(ValueError, match="another noise"):
        nth.noisy(model, data, other, nth.Run([2.0], checkpoint=tmp_path))


class Press(nth.Observable):
    """Ctrl-C at the third save time, once."""

    name: str = "press"
    of_parameters: bool = False
    calls: list = eqx.field(default_factory=list, static=True)

    def evaluate(self, moment):
        """Counts."""
        self.calls.append(moment.t)
        if len(self.calls) == 3:
            raise KeyboardInterrupt
        return {"press": np.array(moment.t)}

    def labels(self, problem):
        """One number."""
        del problem
        return {"press": Label((), "time", {})}


def test_run_goes_on_where_it_was_interrupted(tmp_path):
    model, data, _, _ = _fit()
    noise, ts = nth.Noisy(0.1, 2, key=KEY, paths=3), [0.0, 0.5, 1.0, 2.0]
    whole, press = nth.noisy(model, data, noise, ts), Press()
    run = nth.Run(ts, record=(press,), checkpoint=tmp_path)
    with pytest.raises(nth.SolveError, match="interrupted at t = 1"):
        nth.noisy(model, data, noise, run)
    again = nth.noisy(model, data, noise, run)
    np.testing.assert_array_equal(press.calls, [0.0, 0.5, 1.0, 1.0, 2.0])
    assert np.array_equal(_paths(again), _paths(whole))


def test_curve_stands_beside_exact_flow_and_in_files(tmp_path):
    net = FCN(4, 5, 1, activation="tanh", key=jr.key(5))
    data = studies.points()
    curve = nth.Noisy(0.1, 2, key=KEY, paths=4)
    study = nth.compare(net, data, (2, curve), [0.0, 0.4, 2.0], certify=False)
    found = study.curve(curve)
    assert found.kernel is not None
    assert found.kernel.shape == (3, len(data.x), len(data.x))
    assert "noisy 0.1, batches of 2" in str(study)
    losses = study.plot().axes[0]
    assert losses.get_title() == "loss (solid: training, dashed: test, band: 80% of paths)"
    [band] = losses.collections
    corners = np.asarray(band.get_paths()[0].vertices)
    ends = np.unique(np.round(corners[corners[:, 0] == found.ts[-1], 1], 12))
    np.testing.assert_allclose(ends, found.quantiles([0.1, 0.9], "loss")[:, -1], rtol=1e-9)
    study.save(tmp_path / "a.nc")
    loaded = nth.Comparison.load(tmp_path / "a.nc")
    assert np.array_equal(_paths(loaded.curve("noisy 0.1, batches of 2")), _paths(found))
    with pytest.raises(ValueError, match="of 2 a file keeps the numbers only"):
        nth.rerun(loaded)


def test_steps_that_become_long_beside_the_curvature_are_told_of():
    model, data, _, _ = _fit()
    short, long = (
        nth.noisy(model, data, nth.Noisy(0.1, 2, key=KEY, paths=2, step=step), [1.0])
        for step in (0.1, 0.5)
    )
    assert "times the largest curvature" not in short.solver
    assert re.search(r"a step times the largest curvature is 0\.\d+: take a smaller", long.solver)


def test_steps_are_short_beside_the_curvatures_at_the_start():
    model, data, x, _ = _fit()
    largest, single = np.linalg.eigvalsh(x.T @ x / len(x))[-1], np.sum(x**2, axis=1).max()
    for sigma, fastest in ((1.0, largest), (None, largest * (1 + single / 2))):
        noise = nth.Noisy(1.0, 2, key=KEY, paths=2, sigma=sigma)
        steps = nth.noisy(model, data, noise, [1.0]).stats.steps
        assert steps == pytest.approx(fastest / 0.2, abs=1.0)


def test_noise_that_falls_within_a_step_counts_as_its_mean():
    # One weight, from far away: the noise falls with the square of the residuals.
    x, y, ratio, step = np.array([1.5, 0.4]), np.array([6.0, -3.0]), 0.05, 0.2

    def moments(t, m):
        h, b, square = np.mean(x * x), np.mean(x * y), np.array([m[1], -m[0], 1.0])
        spread = np.array([x**4, 2 * x**3 * y, (x * y) ** 2])
        noise = np.mean(square @ spread) - np.array([m[1], -m[0], 1.0]) @ [h * h, 2 * h * b, b * b]
        return [b - h * m[0], 2 * (b * m[0] - h * m[1]) + ratio * noise]

    exact = scipy.integrate.solve_ivp(moments, (0, 1), [0.0, 0.0], rtol=1e-10, atol=1e-12).y[:, -1]
    data = nth.Dataset(jnp.asarray(x)[:, None], jnp.asarray(y))
    noise = nth.Noisy(ratio, 1, key=KEY, paths=20_000, step=step)
    w = _weights(nth.noisy(Line(jnp.zeros(1)), data, noise, [1.0]), x[:, None]).ravel()
    assert abs(w.mean() - exact[0]) < 0.02 * abs(exact[0])
    assert np.var(w) == pytest.approx(exact[1] - exact[0] ** 2, rel=0.05)  # 4 standard errors


def test_path_that_diverges_ends_the_run():
    model, data, _, _ = _fit()
    noise = nth.Noisy(1.0, 1, key=KEY, paths=2, step=50.0)
    with pytest.raises(nth.SolveError, match="the loss is no finite number"):
        nth.noisy(model, data, noise, [50.0 * 400])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rate": -0.1}, "`rate` must be a positive number, but is -0.1."),
        ({"batch_size": 0}, "`batch_size` must be an integer of at least 1, but is 0."),
        ({"paths": 0}, "`paths` must be an integer of at least 1, but is 0."),
        ({"sigma": -1.0}, "`sigma` must be a positive number, but is -1.0."),
        ({"step": 0.0}, "`step` must be a positive number, but is 0.0."),
        (
            {"key": None},
            "`key` must be a random key for noise, such as jax.random.key(0), but is None.",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_mistakes_get_a_sentence(options, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        nth.Noisy(**({"rate": 0.1, "batch_size": 2, "key": KEY} | options))


def test_runs_hold_nothing_that_noise_has_not():
    model, data, _, _ = _fit()
    noise = nth.Noisy(0.1, 2, key=KEY)
    with pytest.raises(ValueError, match=r"^`until` must have no other limit than seconds for noi"):
        nth.noisy(model, data, noise, nth.Run([1.0], until=nth.Until(loss=0.1)))
    with pytest.raises(ValueError, match=r"^`record` must hold nothing of a network's parameters "):
        nth.noisy(model, data, noise, nth.Run([1.0], record=("sharpness",)))


def test_momentum_has_steps_of_its_own():
    model, data, _, _ = _fit()
    curve = nth.Noisy(0.1, 2, key=KEY)
    with pytest.raises(ValueError, match=r"^`momentum` must be left out for noise, but is "):
        nth.compare(model, data, (curve,), [1.0], momentum=nth.HeavyBall(0.5), certify=False)
