"""Taylor arithmetic is proved on the network and the data before it is used."""

import re
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jaxtyping import Array

import nthsim as nth
from nthsim.dynamics.pose import pose
from nthsim.dynamics.taylor_proof import proven
from nthsim.inputs.loss import squared_error
from nthsim.network.rounding import whole_numbers

pytestmark = pytest.mark.slow


class Through(eqx.Module):
    """A function between two layers."""

    entry: eqx.nn.Linear
    readout: eqx.nn.Linear
    function: Callable = eqx.field(static=True)

    def __init__(self, function: Callable, *, biased: bool = False) -> None:
        keys = jr.split(jr.key(0), 2)
        entry = eqx.nn.Linear(3, 5, use_bias=biased, key=keys[0])
        self.entry = eqx.tree_at(lambda a: a.bias, entry, jnp.zeros(5)) if biased else entry
        self.readout = eqx.nn.Linear(5, "scalar", key=keys[1])
        self.function = function

    def __call__(self, x: Array) -> Array:
        return self.readout(self.function(self.entry(x)))


@jax.custom_jvp
def halved(z):
    """The identity, which declares half its slope."""
    return z


halved.defjvps(lambda g, ans, z: 0.5 * g)

X = jr.normal(jr.key(1), (5, 3))
DATA = nth.Dataset(X.at[2].set(0.0), jnp.arange(5.0) / 5)


def road_of(function, data=DATA, terms=3):
    return str(proven(pose(Through(function), data, squared_error), terms).method)


def test_what_is_right_keeps_its_road():
    assert road_of(jax.scipy.special.erf, terms=5) == "layer by layer"


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda z: z**3.0, "coefficients of order 1 that Taylor arithmetic gives as not finite"),
        (lambda z: z * jnp.fmod(z, 0.5), "coefficients of order 0 that Taylor arithmetic misses"),
        (halved, "coefficients of order 1 that Taylor arithmetic misses"),
        (lambda z: jnp.sqrt(jnp.abs(z)), r"derivatives of order 1 that are not finite at x\[2\]"),
    ],
)
def test_what_is_wrong_or_not_finite_takes_nested_derivatives(function, words):
    with jax.numpy_dtype_promotion("standard"):
        found = road_of(function)
    assert found.startswith("nested derivatives, as the network has ")
    assert re.search(words, found)


@pytest.mark.parametrize(
    "function",
    [
        lambda z: jnp.maximum(z, 0.0) ** 3,
        lambda z: jnp.maximum(z, -2 * z) ** 3,
    ],
)
def test_order_4_is_right_where_only_the_third_derivative_sees_a_tie(function):
    net, run = Through(function, biased=True), [0.0, 2.0]
    found = nth.hierarchy(net, DATA, 4, run, method="series", progress=False)
    expected = nth.hierarchy(net, DATA, 4, run, method="dense", progress=False)
    assert "layer by layer it comes out otherwise" in str(found.method)
    np.testing.assert_allclose(found.f, expected.f, rtol=1e-6)


@pytest.mark.parametrize(
    "function",
    [
        lambda z: jnp.fmod(z, 0.5),
        lambda z: z**3.0,
        lambda z: jnp.minimum(z, jnp.zeros_like(z)),  # an error in batches of more than one
        lambda z: z * jnp.take(z, jnp.array([0, 1, 7, 3, 9]), mode="fill", fill_value=1.0),
    ],
)
def test_recorded_kernel_of_a_series_is_right_where_rules_are_wrong(function):
    with jax.numpy_dtype_promotion("standard"):
        net, run = Through(function), nth.Run([0.0, 0.5], record=("kernel",))
        found = nth.hierarchy(net, DATA, 3, run, method="series", progress=False)
        expected = nth.hierarchy(net, DATA, 3, run, method="dense", progress=False)
    np.testing.assert_allclose(found.records["kernel"], expected.records["kernel"], rtol=1e-6)


def stepped(z):
    """Numbers made whole: steps without a slope, which JAX's Taylor arithmetic does not see."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.tanh(z) + (50 * z).astype(int) / 50


def test_numbers_made_whole_have_no_slope_in_any_expansion():
    run = {"run": [0.0, 2.0], "progress": False}
    net = Through(stepped)
    series, dense = (nth.hierarchy(net, DATA, 3, method=m, **run) for m in ("series", "dense"))
    np.testing.assert_allclose(series.f, dense.f, rtol=1e-5)
    linear = nth.taylor(net, DATA, 1, **run)
    second = nth.hierarchy(net, DATA, 2, method="dense", **run)
    np.testing.assert_allclose(linear.f, second.f, rtol=1e-5)
    words = "as the network makes numbers whole that depend on parameters, which Taylor arithmetic"
    assert words in str(series.method)
    assert words in str(linear.method)


def _into_numbers(a, b):
    return jnp.einsum("i,i->", a, b, preferred_element_type=float)


class Looking(eqx.Module):
    """Looks something up by an input, or by what its layer makes of it."""

    table: Array
    layer: eqx.nn.Linear
    look: Callable = eqx.field(static=True)

    def __call__(self, x: Array) -> Array:
        return self.look(self, x)


@pytest.mark.parametrize(
    ("look", "whole"),
    [
        (lambda net, x: net.layer(net.table[x.astype(int)]), False),
        (lambda net, x: net.layer(jax.jit(lambda i: net.table[i])(x.astype(int))), False),
        (lambda net, x: net.layer(net.table * (net.table > 0).astype(x.dtype)), False),
        (lambda net, x: net.table[net.layer(x).astype(int)] * net.layer(x), False),
        (lambda net, x: jax.jit(lambda z: z * z.astype(int).astype(z.dtype))(net.layer(x)), True),
        (lambda net, x: jnp.sum(jnp.where(net.table.astype(bool), net.table, 0.0)), False),
        (lambda net, x: jnp.sum(net.table.astype(bool).astype(x.dtype) * net.table), True),
        (lambda net, x: net.table[jnp.argmax(net.table)] * net.layer(x), False),
        (lambda net, x: _into_numbers(net.table.astype(int), jnp.arange(3)), True),
        (lambda net, x: jnp.floor(net.layer(x)).astype(int).astype(x.dtype), False),
        (lambda net, x: jax.lax.stop_gradient(net.table).astype(int).astype(x.dtype)[0], False),
    ],
)
def test_only_what_depends_on_parameters_must_not_be_made_whole(look, whole):
    net = Looking(jr.normal(jr.key(2), (3,)), eqx.nn.Linear(3, "scalar", key=jr.key(3)), look)
    traced = jax.make_jaxpr(lambda net: net(jnp.zeros(3)))(net)
    found = whole_numbers(traced.jaxpr)
    assert found == whole


def test_one_test_point_is_enough():
    positive = lambda z: (z + 4) ** 3.0  # noqa: E731
    near, far = jnp.abs(X), 100 * jnp.ones((1, 3))
    assert road_of(positive, nth.Dataset(near, jnp.ones(5))) == "layer by layer"
    both = nth.Dataset(near, jnp.ones(5), x_test=jnp.concatenate([far, -far]))
    assert "not finite" in road_of(positive, both)


@pytest.mark.parametrize("run", [nth.hierarchy, nth.taylor])
def test_power_with_a_floating_exponent_trains_as_the_product_does(run):
    size, options = (3, {"method": "series"}) if run is nth.hierarchy else (2, {})
    ways = [lambda z: 0.1 * z**3.0, lambda z: 0.1 * z * z * z]
    found, expected = (
        run(Through(way), DATA, size, [0.0, 0.2], progress=False, **options) for way in ways
    )
    assert "nested derivatives" in found.method
    # Solver errors of a relative tolerance of 1e-6 or better, twice.
    np.testing.assert_allclose(found.f, expected.f, rtol=1e-5)


def test_singular_network_is_refused_with_what_is_not_finite():
    network = Through(lambda z: jnp.sqrt(jnp.abs(z)))
    with pytest.raises(nth.SolveError, match=r"derivatives of order 1 .* not finite at x\[2\]"):
        nth.hierarchy(network, DATA, 3, [0.0, 0.2], method="series", progress=False)
