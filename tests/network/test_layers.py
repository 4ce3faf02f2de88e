"""Layers as matrices that act on vectors, and kernels of what is built from them."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from oracles import relative_error

import nthsim as nth
from nthsim.kernels.signals import tapped
from nthsim.network.calls import calls_of
from nthsim.network.layers import is_layer, matrix_shape, vectors
from nthsim.network.split import split

pytestmark = pytest.mark.compiled

CONVOLUTIONS = {
    "plain": lambda key: eqx.nn.Conv1d(2, 3, 2, key=key),
    "strided and dilated": lambda key: eqx.nn.Conv2d(2, 3, (2, 3), (2, 1), dilation=2, key=key),
    "padded on one side": lambda key: eqx.nn.Conv2d(2, 3, 3, padding=((1, 0), (0, 2)), key=key),
    "cropped": lambda key: eqx.nn.Conv2d(2, 3, 2, padding=((-1, 0), (1, -2)), key=key),
    "same": lambda key: eqx.nn.Conv2d(2, 3, (3, 2), 2, "SAME", key=key),
    "same, lower": lambda key: eqx.nn.Conv2d(2, 3, 2, padding="SAME_LOWER", key=key),
    "reflected": lambda key: eqx.nn.Conv2d(2, 3, 3, padding=2, padding_mode="REFLECT", key=key),
    "replicated": lambda key: eqx.nn.Conv1d(2, 3, 3, padding=1, padding_mode="REPLICATE", key=key),
    "circular": lambda key: eqx.nn.Conv1d(2, 3, 3, padding=2, padding_mode="CIRCULAR", key=key),
    "in three dimensions": lambda key: eqx.nn.Conv3d(2, 3, 2, use_bias=False, key=key),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution_applies_its_matrix_to_patches(name):
    conv = CONVOLUTIONS[name](jr.key(0))
    x = jr.normal(jr.key(1), (2, 5, 6, 4)[: 1 + conv.num_spatial_dims])
    expected = conv(x)
    z = vectors(conv, x) @ conv.weight.reshape(matrix_shape(conv)).T
    z = z.T.reshape(expected.shape)
    np.testing.assert_allclose(z if conv.bias is None else z + conv.bias, expected, rtol=1e-12)


def test_what_acts_otherwise_is_no_layer():
    class Doubled(eqx.nn.Linear):
        def __call__(self, x, *, key=None):
            return 2 * (self.weight @ x)

    key = jr.key(2)
    assert is_layer(eqx.nn.Linear(2, 3, key=key))
    assert not is_layer(Doubled(2, 3, key=key))  # pyright: ignore[reportCallIssue]
    assert not is_layer(eqx.nn.Conv1d(2, 4, 2, groups=2, key=key))
    assert not is_layer(eqx.nn.ConvTranspose1d(2, 3, 2, key=key))


@pytest.mark.parametrize(
    ("layer", "shape", "x"),
    [
        (eqx.nn.Linear(2, 2, use_bias=False, key=jr.key(0)), (2, 2, 2), (2,)),
        (eqx.nn.Linear(1, 1, use_bias=False, key=jr.key(0)), (3, 1, 1), (1,)),
        (eqx.nn.Linear(2, 2, use_bias=False, key=jr.key(0)), (2,), (2,)),
        (eqx.nn.Conv1d(2, 3, 3, padding="SAME", use_bias=False, key=jr.key(0)), (3, 2, 1), (2, 5)),
        (eqx.nn.Conv1d(2, 3, 3, padding="SAME", use_bias=False, key=jr.key(0)), (3, 2, 2), (2, 5)),
        (eqx.nn.Conv2d(1, 2, 3, padding=1, use_bias=False, key=jr.key(0)), (2, 1, 2, 2), (1, 4, 3)),
    ],
)
def test_layer_with_an_array_that_it_was_not_made_with_is_none(layer, shape, x):
    class Net(eqx.Module):
        layer: eqx.Module

        def __call__(self, x):
            return jnp.sum(jnp.tanh(self.layer(x)) ** 3)  # pyright: ignore[reportCallIssue]

    net = Net(eqx.tree_at(lambda at: at.weight, layer, jr.normal(jr.key(1), shape)))
    points = jr.normal(jr.key(2), (3, *x))
    assert not is_layer(net.layer)
    with pytest.raises(ValueError, match=r"^`model` must have linear or conv"):
        nth.kernel(net, points, 2, method="structured", progress=False)
    data = nth.Dataset(points, jnp.arange(3.0))
    series, dense = (
        nth.hierarchy(net, data, 3, [0.0, 0.1], method=m, progress=False)
        for m in ("series", "dense")
    )
    np.testing.assert_allclose(series.f, dense.f, rtol=1e-6)


class Shared(eqx.Module):
    """One convolution called twice, on images of two sizes."""

    conv: eqx.nn.Conv2d
    readout: eqx.nn.Linear

    def __call__(self, x):
        return self.readout(jnp.tanh(self.conv(jnp.tanh(self.conv(x))).ravel()))


def convolutional():
    """For each name a module, and for each of its layers whether weight gradients are formed."""
    keys = jr.split(jr.key(3), 5)
    tanh, ravel = eqx.nn.Lambda(jnp.tanh), eqx.nn.Lambda(jnp.ravel)
    shared = Shared(eqx.nn.Conv2d(2, 2, 2, key=keys[0]), eqx.nn.Linear(4, 2, key=keys[1]))
    strided = eqx.nn.Sequential(
        [
            eqx.nn.Conv1d(2, 16, 2, 2, use_bias=False, key=keys[2]),
            tanh,
            eqx.nn.Conv1d(16, 2, 1, groups=2, key=keys[3]),
            ravel,
            eqx.nn.Linear(4, "scalar", key=keys[4]),
        ]
    )
    return {"shared": (shared, (True, False)), "strided": (strided, (False, False))}


@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize("name", ["shared", "strided"])
def test_convolutional_kernel_is_that_of_nested_derivatives(name, order):
    model, formed = convolutional()[name]
    x = jr.normal(jr.key(4), {"shared": (2, 2, 4, 3), "strided": (3, 2, 4)}[name])
    network, theta = split(model)
    assert tapped(network, theta, calls_of(network, theta, x[0]), 1).formed == formed
    structured = nth.kernel(model, x, order, method="structured")
    nested = nth.kernel(model, x, order, method="nested")
    assert relative_error(structured, nested) < 1e-12


class Beside(eqx.Module):
    """A way through no units beside a layer."""

    narrow: eqx.nn.Linear
    back: eqx.nn.Linear
    plain: eqx.nn.Linear

    def __call__(self, x):
        return self.back(jnp.tanh(self.narrow(x))) + jnp.tanh(self.plain(x))


def test_layers_without_entries_stand_in_nobodys_way():
    keys = jr.split(jr.key(5), 3)
    sizes = ((2, 0), (0, 3), (2, 3))
    model = Beside(*(eqx.nn.Linear(i, o, key=k) for (i, o), k in zip(sizes, keys, strict=True)))
    x = jr.normal(jr.key(6), (2, 2))
    found = nth.kernel(model, x, 3, method="structured")
    assert relative_error(found, nth.kernel(model, x, 3, method="nested")) < 1e-12
