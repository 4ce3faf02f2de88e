"""Networks expanded along a path of parameters: all through, and layer by layer."""

import dataclasses
from math import prod

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jaxtyping import Array
from networks import NETWORKS

from nthsim.inputs.loss import Residual, softmax_cross_entropy, squared_error
from nthsim.models import FCN
from nthsim.network.expansion import TaylorExpansion
from nthsim.network.expansion_method import MOST_CALLS, expansion_method
from nthsim.network.layered_expansion import LayeredExpansion
from nthsim.network.network import precision
from nthsim.network.split import split

pytestmark = pytest.mark.slow

X = jr.normal(jr.key(3), (7, 4))


class Shared(eqx.Module):
    """A layer with bias that is called twice, and a gain outside of layers that acts twice."""

    entry: eqx.nn.Linear
    twice: eqx.nn.Linear
    readout: eqx.nn.Linear
    gain: Array

    def __init__(self, outputs: int) -> None:
        keys = jr.split(jr.key(6), 3)
        self.entry = eqx.nn.Linear(4, 5, key=keys[0])
        self.twice = eqx.nn.Linear(5, 5, key=keys[1])
        self.readout = eqx.nn.Linear(5, outputs, use_bias=False, key=keys[2])
        self.gain = jnp.array(1.3)

    def __call__(self, x: Array) -> Array:
        h = jnp.tanh(self.entry(self.gain * x))
        h = h + jnp.tanh(self.gain * self.twice(jnp.sin(self.twice(h))))
        return self.readout(h)


class Planar(eqx.Module):
    """A convolution with bias and reflected edges over two by two pixels, seen twice."""

    conv: eqx.nn.Conv2d
    readout: eqx.nn.Linear

    def __init__(self) -> None:
        keys = jr.split(jr.key(8), 2)
        self.conv = eqx.nn.Conv2d(1, 2, 2, padding=1, padding_mode="REFLECT", key=keys[0])
        self.readout = eqx.nn.Linear(18, "scalar", key=keys[1])

    def __call__(self, x: Array) -> Array:
        image = x.reshape(1, 2, 2)
        return self.readout(jnp.tanh(self.conv(image)).reshape(-1) * self.conv(-image).reshape(-1))


class Halved(eqx.Module):
    """A layer that is called in single precision."""

    layer: eqx.nn.Linear

    def __call__(self, x: Array) -> Array:
        return self.layer(x.astype(jnp.float32)).astype(x.dtype)


MODELS = NETWORKS | {
    "shared": Shared(1),
    "shared, of two outputs": Shared(2),
    "planar": Planar(),
    "one layer": eqx.nn.Linear(4, "scalar", key=jr.key(7)),
}


def setting(model, terms, loss=squared_error):
    """A network, its outputs' shape, a path, and a residual for seven inputs."""
    network, theta = split(model)
    keys = iter(jr.split(jr.key(1), 100))
    term = lambda a: 0.1 * jr.normal(next(keys), a.shape, a.dtype)  # noqa: E731
    path = (theta, *(jax.tree.map(term, theta) for _ in range(terms - 1)))
    out_shape = jax.eval_shape(model, X[0]).shape
    targets = jr.normal(jr.key(4), (len(X), *out_shape))
    y = jax.nn.softmax(targets) if loss is softmax_cross_entropy else targets
    return network, out_shape, path, Residual(loss, y, out_shape)


def expansion(network, path, out_shape, **options):
    x = X.astype(precision(path[0]))
    way = expansion_method(network, path[0], x, prod(out_shape))
    return way.expansion(network, path[0], x, out_shape, len(path), **options)


def all_through(network, path):
    plain = network.expandable(path[0], X)
    return TaylorExpansion(network=plain, chunk=7, obstacle=None)


@eqx.filter_jit
def both(expanded, path, residual):
    x = X.astype(precision(path[0]))
    return expanded.outputs(path, x), expanded.gradients(path, x, residual)


def agree(one, other):
    """All arrays, each to rounding errors of its own largest entry."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13 * float(jnp.abs(b).max()))


@pytest.fixture(scope="module")
def vector():
    return setting(NETWORKS["mlp of three outputs"], 3, softmax_cross_entropy)


def test_chunks_of_inputs_do_not_change_the_expansion(vector):
    network, out_shape, path, residual = vector
    whole = expansion(network, path, out_shape)
    assert whole.chunk == 7
    parts = dataclasses.replace(whole, chunk=3)  # the last chunk is moved back to fit
    agree(both(parts, path, residual), both(whole, path, residual))


def test_expansion_is_that_of_outputs_and_gradients_in_one_variable(vector):
    """Against derivatives by the formal parameter of the loss's gradient with residuals held."""
    network, out_shape, path, residual = vector
    found = both(expansion(network, path, out_shape), path, residual)
    at = lambda e: jax.tree.map(lambda a, b, c: a + e * b + e**2 * c, *path)  # noqa: E731
    f = lambda e: network(at(e), X).reshape(-1)  # noqa: E731
    d1, d2 = jax.jacfwd(f), jax.jacfwd(jax.jacfwd(f))
    terms = jnp.stack([f(0.0), d1(0.0), d2(0.0) / 2])
    c = residual(jnp.sum(terms, axis=0).reshape(7, 3))
    pulled = lambda e: jax.vjp(lambda t: network(t, X), at(e))[1](c)[0]  # noqa: E731
    agree(found, (terms, (pulled(0.0), jax.jacfwd(pulled)(0.0))))


def test_nested_derivatives_give_the_same_expansion(vector):
    network, _, path, residual = vector
    by_jet = all_through(network, path)
    nested = dataclasses.replace(by_jet, obstacle="as if")
    agree(both(nested, path, residual), both(by_jet, path, residual))


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("fcn", 5),
        ("resnet", 3),
        ("mlp with biases", 2),
        ("mlp with biases", 4),
        ("mlp of three outputs", 2),
        ("mlp of three outputs", 4),
        ("convolutional", 4),
        ("planar", 3),
        ("shared", 4),
        ("shared, of two outputs", 3),
        ("one layer", 2),
    ],
)
def test_layer_by_layer_is_all_through(name, terms):
    network, out_shape, path, residual = setting(MODELS[name], terms)
    layered = expansion(network, path, out_shape)
    assert isinstance(layered, LayeredExpansion)
    assert layered.rest is not None
    agree(both(layered, path, residual), both(all_through(network, path), path, residual))


@pytest.mark.parametrize("name", ["mlp with biases", "mlp of three outputs"])
def test_what_rests_may_be_kept_for_all_chunks_or_computed_in_each(name):
    network, out_shape, path, residual = setting(MODELS[name], 3)
    whole = expansion(network, path, out_shape)
    kept = dataclasses.replace(whole, chunk=3)
    small = expansion(network, path, out_shape, chunk_bytes=100)
    assert isinstance(small, LayeredExpansion)
    assert (small.chunk, small.rest) == (1, None)
    expected = both(whole, path, residual)
    agree(both(kept, path, residual), expected)
    agree(both(small, path, residual), expected)


def test_single_precision_layer_by_layer_stays_near_the_double_one():
    network, out_shape, path, residual = setting(MODELS["mlp with biases"], 3)
    double = both(expansion(network, path, out_shape), path, residual)
    cast = lambda a: a.astype(jnp.float32) if eqx.is_array(a) else a  # noqa: E731
    path, residual = jax.tree.map(cast, (path, residual))
    single = both(expansion(network, path, out_shape), path, residual)
    for a, b in zip(*map(jax.tree.leaves, (single, double)), strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(b).max()))


def test_gradients_layer_by_layer_have_the_derivatives_that_those_all_through_have():
    """As implicit steps take them."""
    network, out_shape, path, residual = setting(MODELS["fcn"], 3)
    along = jax.tree.map(jnp.sin, path)

    @eqx.filter_jit
    def derivative(expanded):
        return jax.jvp(lambda at: expanded.gradients(at, X, residual), (path,), (along,))[1]

    still = dataclasses.replace(expansion(network, path, out_shape), rest=None)
    agree(derivative(still), derivative(all_through(network, path)))


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("terms", [2, 3, 4])
def test_products_are_those_that_gradients_take(terms, outputs):
    """Counted in flops, of which wide layers and few inputs leave hardly any to all else."""
    width, hidden = 300, 3
    model = FCN(4, width, hidden + 1, out_size=outputs, key=jr.key(0))
    network, out_shape, path, residual = setting(model, terms)
    way = expansion_method(network, path[0], X, outputs)
    for kept in (True, False):
        expanded = expansion(network, path, out_shape)
        expanded = expanded if kept else dataclasses.replace(expanded, rest=None)
        arrays, rest = eqx.partition((expanded, path), eqx.is_array)

        def gradients(arrays, rest=rest):
            expanded, path = eqx.combine(arrays, rest)
            return expanded.gradients(path, X, residual)

        cost = jax.jit(gradients).lower(arrays).compile().cost_analysis() or {}
        products = cost["flops"] / (hidden * 2 * len(X) * width**2)
        assert products == pytest.approx(way.products(terms, kept=kept), abs=0.9)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (MODELS["fcn"], "layer by layer"),
        (MODELS["mlp of three outputs"], "layer by layer"),
        (MODELS["recurrent"], "Taylor arithmetic all through"),
        (FCN(4, 2, MOST_CALLS - 1, key=jr.key(0)), "layer by layer"),
        (FCN(4, 2, MOST_CALLS, key=jr.key(0)), "Taylor arithmetic all through"),
    ],
)
def test_road_is_that_of_the_layers_where_they_are_few(model, words):
    network, theta = split(model)
    outputs = jax.eval_shape(model, X[0]).size
    assert str(expansion_method(network, theta, X, outputs)).partition(" (")[0] == words


def test_layer_that_is_called_in_another_precision_is_no_step_of_a_road():
    network, theta = split(Halved(eqx.nn.Linear(4, "scalar", key=jr.key(9))))
    with jax.numpy_dtype_promotion("standard"):
        assert expansion_method(network, theta, X, 1).calls == ()


def test_memory_layer_by_layer_counts_what_lies_between_the_layers():
    way = expansion_method(*split(MODELS["fcn"]), X, 1)
    called = 4 + 8 + 8 + 8 + 8 + 1
    assert way.numbers(3, written=100) == 4 * called
    assert way.numbers(3, written=10**6) == 10**6
