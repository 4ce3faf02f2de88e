"""First order in 1/m, against the hierarchy that it expands and against exact flow."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import studies
from scipy.linalg import expm

import nthsim as nth
from nthsim.dynamics.pose import pose
from nthsim.dynamics.run import problem_size
from nthsim.dynamics.start import Start
from nthsim.models import FCN
from nthsim.solvers import Explicit

pytestmark = pytest.mark.slow

TS = np.array([0.0, 1.0, 60.0])
TS_WIDE = [0.0, 6.0]
DATA = nth.sphere(3, 0, dim=4)
NET = FCN(4, 1024, 1, activation="erf", c_sigma=1.5, key=jr.key(0))


class Scaled(Start):
    r"""A start whose $K^{(3)}$ and $K^{(4)}$ at t = 0 are smaller, as by a larger width."""

    by = 1.0

    def kernels(self, order):
        f, tangent, *others = super().kernels(order)
        return f, tangent, *(self.by * kernel for kernel in others)


def six_points(outputs: int | None) -> nth.Dataset:
    """Six numbers to learn; of scalars, two at one point, so that the kernel is singular."""
    if outputs is not None:
        return studies.points(outputs, tests=1)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((8, 4)), rng.standard_normal(8)
    x[5] = x[4]
    return nth.Dataset(x[:6], y[:6], x[6:], y[6:])


@pytest.mark.parametrize("outputs", [None, 2])
def test_what_is_left_of_order_four_is_of_second_order(outputs):
    net = eqx.nn.MLP(4, outputs or "scalar", 8, 1, activation=jnp.tanh, key=jr.key(1))
    problem = pose(net, six_points(outputs), nth.squared_error)
    start, order = Scaled(problem, progress=False), nth.Order(4, method="dense")
    run = nth.Run(TS, solver=Explicit(rtol=1e-10), record=("kernel",))
    curves = (nth.Perturbation(), order.settled(problem_size(problem)))
    left = []
    for by in (2e-3, 2e-4):
        start.by = by
        theory, truncation = (each.trajectory(run, start, progress=False) for each in curves)
        names = ("f", "f_test", "kernel", "kernel_test")
        left.append([np.abs(getattr(theory, a) - getattr(truncation, a)).max() for a in names])
    # A hundred, but for third order, some percent of it here, and the solver's error.
    np.testing.assert_allclose(np.array(left[0]) / left[1], 100.0, rtol=0.05)
    assert max(left[0]) < 1e-2


def test_theory_leaves_a_tenth_of_the_frozen_kernels_error_at_width_1024():
    exact = nth.gradient_flow(
        NET,
        DATA,
        nth.Run(TS_WIDE, solver=Explicit(rtol=1e-7), record=("kernel",), record_ts=[6.0]),
        progress=False,
    )
    theory = nth.perturbation(NET, DATA, nth.Run(TS_WIDE, record=("kernel",)), progress=False)
    assert exact.kernel is not None
    assert theory.kernel is not None
    moved = np.linalg.norm(exact.kernel[-1] - theory.kernel[0])
    assert np.linalg.norm(exact.kernel[-1] - theory.kernel[-1]) < moved / 10
    frozen = expm(-theory.kernel[0] * 2.0) @ (theory.f[0] - DATA.y)
    off = np.linalg.norm(exact.f[-1] - DATA.y - frozen)
    assert np.linalg.norm(exact.f[-1] - theory.f[-1]) < off / 10
    assert theory.name == "perturbation theory"
    assert (theory.solver, theory.stats.steps) == ("closed form", 0)


def test_nothing_moves_where_nothing_is_to_be_learnt():
    learnt = nth.Dataset(DATA.x, jax.vmap(NET)(DATA.x))
    theory = nth.perturbation(NET, learnt, nth.Run(TS_WIDE, record=("kernel",)), progress=False)
    np.testing.assert_allclose(theory.f, np.stack([learnt.y] * 2), atol=1e-13)
    start = nth.kernel(NET, DATA.x, 2, progress=False)
    assert theory.kernel is not None
    np.testing.assert_allclose(theory.kernel, np.stack([start] * 2), rtol=1e-12)


def test_single_precision_without_double_at_hand_stays_near_the_double_one():
    expected = nth.perturbation(FCN(4, 8, 1, key=jr.key(1)), DATA, TS_WIDE, progress=False)
    with jax.enable_x64(False):
        data = nth.Dataset(*(np.asarray(a, np.float32) for a in (DATA.x, DATA.y)))
        found = nth.perturbation(FCN(4, 8, 1, key=jr.key(1)), data, TS_WIDE, progress=False)
    assert found.f.dtype == np.float32
    # The parameters are other ones, drawn in single precision: only the size can be compared.
    assert np.abs(found.f).max() < 3 * np.abs(expected.f).max()
