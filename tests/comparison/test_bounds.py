"""A-priori bounds hold on every network, and say on what they do not."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import studies
from scipy.integrate import quad
from scipy.linalg import expm

import nthsim as nth
from nthsim.comparison.bounds import Bounds, bounded
from nthsim.dynamics.gradient_flow import exact
from nthsim.dynamics.pose import pose
from nthsim.dynamics.start import Start
from nthsim.models import FCN, ResNet
from nthsim.solvers import Explicit

pytestmark = pytest.mark.slow

RUN = nth.Run([0.0, 0.5, 4.0], solver=Explicit(rtol=1e-7), record=("kernel",))


def measured(net, data) -> tuple[Bounds, np.ndarray, np.ndarray]:
    """The bounds, the errors of order 2, and the largest movement of an entry of the kernel."""
    problem = pose(net, data, nth.squared_error)
    flow = exact(problem, RUN, progress=False)
    kernels = Start(problem, progress=False).kernels(4)
    f, kernel = kernels[:2]
    y = np.asarray(data.y).reshape(-1)
    frozen = np.stack([y + expm(-t / len(data.x) * kernel) @ (f - y) for t in flow.ts])
    error = np.sqrt(np.mean((frozen - flow.f.reshape(frozen.shape)) ** 2, axis=1))
    assert flow.kernel is not None
    moved = np.abs(flow.kernel - flow.kernel[0]).reshape(len(flow.ts), -1).max(axis=1)
    return bounded(problem, net, flow, kernels), error, moved


@pytest.mark.parametrize(
    ("net", "outputs"),
    [
        (ResNet(4, 6, 2, key=jr.key(0)), None),
        (eqx.nn.MLP(4, 2, 5, 1, activation=jax.nn.softplus, key=jr.key(1)), 2),
    ],
)
def test_nothing_measured_exceeds_its_bound(net, outputs):
    bounds, error, moved = measured(net, studies.points(outputs, tests=0))
    assert np.all(error <= bounds.f_bound + 1e-14)
    assert np.all(moved <= bounds.kernel_bound + 1e-14)
    # At small times what there is of them is not much less than they allow.
    assert moved[1] > 0.02 * bounds.kernel_bound[1]


def test_bounds_of_a_comparison_hold_and_are_their_formulas():
    study, bounds = studies.predicted(), studies.predicted().bounds
    drift = study.drift()
    assert bounds is not None
    assert drift is not None
    assert bounds.horizon is not None
    assert np.all(study.errors(2).train_rms <= bounds.f_bound + 1e-14)
    assert np.all(drift <= bounds.drift_bound + 1e-14)
    start = nth.kernel(study.asked.model, study.asked.data.x, 2)
    distance = np.linalg.norm(study.exact.f[0] - study.asked.data.y)
    np.testing.assert_allclose(bounds.drive, distance / np.sqrt(3), rtol=1e-12)
    np.testing.assert_allclose(bounds.smallest, np.linalg.eigvalsh(start)[0], rtol=1e-10)
    np.testing.assert_allclose(bounds.horizon, np.sqrt(bounds.smallest * 8 / 3), rtol=1e-12)
    third = np.abs(nth.kernel(study.asked.model, study.asked.data.x, 3)).max()
    np.testing.assert_allclose(bounds.third, third, rtol=1e-12)
    R, t = bounds.drive, studies.TS[-1]
    moved = lambda s: R * bounds.third * s + R**2 * bounds.fourth * s**2 / 2  # noqa: E731
    np.testing.assert_allclose(bounds.kernel_bound[-1], moved(t), rtol=1e-12)
    swept = quad(lambda s: np.exp(-bounds.smallest * (t - s) / 3) * moved(s), 0, t)[0]
    np.testing.assert_allclose(bounds.f_bound[-1], R * swept, rtol=1e-9)
    np.testing.assert_allclose(
        bounds.drift_bound, 3 * bounds.kernel_bound / np.linalg.norm(start), rtol=1e-12
    )


def test_fourth_kernel_is_looked_at_before_and_after_training():
    study = studies.predicted()
    assert study.bounds is not None
    sizes = [
        np.abs(nth.kernel(net, study.asked.data.x, 4)).max()
        for net in (study.asked.model, study.exact.model)
    ]
    assert sizes[0] != sizes[1]
    np.testing.assert_allclose(study.bounds.fourth, max(sizes), rtol=1e-12)


def doubts(model=None, tangent=None, t1=1e-3) -> tuple[str, ...]:
    """Of the comparison's bounds, had it been of another network, or kernel, or time."""
    study = studies.predicted()
    problem = pose(study.asked.model, study.asked.data, nth.squared_error)
    f, kernel = problem.outputs(), problem.kernel(2)(problem.theta)
    kernels = (f, kernel if tangent is None else tangent, jnp.ones((5, 3, 3)), jnp.ones((5,) * 4))
    flow = dataclasses.replace(study.exact, ts=np.linspace(0.0, t1, len(studies.TS)))
    return bounded(problem, model or study.asked.model, flow, kernels).doubts


def test_assumptions_that_hold_are_not_named():
    assert doubts() == ()


def test_kinks_are_named():
    relu = FCN(4, 8, 1, activation="relu", key=jr.key(0))
    sentence = "the network has kinks, where K^(3) and K^(4) miss jumps: this is no bound"
    assert doubts(relu) == (sentence,)
    mlp = eqx.nn.MLP(4, "scalar", 5, 1, activation=jax.nn.relu, key=jr.key(0))
    assert doubts(mlp)[0] == sentence


def test_time_beyond_the_horizon_is_named():
    [sentence] = doubts(t1=50.0)
    assert sentence.startswith("t = 50 is beyond sqrt(lambda m / n) = ")


def test_singular_kernel_is_named():
    [sentence] = doubts(tangent=jnp.ones((5, 3)))
    assert sentence.startswith("K^(2) is singular to rounding, with eigenvalues from ")


def test_model_without_a_width_is_named():
    mlp = eqx.nn.MLP(4, "scalar", 5, 1, activation=jnp.tanh, key=jr.key(0))
    assert doubts(mlp) == ("MLP has no known width, so the horizon of Theorem 2.6 is unknown too",)
