"""Kernels of infinitely wide networks, against listed values, closed forms and wide networks."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.special import erf
from scipy.stats import multivariate_normal

import nthsim as nth
from nthsim.kernels.hermite import SlowDecayWarning
from nthsim.models import FCN, ResNet

#: Two points on the circle with the inner product 0.6.
X = np.array([[1.0, 0.0], [0.6, 0.8]])
POINTS = [jnp.asarray(x) for x in X]

# (kind, options, NTK(x, x), NTK(x, x')) to the eight digits of 120-point quadrature.
REFERENCES = [
    ("fcn", {"activation": "erf", "depth": 1}, 1.03396909, 0.53982341),
    ("fcn", {"activation": "erf", "depth": 2}, 1.09860621, 0.54531538),
    ("fcn", {"activation": "relu", "depth": 1}, 1.0, 0.55022361),
    ("fcn", {"activation": "relu", "depth": 2}, 0.75, 0.38610408),
    ("resnet", {"activation": "erf", "depth": 2, "c_sigma": 1.0}, 1.30862064, 0.67615225),
    ("resnet", {"activation": "erf", "depth": 3, "c_sigma": 1.0}, 1.28749433, 0.66484658),
]

# (kind, activation, depth, NTK(x, x), NTK(x, x')/NTK(x, x)) to the digits known, c_sigma "auto".
DEEP = [
    ("fcn", "erf", 8, "23.234", None),
    ("fcn", "erf", 16, "136.50", "0.0241"),
    ("fcn", "erf", 32, "3652.8", "0.0004"),
    ("fcn", "relu", 64, "65.000", "0.2928"),
    ("resnet", "erf", 8, "2.4194", "0.5159"),
    ("resnet", "erf", 64, "2.2524", "0.5212"),
    ("resnet", "relu", 64, "2.7276", "0.6660"),
]


@pytest.mark.parametrize(("kind", "options", "same", "other"), REFERENCES)
def test_kernel_has_the_listed_values(kind, options, same, other):
    kernel = nth.limit_kernel(kind, X, **options)
    np.testing.assert_allclose(kernel, [[same, other], [other, same]], rtol=1e-7, atol=0)


@pytest.mark.parametrize(("kind", "activation", "depth", "same", "ratio"), DEEP)
def test_deep_kernel_has_the_listed_digits(kind, activation, depth, same, ratio):
    kernel = nth.limit_kernel(kind, X, depth=depth, activation=activation, c_sigma="auto")
    for listed, value in ((same, kernel[0, 0]), (ratio, kernel[0, 1] / kernel[0, 0])):
        if listed is not None:
            assert f"{value:.{len(listed.split('.')[1])}f}" == listed


def test_normalised_relu_kernel_of_a_point_is_one_more_than_the_depth():
    for depth in (1, 5, 64):
        kernel = nth.limit_kernel("fcn", X, depth=depth, activation="relu", c_sigma="auto")
        np.testing.assert_allclose(np.diag(kernel), depth + 1, rtol=1e-13)


def test_scales_of_a_linear_network_come_out_as_its_closed_form():
    c, w, r, S = 1.3, 0.7, 1.9, X @ X.T
    scales = {"c_sigma": c, "weight_scale": w, "readout_scale": r, "activation": "identity"}
    for H in (1, 3):
        # Each of the H matrices has the same kernel, that of the readout aside.
        expected = c**H * w ** (2 * H) * (1 + r**2 * H / w**2) * S
        np.testing.assert_allclose(nth.limit_kernel("fcn", X, depth=H, **scales), expected)
    L, e = 3, 0.8 / 3
    grown = 1 + e**2 * w**2
    expected = c * w**2 * grown ** (L - 1) * S
    expected += r**2 * c * (grown ** (L - 1) + (L - 1) * e**2 * w**2 * grown ** (L - 2)) * S
    kernel = nth.limit_kernel("resnet", X, depth=L, c_res=0.8, **scales)
    np.testing.assert_allclose(kernel, expected)


@pytest.mark.parametrize("kind", ["fcn", "resnet"])
def test_readout_alone_has_the_covariance_of_the_outputs_for_kernel(kind):
    options = {"depth": 3, "activation": "softplus", "weight_scale": 1.2}
    frozen = nth.limit_kernel(kind, X, readout_scale=0.0, **options)
    covariance = nth.limit_kernel(kind, X, which="nngp", **options)
    np.testing.assert_allclose(frozen, covariance, rtol=1e-15)
    doubled = nth.limit_kernel(kind, X, which="nngp", readout_scale=2.0, **options)
    np.testing.assert_allclose(doubled, 4 * covariance, rtol=1e-15)


@pytest.mark.parametrize(("kind", "activation"), [("fcn", "relu"), ("resnet", "tanh")])
def test_block_of_test_points_is_part_of_the_whole_kernel(kind, activation):
    x = np.random.default_rng(0).standard_normal((5, 3))
    whole = nth.limit_kernel(kind, x, depth=3, activation=activation)
    block = nth.limit_kernel(kind, x[:3], x_first=x[2:], depth=3, activation=activation)
    # Point 2 meets itself, where relu's angle has half the digits.
    np.testing.assert_allclose(block, whole[2:, :3], rtol=1e-7)


def test_input_of_zeros_has_a_kernel():
    x = np.array([[0.0, 0.0], [1.0, 0.0]])
    np.testing.assert_array_equal(nth.limit_kernel("fcn", x, depth=2, activation="erf")[0], 0.0)
    kernel = nth.limit_kernel("resnet", x, depth=2, activation="softplus")
    assert np.isfinite(kernel).all()
    assert kernel[0, 0] > 0


def test_precision_of_jax_only_rounds_the_result():
    with jax.enable_x64(False):
        single = nth.limit_kernel("resnet", X, depth=2, activation="silu")
    assert single.dtype == jnp.float32
    double = nth.limit_kernel("resnet", X, depth=2, activation="silu")
    # c_sigma is computed from an activation in float32.
    np.testing.assert_allclose(single, double, rtol=3e-7)


SCALES = {"weight_scale": 1.3, "readout_scale": 0.7, "c_sigma": 0.9}


@pytest.mark.parametrize(
    ("network", "options"),
    [
        (FCN, {"activation": "softplus"}),
        (ResNet, {"activation": "relu", "c_res": 0.8}),
    ],
)
def test_wide_networks_have_the_kernel_of_the_limit_on_average(network, options):
    options = {"depth": 3, **options, **SCALES}
    limit = nth.limit_kernel(network.__name__.lower(), X, **options)

    def draw(key):
        net = network(2, 256, key=key, **options)
        grads = [jax.tree.leaves(eqx.filter_grad(lambda net, x=x: net(x))(net)) for x in POINTS]
        return [[sum(map(jnp.vdot, a, b)) for b in grads] for a in grads]

    keys = jr.split(jr.key(0), 60)
    draws = np.moveaxis(np.array(jax.jit(lambda keys: jax.lax.map(draw, keys))(keys)), 2, 0)
    error = draws.std(axis=0, ddof=1) / np.sqrt(len(draws))
    np.testing.assert_array_less(np.abs(draws.mean(axis=0) - limit), 3 * error)
    # The test can fail: errors are small.
    assert np.all(error < 0.02 * np.asarray(limit))


def test_kernel_of_an_activation_with_kinks_anywhere_is_made_of_probabilities():
    c, x = 0.3, np.array([[0.8, 0.0, 0.0], [0.3, 0.7, 0.0], [0.0, 0.1, 0.6]])
    options = {"depth": 1, "activation": lambda z: jnp.clip(z, -c, c)}
    ntk = nth.limit_kernel("fcn", x, **options)
    slopes = (ntk - nth.limit_kernel("fcn", x, which="nngp", **options)) / (x @ x.T)
    S, corners = x @ x.T, [(c, c, 1), (-c, c, -1), (c, -c, -1), (-c, -c, 1)]
    # The slopes are one where both are within the kinks.
    for i, j in ((0, 1), (1, 2)):
        normal = multivariate_normal(cov=S[np.ix_([i, j], [i, j])])  # pyright: ignore
        expected = sum(sign * normal.cdf([a, b]) for a, b, sign in corners)
        np.testing.assert_allclose(slopes[i, j], expected, rtol=1e-10)
    np.testing.assert_allclose(np.diag(slopes), erf(c / np.sqrt(2 * np.diag(S))), rtol=1e-12)


def test_kernel_of_a_steep_or_fast_activation_is_that_of_its_closed_form_at_larger_inputs():
    x = np.array([[0.6, 0.8, 0.0], [0.0, 0.6, 0.8]])
    steep = nth.limit_kernel("fcn", x, depth=1, activation=lambda z: jax.scipy.special.erf(200 * z))
    expected = nth.limit_kernel("fcn", 200 * x, depth=1, activation="erf")
    np.testing.assert_allclose(steep, expected, rtol=1e-8)
    with pytest.warns(SlowDecayWarning):  # between other points than identical ones
        fast = nth.limit_kernel("fcn", x, depth=1, activation=lambda z: jnp.sin(60 * z))
    expected = nth.limit_kernel("fcn", 60 * x, depth=1, activation="sin")
    np.testing.assert_allclose(np.diag(fast), np.diag(expected), rtol=1e-8)
    with pytest.raises(ValueError, match="moments that quadrature settles"):
        nth.limit_kernel("fcn", x, depth=1, activation=lambda z: jnp.sin(1e6 * z**2))


def test_kernel_is_that_of_the_activation_of_the_moment():
    at = {"gain": 1.0}
    activation = lambda z: jnp.tanh(at["gain"] * z)  # noqa: E731
    before = nth.limit_kernel("fcn", X, depth=1, activation=activation)
    at["gain"] = 2.0
    after = nth.limit_kernel("fcn", X, depth=1, activation=activation)
    expected = nth.limit_kernel("fcn", X, depth=1, activation=lambda z: jnp.tanh(2.0 * z))
    np.testing.assert_array_equal(after, expected)
    assert np.abs(after - before).max() > 0.1


@pytest.mark.parametrize("size", [30.0, 1e3, 1e5, 1e6])
def test_kernel_at_large_inputs_has_the_narrow_slope_of_the_activation(size):
    s = size**2
    expected = 1 / np.sqrt(1 + 4 * s) + s * 4 * s / (1 + 4 * s) ** 1.5  # of one point
    bell = lambda z: jnp.exp(-(z**2))  # noqa: E731
    x = size * np.array([[0.6, 0.8]])
    kernel = lambda x: nth.limit_kernel("fcn", x, depth=1, activation=bell)  # noqa: E731
    np.testing.assert_allclose(kernel(x), [[expected]], rtol=1e-10)
    np.testing.assert_allclose(jax.jit(kernel)(x), [[expected]], rtol=1e-10)


def test_activation_whose_moments_lie_beyond_the_quadrature_is_refused():
    unit = np.array([[0.6, 0.8], [1.0, 0.0]])
    C = unit @ unit.T
    found = nth.limit_kernel("fcn", unit, depth=1, activation=jnp.exp)
    np.testing.assert_allclose(found, np.exp(1 + C) * (1 + C), rtol=1e-12)
    for x, depth in ((5 * unit, 1), (unit, 4)):
        with pytest.raises(ValueError, match="must have moments that are finite and within 11"):
            nth.limit_kernel("fcn", x, depth=depth, activation=jnp.exp)


def test_activation_that_is_silent_at_small_inputs_has_a_kernel_of_nearly_nothing():
    x = np.array([[0.06, 0.08], [0.1, 0.0]])
    found = nth.limit_kernel("fcn", x, depth=1, activation=lambda z: jax.nn.relu(z - 1))
    assert np.abs(found).max() < 1e-20
