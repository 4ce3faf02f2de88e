"""Kernels against derivative tensors and closed forms."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from oracles import Product, TwoLayerLinear, derivative_tensors, relative_error, tree_kernel

import nthsim as nth
from nthsim.models import FCN, ResNet

pytestmark = pytest.mark.slow

N, D = 3, 2


def small_models():
    keys = jr.split(jr.key(0), 5)
    return {
        "fcn": FCN(D, 3, 2, key=keys[0]),
        "resnet": ResNet(D, 3, 2, activation="softplus", key=keys[1]),
        "mlp with biases": eqx.nn.MLP(D, "scalar", 3, 1, activation=jax.nn.gelu, key=keys[2]),
        "vector outputs": eqx.nn.MLP(D, 2, 2, 1, activation=jnp.tanh, key=keys[3]),
    }


@pytest.fixture(scope="module")
def x():
    return jr.normal(jr.key(1), (N, D))


def joined(kernel, order):
    """Samples and outputs in one axis per slot."""
    size = round(kernel.size ** (1 / order))
    return kernel.reshape((size,) * order)


@pytest.mark.parametrize("name", small_models())
def test_kernel_is_the_sum_over_increasing_trees_of_derivative_tensors(name, x):
    model = small_models()[name]
    top = 4 if name == "resnet" else 5  # compilation grows by three with each order
    tensors = derivative_tensors(model, x, top - 1)
    for order in range(2, top + 1):
        actual = joined(nth.kernel(model, x, order), order)
        assert relative_error(actual, tree_kernel(tensors, order)) < 1e-10


def test_tree_oracle_agrees_with_the_pdlt_tensors_of_theory():
    # K^(3)_{abc} = dH_{a;bc} + dH_{b;ac} and the six terms of K^(4), for any tensors at all.
    f, g, H, T = (jr.normal(jr.key(i), (2, *(3,) * i)) for i in range(4))
    H, T = H + H.mT, sum(T.transpose(0, *p) for p in itertools.permutations((1, 2, 3)))
    tensors = [np.asarray(a) for a in (f, g, H, T)]
    dH = np.einsum("bi,aij,cj->abc", g, H, g)
    ddI = np.einsum("aijk,bi,cj,dk->abcd", T, g, g, g)
    ddII = np.einsum("ci,aij,bjk,dk->abcd", g, H, H, g)  # II_{ab;cd}
    II = lambda a, b, c, d: np.einsum("".join((a, b, c, d)) + "->abcd", ddII)  # noqa: E731
    six = II("a", "b", "c", "d") + II("a", "c", "b", "d") + II("b", "a", "c", "d")
    six += II("b", "c", "a", "d") + ddI + ddI.swapaxes(0, 1)
    assert relative_error(tree_kernel(tensors, 3), dH + dH.swapaxes(0, 1)) < 1e-12
    assert relative_error(tree_kernel(tensors, 4), six) < 1e-12


@pytest.fixture(scope="module")
def two_layer_linear():
    u_key, V_key = jr.split(jr.key(2))
    return TwoLayerLinear(jr.normal(u_key, (5,)), jr.normal(V_key, (5, 4)))


def test_two_layer_linear_kernels_close_on_each_other(two_layer_linear):
    # V6: K^(r+2) is the same expression in K^(r) for every r, with Gram matrix G.
    x = jr.normal(jr.key(3), (4, 4))
    K = {1: jax.vmap(two_layer_linear)(x)} | {
        r: nth.kernel(two_layer_linear, x, r) for r in (2, 3, 4, 5)
    }
    G, m = x @ x.T, 5
    for r, rest in ((1, ""), (2, "d"), (3, "de")):
        step = lambda term: jnp.einsum(term, G, K[r])  # noqa: B023, E731
        expected = (
            step(f"ac,b{rest}->abc{rest}")
            + step(f"bc,a{rest}->abc{rest}")
            + 2 * step(f"ab,c{rest}->abc{rest}")
        ) / m
        assert relative_error(K[r + 2], expected) < 1e-10


def test_two_layer_linear_scalar_kernels_alternate():
    # V5 with x = 1: K^(2k) = (4/m)^(k-1) lambda, K^(2k+1) = (4/m)^k f.
    u, v = jr.normal(jr.key(4), (2, 6))
    model, x, m = TwoLayerLinear(u, v[:, None]), jnp.ones((1, 1)), 6
    f, lam = u @ v / jnp.sqrt(m), (u @ u + v @ v) / m
    for order, expected in ((2, lam), (3, 4 / m * f), (4, 4 / m * lam), (5, (4 / m) ** 2 * f)):
        actual = nth.kernel(model, x, order).reshape(())
        np.testing.assert_allclose(actual, expected, rtol=1e-12)


@pytest.mark.parametrize("layers", [2, 3, 4])
def test_balanced_deep_linear_kernels_are_iterated_derivatives(layers):
    # V7: K^(2) = N f^(2-2/N) and K^(r+1) = K^(2) dK^(r)/df.
    w = 1.3
    tower = lambda s: s  # noqa: E731
    K2 = lambda s: layers * s ** (2 - 2 / layers)  # noqa: E731
    for order in (2, 3, 4, 5):
        tower = (lambda below: lambda s: K2(s) * jax.grad(below)(s))(tower)
        actual = nth.kernel(Product(jnp.full(layers, w)), jnp.ones((1, 1)), order).reshape(())
        np.testing.assert_allclose(actual, tower(w**layers), rtol=1e-12)


def test_kernels_are_symmetric_in_their_first_two_slots_only(x):
    model = small_models()["fcn"]
    for order in (2, 3, 4):
        K = np.asarray(nth.kernel(model, x, order))
        np.testing.assert_allclose(K, K.swapaxes(0, 1), atol=1e-13 * np.abs(K).max())
        for slot in range(2, order):
            swapped = K.swapaxes(slot - 1, slot)
            assert np.abs(K - swapped).max() > 1e-3 * np.abs(K).max()


def test_tangent_kernel_has_no_negative_eigenvalue(x):
    eigenvalues = np.linalg.eigvalsh(nth.kernel(small_models()["resnet"], x, 2))
    assert eigenvalues.min() > -1e-13 * eigenvalues.max()


@pytest.mark.parametrize("name", ["fcn", "resnet"])
def test_odd_kernels_change_sign_with_the_readout(name, x):
    model = small_models()[name]
    flipped = eqx.tree_at(lambda m: m.readout.weight, model, replace_fn=jnp.negative)
    for order in (2, 3, 4):
        K = nth.kernel(model, x, order)
        sign = (-1) ** order
        np.testing.assert_allclose(nth.kernel(flipped, x, order), sign * K, rtol=1e-10, atol=1e-13)


def test_linear_network_is_homogeneous_in_its_parameters(x):
    # K^(r)(c theta) = c^(r(H+1) - 2r + 2) K^(r)(theta).
    H, c = 2, 1.7
    model = FCN(D, 3, H, activation="identity", key=jr.key(5))
    scaled = jax.tree.map(lambda a: c * a if eqx.is_inexact_array(a) else a, model)
    for order in (2, 3, 4):
        factor = c ** (order * (H + 1) - 2 * order + 2)
        expected = factor * nth.kernel(model, x, order)
        assert relative_error(nth.kernel(scaled, x, order), expected) < 1e-12


@pytest.mark.parametrize("chunk_bytes", [1, 3_000, 7_000, 30_000, 10**9])
@pytest.mark.parametrize("order", [2, 3, 4])
def test_kernel_does_not_depend_on_its_chunks(order, chunk_bytes):
    # Seven samples: no chunk but the whole divides the slots evenly.
    model, x = FCN(D, 3, 1, key=jr.key(6)), jr.normal(jr.key(7), (7, D))
    whole = nth.kernel(model, x, order, chunk_bytes=10**10)
    chunked = nth.kernel(model, x, order, chunk_bytes=chunk_bytes)
    np.testing.assert_allclose(chunked, whole, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("order", [2, 3])
def test_first_slot_may_hold_other_points(order, x):
    model, all_x = small_models()["vector outputs"], jnp.concatenate([x, x[:2] + 0.5])
    square = nth.kernel(model, all_x, order)
    block = nth.kernel(model, x, order, x_first=x[:2] + 0.5)
    expected = square[N:][(slice(None), slice(None), *(slice(N), slice(None)) * (order - 1))]
    assert block.shape == (2, 2, *(N, 2) * (order - 1))
    np.testing.assert_allclose(block, expected, rtol=1e-12, atol=1e-14)


def test_vector_outputs_keep_samples_and_outputs_apart(x):
    # Output i of sample a, against the scalar model that returns only this output.
    model = small_models()["vector outputs"]
    K3 = nth.kernel(model, x, 3)
    assert K3.shape == (N, 2, N, 2, N, 2)
    only = eqx.nn.Sequential([model, eqx.nn.Lambda(lambda out: out[1])])
    np.testing.assert_allclose(K3[:, 1, :, 1, :, 1], nth.kernel(only, x, 3), rtol=1e-12, atol=1e-14)


def test_convolutional_and_recurrent_modules_are_modules_too():
    conv_key, gru_key, x_key = jr.split(jr.key(8), 3)

    class Recurrent(eqx.Module):
        cell: eqx.nn.GRUCell

        def __call__(self, x):
            h = jnp.zeros(2)
            for one in x:
                h = self.cell(one, h)
            return h

    conv = eqx.nn.Sequential(
        [
            eqx.nn.Conv2d(1, 1, 2, key=conv_key),
            eqx.nn.Lambda(lambda image: jnp.sum(jnp.tanh(image))),
        ]
    )
    images, series = jr.normal(x_key, (2, 1, 3, 3)), jr.normal(x_key, (2, 2, 1))
    for model, inputs in ((conv, images), (Recurrent(eqx.nn.GRUCell(1, 2, key=gru_key)), series)):
        tensors = derivative_tensors(model, inputs, 2)
        for order in (2, 3):
            actual = joined(nth.kernel(model, inputs, order), order)
            assert relative_error(actual, tree_kernel(tensors, order)) < 1e-10


def test_float32_kernel_agrees_with_float64(x):
    model = small_models()["fcn"]
    single = jax.tree.map(lambda a: a.astype(jnp.float32) if eqx.is_array(a) else a, model)
    for order in (2, 3):
        K = nth.kernel(single, x, order)
        assert K.dtype == jnp.float32
        # A few hundred operations at 6e-8 each.
        assert relative_error(K, nth.kernel(model, x, order)) < 1e-5
