"""The residual network against plain NumPy, its layer formulas and its limit."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.special import erf

from nthsim.models import FCN, ResNet

pytestmark = pytest.mark.compiled

# (sigma, sigma') in NumPy
IN_NUMPY = {
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "erf": (erf, lambda z: 2 / np.sqrt(np.pi) * np.exp(-(z**2))),
}


def forward(model, x):
    """The states x^[0..L] with x^[0] = x, the preactivations of layers 1..L, and the output."""
    sigma, _ = IN_NUMPY[model.activation]
    first, *blocks = (np.asarray(layer.weight) for layer in model.layers)
    preactivations = [first @ x]
    states = [np.asarray(x), np.sqrt(model.c_sigma / model.width) * sigma(preactivations[0])]
    for weight in blocks:
        preactivations.append(weight @ states[-1])
        step = model.c_res / (model.depth * np.sqrt(model.width)) * sigma(preactivations[-1])
        states.append(states[-1] + step)
    return states, preactivations, np.asarray(model.readout.weight) @ states[-1]


def layer_formula(model, x1, x2):
    """K^(2) of theory 2.2, summed over layers with the matrices E^[l], shape (k, k)."""
    _, derivative = IN_NUMPY[model.activation]
    m, residual = model.width, model.c_res / (model.depth * np.sqrt(model.width))
    (states1, z1, _), (states2, z2, _) = forward(model, x1), forward(model, x2)
    b1 = b2 = np.asarray(model.readout.weight)  # rows of b^[L], one for each output
    kernel = np.dot(states1[-1], states2[-1]) * np.eye(len(b1))
    for i in reversed(range(1, model.depth)):
        d1, d2, weight = derivative(z1[i]), derivative(z2[i]), np.asarray(model.layers[i].weight)
        kernel += residual**2 * (d1 * b1) @ (d2 * b2).T * np.dot(states1[i], states2[i])
        skip1 = np.eye(m) + residual * np.diag(d1) @ weight
        skip2 = np.eye(m) + residual * np.diag(d2) @ weight
        b1, b2 = b1 @ skip1, b2 @ skip2
    first = (derivative(z1[0]) * b1) @ (derivative(z2[0]) * b2).T
    return kernel + model.c_sigma / m * first * np.dot(x1, x2)


def tangent_kernel(model, xs):
    """K^(2) by contraction of the parameter Jacobian, shape (n, k, n, k)."""
    parameters, rebuild = jax.flatten_util.ravel_pytree(model)
    jacobian = jax.jacobian(lambda p: jax.vmap(rebuild(p))(xs))(parameters)
    jacobian = jacobian.reshape(len(xs), -1, parameters.size)
    return jnp.einsum("akp,blp->akbl", jacobian, jacobian)


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("out_size", ["scalar", 1, 3])
@pytest.mark.parametrize(("activation", "c_sigma"), [("tanh", "auto"), ("erf", 1.3)])
def test_output_is_that_of_the_numpy_recursion(depth, out_size, activation, c_sigma):
    model = ResNet(
        3, 7, depth, out_size=out_size, activation=activation, c_sigma=c_sigma, c_res=0.7,
        key=jr.key(0),
    )  # fmt: skip
    x = jr.normal(jr.key(1), (3,))
    _, _, f = forward(model, x)
    expected = f[0] if out_size == "scalar" else f
    actual = model(x)
    assert actual.shape == expected.shape
    # Rounding only: two orders of summation over at most seven terms.
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("out_size", ["scalar", 2])
def test_tangent_kernel_is_the_sum_of_its_layer_formulas(depth, out_size):
    model = ResNet(3, 7, depth, out_size=out_size, c_res=0.7, key=jr.key(0))
    xs = jr.normal(jr.key(1), (2, 3))
    expected = [[layer_formula(model, x1, x2) for x2 in xs] for x1 in xs]
    expected = np.transpose(expected, (0, 2, 1, 3))  # (n, n, k, k) to (n, k, n, k)
    np.testing.assert_allclose(tangent_kernel(model, xs), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("depth", "diagonal", "off_diagonal"),
    [(2, 1.30862064, 0.67615225), (3, 1.28749433, 0.66484658)],
)
def test_mean_tangent_kernel_is_near_its_limit(depth, diagonal, off_diagonal):
    xs = jnp.array([[1.0, 0.0], [0.6, 0.8]])

    def kernel(key):
        model = ResNet(2, 128, depth, activation="erf", c_sigma=1.0, key=key)
        return tangent_kernel(model, xs).squeeze()

    kernels = jax.vmap(kernel)(jr.split(jr.key(0), 256))
    expected = [[diagonal, off_diagonal], [off_diagonal, diagonal]]
    # One kernel fluctuates by at most 1.5 / sqrt(128), its mean by 0.0083; three of these.
    np.testing.assert_allclose(kernels.mean(axis=0), expected, atol=0.025)


def test_of_depth_one_it_is_the_fully_connected_network():
    x = jr.normal(jr.key(1), (3,))
    residual = ResNet(3, 7, 1, key=jr.key(0))
    connected = FCN(3, 7, 1, c_sigma="auto", key=jr.key(0))
    np.testing.assert_array_equal(residual(x), connected(x))


def test_without_its_blocks_it_is_its_first_layer():
    x = jr.normal(jr.key(1), (3,))
    model = ResNet(3, 7, 3, c_res=0.0, key=jr.key(0))
    states, _, _ = forward(model, x)
    np.testing.assert_allclose(model(x), (model.readout.weight @ states[1])[0], rtol=1e-12)


def test_a_negative_residual_constant_is_refused():
    sentence = "^`c_res` must be a finite non-negative number, but is -0.5\\.$"
    with pytest.raises(ValueError, match=sentence):
        ResNet(3, 5, 2, c_res=-0.5, key=jr.key(0))
