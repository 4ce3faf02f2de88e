"""The initial weights: orthogonality, scale, and which layers an initialisation is for."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from nthsim.models import FCN, ResNet
from nthsim.models.initialisation import INITIALISATIONS, gaussian, orthogonal, resolve

SHAPES = [(5, 5), (7, 3), (3, 8), (1, 4)]


@pytest.mark.parametrize(("out_size", "in_size"), SHAPES)
def test_the_shorter_side_of_an_orthogonal_matrix_is_orthogonal(out_size, in_size):
    weight = orthogonal(jr.key(0), out_size, in_size)
    assert weight.shape == (out_size, in_size)
    gram = weight @ weight.T if out_size <= in_size else weight.T @ weight
    expected = max(out_size, in_size) * np.eye(min(out_size, in_size))
    # QR is orthogonal to a few units of float64 rounding.
    np.testing.assert_allclose(gram, expected, atol=1e-13)


@pytest.mark.parametrize(("out_size", "in_size"), SHAPES)
def test_the_mean_square_of_an_orthogonal_matrix_is_one(out_size, in_size):
    weight = orthogonal(jr.key(1), out_size, in_size)
    np.testing.assert_allclose(jnp.mean(weight**2), 1.0, rtol=1e-13)


def test_gaussian_entries_have_the_moments_of_a_standard_normal():
    weight = gaussian(jr.key(0), 301, 200)
    # Five standard errors, of sqrt(15), sqrt(2) and sqrt(96) per entry; the key is fixed.
    error = 5 / np.sqrt(weight.size)
    np.testing.assert_allclose(jnp.mean(weight**3), 0.0, atol=error * np.sqrt(15))
    np.testing.assert_allclose(jnp.mean(weight**2), 1.0, atol=error * np.sqrt(2))
    np.testing.assert_allclose(jnp.mean(weight**4), 3.0, atol=error * np.sqrt(96))


@pytest.mark.parametrize("init", INITIALISATIONS)
@pytest.mark.parametrize("x64", [True, False])
def test_the_dtype_is_the_default_of_jax(init, x64):
    with jax.enable_x64(x64):
        weight = resolve(init)(jr.key(0), 3, 2)
        network = FCN(3, 5, 2, c_sigma="auto", init=init, key=jr.key(0))
        f = network(jnp.ones(3))
    dtype = jnp.float64 if x64 else jnp.float32
    assert (weight.dtype, network.layers[1].weight.dtype, f.dtype) == (dtype, dtype, dtype)


@pytest.mark.parametrize("network", [FCN, ResNet])
@pytest.mark.parametrize("init", INITIALISATIONS)
def test_scales_multiply_the_weights_of_scale_one(network, init):
    plain = network(3, 5, 2, init=init, key=jr.key(0))
    scaled = network(3, 5, 2, init=init, weight_scale=0.5, readout_scale=4.0, key=jr.key(0))
    # Powers of two: exact in floating point.
    for scaled_layer, layer in zip(scaled.layers, plain.layers, strict=True):
        np.testing.assert_array_equal(scaled_layer.weight, 0.5 * layer.weight)
    np.testing.assert_array_equal(scaled.readout.weight, 4.0 * plain.readout.weight)


@pytest.mark.parametrize("network", [FCN, ResNet])
def test_orthogonal_layers_leave_the_readout_gaussian(network):
    haar = network(3, 5, 3, init="orthogonal", key=jr.key(0))
    normal = network(3, 5, 3, init="gaussian", key=jr.key(0))
    first, *square = (layer.weight for layer in haar.layers)
    np.testing.assert_allclose(first.T @ first, 5 * np.eye(3), atol=1e-13)
    for weight in square:
        np.testing.assert_allclose(weight @ weight.T, 5 * np.eye(5), atol=1e-13)
    np.testing.assert_array_equal(haar.readout.weight, normal.readout.weight)


@pytest.mark.parametrize("network", [FCN, ResNet])
def test_no_two_layers_share_their_weights(network):
    drawn = network(5, 5, 3, out_size=5, key=jr.key(0))
    entries = [linear.weight[0, 0] for linear in (*drawn.layers, drawn.readout)]
    assert len(np.unique(entries)) == 4


def test_an_unknown_initialisation_is_answered_with_the_known_ones():
    sentence = "`init` must be one of 'gaussian', 'orthogonal', but is 'haar'."
    with pytest.raises(ValueError, match=sentence):
        resolve("haar")
