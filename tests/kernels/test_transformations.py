"""Kernels within `jax.jit`, `jax.grad` and `jax.vmap`, and the refusal of everything else there."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from networks import NETWORKS

import nthsim as nth
from nthsim.kernels.hermite import SlowDecayWarning

X = np.random.default_rng(0).standard_normal((3, 4))
OTHERS = np.random.default_rng(1).standard_normal((2, 4))
WEIGHTS = {r: np.random.default_rng(r).standard_normal((3,) * r) for r in (2, 3, 4)}


def nested(model, x, order):
    """K^(r) of a scalar model on the plain parameters, from nothing but `jax`."""
    theta, static = eqx.partition(model, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(theta)
    f = lambda at: jax.vmap(eqx.combine(unravel(at), static))(x)  # noqa: E731

    def lie(g):
        return lambda at: jnp.tensordot(jax.jacfwd(g)(at), jax.jacrev(f)(at), axes=(-1, -1))

    kernel = f
    for _ in range(order - 1):
        kernel = lie(kernel)
    return kernel(flat)


@pytest.mark.parametrize("method", ["structured", "nested"])
@pytest.mark.parametrize("order", [2, 3])
def test_kernel_within_jit_is_the_kernel(order, method):
    model = NETWORKS["mlp with biases"]
    options = {"method": method, "progress": False}
    x = jnp.asarray(X)
    outside = nth.kernel(model, x, order, **options)
    inside = jax.jit(lambda x: nth.kernel(model, x, order, **options))(x)
    np.testing.assert_allclose(inside, outside, rtol=1e-11, atol=1e-12)
    # Nothing is traced but the place where it happens.
    placed = jax.jit(lambda: nth.kernel(model, x, order, method=method))()
    np.testing.assert_allclose(placed, outside, rtol=1e-11, atol=1e-12)


def test_kernel_of_vectors_in_chunks_and_other_first_points_is_the_kernel_within_jit():
    model = NETWORKS["mlp of three outputs"]
    x = jnp.asarray(X[:2])
    options = {"chunk_bytes": 1, "x_first": jnp.asarray(OTHERS), "progress": False}
    for method in ("structured", "nested"):
        outside = nth.kernel(model, x, 3, method=method, **options)
        inside = jax.jit(lambda x, m=method: nth.kernel(model, x, 3, method=m, **options))(x)
        np.testing.assert_allclose(inside, outside, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", ["structured", "nested"])
@pytest.mark.parametrize("order", [2, 3])
def test_gradient_of_a_kernel_by_inputs_and_parameters_is_that_of_nested_derivatives(order, method):
    model = NETWORKS["mlp with biases"]
    theta, static = eqx.partition(model, eqx.is_inexact_array)

    def weighted(kernel):
        return lambda x, theta: jnp.vdot(WEIGHTS[order], kernel(eqx.combine(theta, static), x))

    ours = weighted(lambda m, x: nth.kernel(m, x, order, method=method, progress=False))
    independent = weighted(lambda m, x: nested(m, x, order))
    expected = jax.jit(jax.grad(independent, (0, 1)))(jnp.asarray(X), theta)
    found = jax.jit(jax.grad(ours, (0, 1)))(jnp.asarray(X), theta)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)


def test_kernels_of_stacked_models_and_inputs_are_those_one_by_one():
    models = [eqx.nn.MLP(4, "scalar", 5, 1, activation=jnp.tanh, key=jr.key(i)) for i in range(2)]
    stacked = jax.tree.map(
        lambda *leaves: jnp.stack(leaves) if eqx.is_array(leaves[0]) else leaves[0], *models
    )
    inputs = jnp.stack([jnp.asarray(X), jnp.asarray(X[::-1])])
    found = eqx.filter_vmap(lambda m, x: nth.kernel(m, x, 3, progress=False))(stacked, inputs)
    for i, model in enumerate(models):
        expected = nth.kernel(model, inputs[i], 3, progress=False)
        np.testing.assert_allclose(found[i], expected, rtol=1e-11, atol=1e-12)


def hinge(z):
    """A kink elsewhere than at zero."""
    return jnp.maximum(z - 0.5, 0)


LIMITS = [
    ("fcn", "erf", {"depth": 2}),
    ("fcn", "identity", {"depth": 2, "weight_scale": 0.7}),
    ("fcn", "relu", {"depth": 3}),
    ("resnet", "sin", {"depth": 2, "c_res": 0.8}),
    ("resnet", "relu", {"depth": 3}),
    ("resnet", "softplus", {"depth": 2}),
    ("fcn", "tanh", {"depth": 2, "readout_scale": 0.5}),
    ("fcn", "gelu", {"depth": 1, "which": "nngp"}),
    ("fcn", hinge, {"depth": 1}),
]


@pytest.mark.parametrize(("kind", "activation", "options"), LIMITS)
def test_gradient_of_a_limit_kernel_is_its_finite_difference(kind, activation, options):
    # The same points in both slots, where relu's angle is at the end of its range, and others.
    weights = np.random.default_rng(5).standard_normal((5, 3))

    def weighted(x, xp):
        kernel = nth.limit_kernel(kind, x, activation=activation, **options)
        cross = nth.limit_kernel(kind, x, x_first=OTHERS, activation=activation, **options)
        return xp.vdot(weights, xp.concatenate([kernel, cross]))

    found = np.asarray(jax.jit(jax.grad(lambda x: weighted(x, jnp)))(X))
    for direction in np.random.default_rng(6).standard_normal((2, *X.shape)):
        step = 1e-5 * direction
        expected = (weighted(X + step, np) - weighted(X - step, np)) / 2e-5
        # Central differences of values that have rounding errors of 1e-15 at least.
        np.testing.assert_allclose(np.vdot(found, direction), expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(("kind", "activation", "options"), LIMITS)
def test_limit_kernel_within_jit_and_vmap_is_the_limit_kernel(kind, activation, options):
    call = lambda x: nth.limit_kernel(kind, x, activation=activation, **options)  # noqa: E731
    batch = jnp.stack([jnp.asarray(X), jnp.asarray(X[::-1])])
    found = jax.jit(jax.vmap(call))(batch)
    np.testing.assert_allclose(found, [call(X), call(X[::-1])], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_limit_kernels_of_opposite_points_with_themselves_have_derivatives(activation):
    x, step = np.stack([X[0], -X[0]]), 1e-5 * OTHERS

    def total(x):
        kernel = nth.limit_kernel("fcn", x, depth=2, activation=activation)
        return kernel[0, 0] + 2 * kernel[1, 1]

    slope = jnp.vdot(jax.jit(jax.grad(total))(x), step)
    expected = (total(x + step) - total(x - step)) / 2
    # Central differences of 1e-5 from values that have rounding errors of 1e-15 at least.
    np.testing.assert_allclose(slope, expected, rtol=1e-8)


@pytest.mark.parametrize("activation", ["relu", "softplus", "erf"])
def test_derivative_of_a_limit_kernel_at_an_input_of_zeros_is_not_a_wrong_number(activation):
    call = lambda x: nth.limit_kernel("fcn", x, depth=2, activation=activation).sum()  # noqa: E731
    gradient = jax.jit(jax.grad(call))(np.zeros((1, 3)))
    np.testing.assert_array_equal(gradient, np.full((1, 3), 0.0 if activation == "erf" else np.nan))


def test_slow_coefficients_are_told_where_values_are_known_only():
    call = lambda x: nth.limit_kernel("fcn", x, depth=1, activation=jnp.abs)  # noqa: E731
    near = np.stack([X[0], X[0] + 1e-2])
    with pytest.warns(SlowDecayWarning):
        outside = call(near)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inside = jax.jit(call)(near)
    # Terms that vanish are left out where values are known, which moves what stands for the rest.
    np.testing.assert_allclose(inside, outside, rtol=1e-8)


DATA = nth.Dataset(X, np.arange(3.0))
REFUSED = {
    "gradient_flow": lambda m, d: nth.gradient_flow(m, d, [1.0], progress=False).f,
    "hierarchy": lambda m, d: nth.hierarchy(m, d, 2, [1.0], progress=False).f,
    "taylor": lambda m, d: nth.taylor(m, d, 1, [1.0], progress=False).f,
    "compare": lambda m, d: nth.compare(m, d, (2,), [1.0], progress=False).exact.f,
    "certificate": lambda m, d: nth.certificate(m, d, (2,), progress=False).slopes,
    "perturbation": lambda m, d: nth.perturbation(m, d, [1.0], progress=False).f,
    "limit_flow": lambda m, d: nth.limit_flow(m, d, [1.0], progress=False).f,
    "width_scaling": lambda m, d: (
        nth.width_scaling(lambda width, key: m, d, [4], 1, (), [0.0], progress=False).initial_f
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_everything_else_is_refused_in_a_sentence(name):
    call, model = REFUSED[name], NETWORKS["fcn"]
    sentence = (
        "^`model`, `data` and `regulariser` must hold concrete arrays, but are traced here: "
        rf"{name} cannot be transformed by jit, grad or vmap\.(\n|$)"  # JAX adds words of its own
    )
    of_inputs = lambda x: call(model, nth.Dataset(x, DATA.y)).sum()  # noqa: E731
    with pytest.raises(ValueError, match=sentence):
        jax.jit(of_inputs)(DATA.x)
    with pytest.raises(ValueError, match=sentence):
        jax.grad(of_inputs)(DATA.x)
    with pytest.raises(ValueError, match=sentence):
        eqx.filter_grad(lambda model: call(model, DATA).sum())(model)
    with pytest.raises(ValueError, match=sentence):
        jax.jit(lambda: call(model, DATA))()


@pytest.mark.filterwarnings("ignore::nthsim.network.same_functions.RecompilationWarning")
@pytest.mark.parametrize("transformed", [jax.grad, jax.vmap])
def test_model_that_captures_what_it_is_differentiated_by_is_refused_in_a_sentence(transformed):
    def total(scale):
        net = eqx.nn.MLP(2, "scalar", 3, 1, lambda z: jnp.tanh(scale * z), key=jr.key(0))
        return nth.kernel(net, jnp.asarray(X[:, :2]), 2, progress=False).sum()

    sentence = (
        "^`model` must hold what it is transformed by as arrays of its own, but a function in"
    )
    with pytest.raises(ValueError, match=sentence):
        transformed(total)(1.5 if transformed is jax.grad else jnp.array([1.5, 2.0]))
