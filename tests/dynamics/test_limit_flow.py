"""Training with the kernel of infinite width, against matrix exponentials."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import studies
from scipy.integrate import solve_ivp
from scipy.linalg import expm

import nthsim as nth
from nthsim.models import FCN, ResNet
from nthsim.solvers import Explicit

TS = np.array([0.0, 1.0, 30.0])


def regression(kernel, f, y, n):
    """Kernel regression by gradient flow: f and y on the training points come first."""
    N = len(y)
    outputs = []
    for t in TS:
        decay = expm(-kernel[:N] * t / n)
        swept = np.linalg.solve(kernel[:N], (np.eye(N) - decay) @ (f[:N] - y))
        outputs.append(np.concatenate([y + decay @ (f[:N] - y), f[N:] - kernel[N:] @ swept]))
    return np.array(outputs)


@pytest.mark.parametrize("start", ["network", "zero"])
def test_flow_is_kernel_regression(start):
    data = studies.points()
    assert data.x_test is not None
    net = ResNet(4, 8, 2, activation="softplus", c_res=0.7, weight_scale=1.2, key=jr.key(0))
    flow = nth.limit_flow(
        net, data, nth.Run(TS, record=("kernel",), record_ts=[30.0]), start=start, progress=False
    )
    x = jnp.concatenate([data.x, data.x_test])
    options = {"depth": 2, "activation": "softplus", "c_res": 0.7, "weight_scale": 1.2}
    kernel = np.asarray(nth.limit_kernel("resnet", x, **options))[:, :3]
    f = np.array([net(one) for one in x]) * (start == "network")
    expected = regression(kernel, f, np.asarray(data.y), 3)
    np.testing.assert_allclose(flow.f, expected[:, :3], atol=1e-12)
    assert flow.f_test is not None
    assert flow.kernel is not None
    np.testing.assert_allclose(flow.f_test, expected[:, 3:], atol=1e-12)
    assert flow.method is not None
    np.testing.assert_allclose(flow.kernel[0], kernel[:3], rtol=1e-14)
    assert flow.name == nth.LimitKernel(start).key
    assert flow.solver == "closed form: constant kernel, quadratic loss"
    assert flow.method.startswith("tangent kernel of infinite width, from ")


def test_outputs_of_a_vector_move_apart():
    data = studies.points(2)
    assert data.x_test is not None
    net = FCN(4, 8, 1, out_size=2, activation="erf", key=jr.key(0))
    flow = nth.limit_flow(net, data, TS, start="zero", progress=False)
    x = jnp.concatenate([data.x, data.x_test])
    kernel = np.asarray(nth.limit_kernel("fcn", x, depth=1, activation="erf"))[:, :3]
    assert flow.f_test is not None
    for k in range(2):
        expected = regression(kernel, np.zeros(5), np.asarray(data.y[:, k]), 3)
        np.testing.assert_allclose(flow.f[:, :, k], expected[:, :3], atol=1e-12)
        np.testing.assert_allclose(flow.f_test[:, :, k], expected[:, 3:], atol=1e-12)


def test_any_loss_is_integrated():
    data = nth.Dataset(studies.points().x, np.array([1.0, -1.0, 1.0]))
    net = FCN(4, 8, 1, activation="relu", key=jr.key(0))
    ts = [0.0, 3.0]
    solver = Explicit(rtol=1e-9)
    flow = nth.limit_flow(net, data, nth.Run(ts, solver=solver), loss=nth.logistic, progress=False)
    kernel, y = np.asarray(nth.limit_kernel("fcn", data.x, depth=1, activation="relu")), data.y
    f = np.array([net(one) for one in data.x])

    def field(t, f):
        return kernel @ (np.asarray(y) / (1 + np.exp(y * f))) / 3

    expected = solve_ivp(field, ts, f, rtol=1e-10, atol=1e-12).y[:, -1]
    np.testing.assert_allclose(flow.f[-1], expected, rtol=1e-7)


def test_limits_from_two_starts_are_two_curves_and_two_checkpoints(tmp_path):
    net = FCN(4, 8, 1, key=jr.key(0))
    run = nth.Run([0.0, 1.0], record=(), checkpoint=tmp_path)
    curves = (nth.LimitKernel(), nth.LimitKernel("zero"))
    study = nth.compare(net, studies.points(), curves, run, certify=False)
    one, other = study.curves.values()
    assert list(study.curves) == ["limit kernel", "limit kernel from zero"]
    np.testing.assert_array_equal(other.f[0], 0.0)
    assert np.abs(one.f[0]).min() > 0
    again = nth.limit_flow(net, studies.points(), run, start="zero")
    np.testing.assert_array_equal(again.f, other.f)
