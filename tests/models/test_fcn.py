"""The fully connected network, and what every network here has in common."""

import dataclasses
import functools
import math
import re

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.special import erf

from nthsim.models import FCN, ResNet
from nthsim.models.checks import checked_key, checked_out_size, checked_scale, checked_size

pytestmark = pytest.mark.compiled

# (sigma, sigma') in NumPy
IN_NUMPY = {
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "erf": (erf, lambda z: 2 / np.sqrt(np.pi) * np.exp(-(z**2))),
}


def forward(model, x):
    """The states x^(0..H), the preactivations of layers 1..H, and the output, in plain NumPy."""
    sigma, _ = IN_NUMPY[model.activation]
    states, preactivations = [np.asarray(x)], []
    for layer in model.layers:
        preactivations.append(np.asarray(layer.weight) @ states[-1])
        states.append(np.sqrt(model.c_sigma / model.width) * sigma(preactivations[-1]))
    return states, preactivations, np.asarray(model.readout.weight) @ states[-1]


def layer_formula(model, x1, x2):
    """K^(2) of theory 1.2 with c_sigma, summed over layers, shape (k, k)."""
    _, derivative = IN_NUMPY[model.activation]
    gain = np.sqrt(model.c_sigma / model.width)
    (states1, z1, _), (states2, z2, _) = forward(model, x1), forward(model, x2)
    b1 = b2 = np.asarray(model.readout.weight)  # rows of b^(H), one for each output
    kernel = np.dot(states1[-1], states2[-1]) * np.eye(len(b1))
    for i in reversed(range(model.depth)):
        back1, back2 = gain * derivative(z1[i]) * b1, gain * derivative(z2[i]) * b2
        kernel += back1 @ back2.T * np.dot(states1[i], states2[i])
        weight = np.asarray(model.layers[i].weight)
        b1, b2 = back1 @ weight, back2 @ weight
    return kernel


def tangent_kernel(model, xs):
    """K^(2) by contraction of the parameter Jacobian, shape (n, k, n, k)."""
    parameters, rebuild = jax.flatten_util.ravel_pytree(model)
    jacobian = jax.jacobian(lambda p: jax.vmap(rebuild(p))(xs))(parameters)
    jacobian = jacobian.reshape(len(xs), -1, parameters.size)
    return jnp.einsum("akp,blp->akbl", jacobian, jacobian)


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("out_size", ["scalar", 1, 3])
@pytest.mark.parametrize(("activation", "c_sigma"), [("tanh", 1.0), ("erf", "auto")])
def test_output_is_that_of_the_numpy_recursion(depth, out_size, activation, c_sigma):
    model = FCN(
        3, 7, depth, out_size=out_size, activation=activation, c_sigma=c_sigma, key=jr.key(0)
    )
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
    model = FCN(3, 7, depth, out_size=out_size, activation="erf", c_sigma=1.7, key=jr.key(0))
    xs = jr.normal(jr.key(1), (2, 3))
    expected = [[layer_formula(model, x1, x2) for x2 in xs] for x1 in xs]
    expected = np.transpose(expected, (0, 2, 1, 3))  # (n, n, k, k) to (n, k, n, k)
    np.testing.assert_allclose(tangent_kernel(model, xs), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("activation", "depth", "diagonal", "off_diagonal"),
    [
        ("erf", 1, 1.03396909, 0.53982341),
        ("erf", 2, 1.09860621, 0.54531538),
        ("relu", 1, 1.0, 0.55022361),
        ("relu", 2, 0.75, 0.38610408),
    ],
)
def test_mean_tangent_kernel_is_near_its_limit(activation, depth, diagonal, off_diagonal):
    xs = jnp.array([[1.0, 0.0], [0.6, 0.8]])

    def kernel(key):
        model = FCN(2, 128, depth, activation=activation, key=key)
        return tangent_kernel(model, xs).squeeze()

    kernels = jax.vmap(kernel)(jr.split(jr.key(0), 256))
    expected = [[diagonal, off_diagonal], [off_diagonal, diagonal]]
    # One kernel fluctuates by at most 1.9 / sqrt(128), its mean by 0.0105; three of these.
    np.testing.assert_allclose(kernels.mean(axis=0), expected, atol=0.032)


def test_callable_and_name_are_the_same_network():
    by_name, by_callable = (
        FCN(3, 5, 2, activation=activation, c_sigma="auto", key=jr.key(0))
        for activation in ("tanh", jnp.tanh)
    )
    x = jr.normal(jr.key(1), (3,))
    np.testing.assert_array_equal(by_name(x), by_callable(x))


@pytest.mark.parametrize("network", [FCN, ResNet])
def test_every_array_is_the_weight_of_a_linear_layer(network):
    model = network(3, 7, 2, out_size=4, key=jr.key(0))
    linears = (*model.layers, model.readout)
    shapes = [linear.weight.shape for linear in linears]
    assert shapes == [(7, 3), (7, 7), (4, 7)]
    assert [(linear.out_features, linear.in_features) for linear in linears] == shapes
    leaves = jax.tree.leaves(model)
    assert all(leaf is lin.weight for leaf, lin in zip(leaves, linears, strict=True))


@pytest.mark.parametrize("network", [FCN, ResNet])
def test_every_weight_acts_by_calling_its_linear_layer(network):
    class Silent(eqx.Module):
        linear: eqx.nn.Linear

        def __call__(self, x):
            return 0 * self.linear(x)

    model = network(3, 7, 2, activation="softplus", key=jr.key(0))
    x, is_linear = jnp.ones(3), lambda node: isinstance(node, eqx.nn.Linear)
    for where in (lambda m: m.layers[0], lambda m: m.layers[1], lambda m: m.readout):
        silenced = eqx.tree_at(where, model, replace_fn=Silent, is_leaf=is_linear)
        emptied = eqx.tree_at(
            lambda m, where=where: where(m).weight, model, replace_fn=jnp.zeros_like
        )
        np.testing.assert_array_equal(silenced(x), emptied(x))
        assert silenced(x) != model(x)


@pytest.mark.parametrize("network", [FCN, ResNet])
def test_static_fields_rebuild_the_network(network):
    draw = functools.partial(network, c_res=0.5) if network is ResNet else network
    model = draw(
        3, 7, 2, out_size=2, activation="erf", c_sigma="auto", weight_scale=1.5,
        readout_scale=0.5, init="orthogonal", key=jr.key(0),
    )  # fmt: skip
    fields = (field for field in dataclasses.fields(model) if field.metadata.get("static"))
    config = {field.name: getattr(model, field.name) for field in fields}
    assert eqx.tree_equal(type(model)(**config, key=jr.key(0)), model)


@pytest.mark.parametrize("network", [FCN, ResNet])
def test_a_second_network_of_equal_arguments_compiles_nothing(network):
    traces = []

    @eqx.filter_jit
    def evaluate(model, x):
        traces.append(model)
        return model(x)

    first, second = (
        evaluate(network(3, 5, 2, c_sigma="auto", key=key), jnp.ones(3))
        for key in jr.split(jr.key(0))
    )
    assert len(traces) == 1
    assert first != second


@pytest.mark.parametrize("network", [FCN, ResNet])
def test_an_ensemble_is_a_vmap_over_keys(network):
    keys, x = jr.split(jr.key(0), 3), jnp.ones(2)

    def draw(key):
        return network(2, 5, 2, c_sigma="auto", init="orthogonal", key=key)

    ensemble = eqx.filter_jit(eqx.filter_vmap(draw))(keys)
    together = eqx.filter_vmap(lambda model: model(x))(ensemble)
    np.testing.assert_allclose(together, [draw(key)(x) for key in keys], rtol=1e-12)


@pytest.mark.parametrize("network", [FCN, ResNet])
@pytest.mark.parametrize(
    ("name", "value", "demand"),
    [
        ("in_size", 0, "an integer of at least 1"),
        ("width", 0, "an integer of at least 1"),
        ("depth", -1, "an integer of at least 1"),
        ("out_size", 0, "'scalar' or an integer of at least 1"),
        ("weight_scale", 0.0, "a finite positive number"),
        ("weight_scale", math.inf, "a finite positive number"),
        ("readout_scale", -1.0, "a finite non-negative number"),
        ("c_sigma", math.nan, "a finite positive number"),
        ("activation", "foo", "a callable or one of 'erf', .*, 'tanh'"),
        ("init", "foo", "one of 'gaussian', 'orthogonal'"),
    ],
)
def test_a_mistaken_argument_is_answered_in_a_sentence(network, name, value, demand):
    arguments = {"in_size": 3, "width": 5, "depth": 2, "key": jr.key(0), name: value}
    with pytest.raises(ValueError, match=f"^`{name}` must be {demand}, but is {value!r}\\.$"):
        network(**arguments)


@pytest.mark.parametrize("value", [True, 2.0, "3", None])
def test_a_size_that_is_no_integer_is_refused(value):
    sentence = f"`width` must be an integer of at least 1, but is {value!r}."
    with pytest.raises(ValueError, match=re.escape(sentence)):
        checked_size("width", value)


@pytest.mark.parametrize("value", [True, "vector", 2.0])
def test_an_out_size_that_is_neither_is_refused(value):
    sentence = f"`out_size` must be 'scalar' or an integer of at least 1, but is {value!r}."
    with pytest.raises(ValueError, match=re.escape(sentence)):
        checked_out_size(value)


@pytest.mark.parametrize("value", [True, "1.0", None, 1j])
def test_a_scale_that_is_no_real_number_is_refused(value):
    sentence = f"`c_res` must be a finite non-negative number, but is {value!r}."
    with pytest.raises(ValueError, match=re.escape(sentence)):
        checked_scale("c_res", value, zero_allowed=True)


def test_numpy_numbers_become_plain_ones():
    assert type(checked_size("width", np.int64(3))) is int
    assert type(checked_scale("c_res", np.float32(0.5))) is float


@pytest.mark.parametrize("key", [None, 0, np.zeros(2), jr.split(jr.key(0))], ids=str)
def test_what_is_no_random_key_is_refused(key):
    with pytest.raises(ValueError, match=r"^`key` must be one random key, such as .*, but is "):
        checked_key(key)


def test_a_legacy_key_draws_what_the_new_one_draws():
    new, legacy = (FCN(3, 5, 2, key=key) for key in (jr.key(0), jr.PRNGKey(0)))
    assert eqx.tree_equal(new, legacy)


@pytest.mark.parametrize("network", [FCN, ResNet])
def test_an_input_of_another_shape_is_refused(network):
    sentence = "`x` must be one input of shape (3,) (jax.vmap maps a batch), but is of shape (4,)."
    with pytest.raises(ValueError, match=re.escape(sentence)):
        network(3, 5, 2, key=jr.key(0))(jnp.ones(4))
