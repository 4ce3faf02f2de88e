"""Networks expanded along a path of parameters: all through, and layer by layer."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jaxtyping import Array
from networks import NETWORKS

from nthsim.layered_expansions import LayeredExpansion
from nthsim.losses import Residual, softmax_cross_entropy, squared_error
from nthsim.models import FCN
from nthsim.network import split
from nthsim.roads import MOST_CALLS, expansion, road
from nthsim.taylor_expansions import TaylorExpansion

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


MODELS = NETWORKS | {
    "shared": Shared(1),
    "shared, of two outputs": Shared(2),
    "one layer": eqx.nn.Linear(4, "scalar", key=jr.key(7)),
}


def setting(model, terms, loss=squared_error):
    """A network, its outputs' shape, a path, and a residual for seven inputs."""
    network, theta = split(model)
    keys = iter(jr.split(jr.key(1), 100))
    term = lambda a: 0.1 * jr.normal(next(keys), a.shape)  # noqa: E731
    path = (theta, *(jax.tree.map(term, theta) for _ in range(terms - 1)))
    out_shape = jax.eval_shape(model, X[0]).shape
    targets = jr.normal(jr.key(4), (len(X), *out_shape))
    y = jax.nn.softmax(targets) if loss is softmax_cross_entropy else targets
    return network, out_shape, path, Residual(loss, y, out_shape)


@eqx.filter_jit
def both(expanded, path, residual):
    return expanded.outputs(path, X), expanded.gradients(path, X, residual)


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
    whole = expansion(network, path[0], X, out_shape, 3)
    assert whole.chunk == 7
    parts = dataclasses.replace(whole, chunk=3)  # the last chunk is moved back to fit
    agree(both(parts, path, residual), both(whole, path, residual))


def test_expansion_is_that_of_outputs_and_gradients_in_one_variable(vector):
    """Against derivatives by the formal parameter of the loss's gradient with residuals held."""
    network, out_shape, path, residual = vector
    found = both(expansion(network, path[0], X, out_shape, 3), path, residual)
    at = lambda e: jax.tree.map(lambda a, b, c: a + e * b + e**2 * c, *path)  # noqa: E731
    f = lambda e: network(at(e), X).reshape(-1)  # noqa: E731
    d1, d2 = jax.jacfwd(f), jax.jacfwd(jax.jacfwd(f))
    terms = jnp.stack([f(0.0), d1(0.0), d2(0.0) / 2])
    c = residual(jnp.sum(terms, axis=0).reshape(7, 3))
    pulled = lambda e: jax.vjp(lambda t: network(t, X), at(e))[1](c)[0]  # noqa: E731
    agree(found, (terms, (pulled(0.0), jax.jacfwd(pulled)(0.0))))


def test_nested_derivatives_give_the_same_expansion(vector):
    network, _, path, residual = vector
    by_jet = TaylorExpansion(network=network.expandable(), chunk=7, obstacle=None)
    nested = dataclasses.replace(by_jet, obstacle="as if")
    agree(both(nested, path, residual), both(by_jet, path, residual))


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("fcn", 5),
        ("resnet", 3),
        ("mlp with biases", 4),
        ("convolutional", 4),
        ("shared", 4),
        ("shared, of two outputs", 3),
        ("one layer", 2),
    ],
)
def test_layer_by_layer_is_all_through(name, terms):
    network, out_shape, path, residual = setting(MODELS[name], terms)
    layered = expansion(network, path[0], X, out_shape, terms)
    assert isinstance(layered, LayeredExpansion)
    assert layered.rest is not None
    whole = TaylorExpansion(network=network.expandable(), chunk=7, obstacle=None)
    agree(both(layered, path, residual), both(whole, path, residual))


def test_what_rests_may_be_kept_for_all_chunks_or_computed_in_each():
    network, out_shape, path, residual = setting(MODELS["mlp with biases"], 3)
    whole = expansion(network, path[0], X, out_shape, 3)
    kept = dataclasses.replace(whole, chunk=3)
    small = expansion(network, path[0], X, out_shape, 3, chunk_bytes=1000)
    assert isinstance(small, LayeredExpansion)
    assert (small.chunk, small.rest) == (1, None)
    expected = both(whole, path, residual)
    agree(both(kept, path, residual), expected)
    agree(both(small, path, residual), expected)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (MODELS["fcn"], "layer by layer"),
        (NETWORKS["mlp of three outputs"], "layer by layer"),
        (NETWORKS["recurrent"], "Taylor arithmetic all through"),
        (FCN(4, 2, MOST_CALLS, key=jr.key(0)), "Taylor arithmetic all through"),
    ],
)
def test_road_is_that_of_the_layers_where_they_are_few(model, words):
    network, theta = split(model)
    outputs = jax.eval_shape(model, X[0]).size
    assert str(road(network, theta, X, outputs)) == words
