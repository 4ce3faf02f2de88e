"""Models with a `custom_vjp`, which has no derivatives in forward mode."""

import re
from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import nthsim as nth
from nthsim.kernels.derivatives import BackwardPassWarning
from nthsim.solvers import Auto, Explicit, Exponential, Implicit

X = jr.normal(jr.key(0), (3, 4))
DATA = nth.Dataset(X, jnp.array([1.0, -1.0, 0.5]))


@jax.custom_vjp
def sine(z):
    return jnp.sin(z)


sine.defvjp(lambda z: (jnp.sin(z), jnp.cos(z)), lambda slope, g: (slope * g,))


@jax.custom_vjp
def looped(z):
    """The sine, with a backward pass that is a loop and cannot be transposed."""
    return jnp.sin(z)


def _loop(slope, g):
    more = lambda state: state[0] < 1  # noqa: E731
    return (jax.lax.while_loop(more, lambda state: (state[0] + 1, slope * state[1]), (0, g))[1],)


looped.defvjp(lambda z: (jnp.sin(z), jnp.cos(z)), _loop)


@jax.custom_vjp
def twofold(z):
    """The sine, whose backward pass holds a `custom_vjp` once more."""
    return sine(z)


twofold.defvjp(lambda z: (sine(z), z), lambda z, g: (sine(z + jnp.pi / 2) * g,))


@jax.custom_vjp
def clipped(z):
    return z


clipped.defvjp(lambda z: (z, None), lambda _, g: (jnp.clip(g, -1.0, 1.0),))


@jax.custom_vjp
def rounded(z):
    """A step, whose gradient goes straight through."""
    return jnp.round(8 * z) / 8


rounded.defvjp(lambda z: (jnp.round(8 * z) / 8, None), lambda _, g: (g,))


class Net(eqx.Module):
    first: eqx.nn.Linear
    second: eqx.nn.Linear
    activation: Callable = eqx.field(static=True)

    def __call__(self, x):
        return self.second(self.activation(self.first(x)))


def net(activation, outputs: int | Literal["scalar"] = "scalar"):
    keys = jr.split(jr.key(1))
    first = eqx.nn.Linear(4, 5, key=keys[0])
    return Net(first, eqx.nn.Linear(5, outputs, key=keys[1]), activation)


PLAIN = net(jnp.sin)


@pytest.mark.parametrize("method", ["structured", "nested"])
@pytest.mark.parametrize("activation", [sine, looped])
@pytest.mark.parametrize("order", [2, 3, 4])
def test_kernels_are_those_of_the_function_written_plainly(order, activation, method):
    options = {"method": method, "progress": False}
    found = nth.kernel(net(activation), X, order, **options)
    expected = nth.kernel(PLAIN, X, order, method="nested", progress=False)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13)


def test_kernel_of_vectors_with_other_first_points_is_that_of_the_plain_function():
    options = {"x_first": X[:2] + 1, "method": "nested", "progress": False}
    found = nth.kernel(net(sine, 2), X, 3, **options)
    expected = nth.kernel(net(jnp.sin, 2), X, 3, **options)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13)


SOLVERS = [Auto(), Auto(rtol=1e-3), Explicit(), Exponential(), Implicit()]


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: f"{type(s).__name__}-{s.rtol}")
def test_flow_by_every_solver_is_that_of_the_plain_function(solver):
    runs = [
        nth.gradient_flow(model, DATA, nth.Run([1.0, 30.0], solver=solver), progress=False)
        for model in (net(looped), PLAIN)
    ]
    # Steps are the same: only rounding differs.
    assert runs[0].solver == runs[1].solver
    np.testing.assert_allclose(runs[0].f, runs[1].f, rtol=1e-9)


def test_stiff_flow_is_taken_for_one():
    stiff = nth.Dataset(4 * X, DATA.y)
    run = nth.gradient_flow(
        net(sine), stiff, nth.Run([1e4], solver=Auto(rtol=1e-3)), progress=False
    )
    assert run.solver.startswith("Krogstad")


@pytest.mark.parametrize("order", [2, 3, 4])
def test_truncations_take_tensors_and_are_those_of_the_plain_function(order):
    run = nth.hierarchy(net(sine), DATA, order, [1.0], progress=False)
    assert run.method == "dense (a custom_vjp keeps derivatives along a series away)"
    expected = nth.hierarchy(PLAIN, DATA, order, [1.0], method="series", progress=False)
    # Two methods at rtol 1e-7.
    np.testing.assert_allclose(run.f, expected.f, rtol=1e-6)


CURE = "with Diffrax use adjoint=DirectAdjoint(), else unroll the iteration or write it as custom_"


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda m: nth.kernel(m, X, 3, method="nested", progress=False), r"K\^\(3\)"),
        (lambda m: nth.kernel(m, X, 3, method="structured", progress=False), r"K\^\(3\)"),
        (lambda m: nth.hierarchy(m, DATA, 3, [1.0], progress=False), r"K\^\(3\)"),
        (lambda m: nth.compare(m, DATA, (2, 3), [1.0], progress=False), r"K\^\(3\)"),
        (lambda m: nth.plan(m, DATA, (2, 3), [1.0]), r"K\^\(3\)"),
        (lambda m: nth.certificate(m, DATA, (3,), progress=False), r"K\^\(3\)"),
        (lambda m: nth.perturbation(m, DATA, [1.0], progress=False), r"K\^\(4\)"),
        (
            lambda m: nth.compare(m, DATA, (2,), [1.0], bounds=True, progress=False),
            r"K\^\(4\)",
        ),
    ],
)
def test_orders_beyond_a_custom_vjp_are_refused_by_what_stands_in_the_way(call, what):
    start = f"`model` must allow forward derivatives of its gradients for {what}, but .*"
    sentence = start + re.escape(CURE)
    with pytest.raises(ValueError, match=sentence):
        call(net(twofold))


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (
            lambda m: nth.hierarchy(m, DATA, 2, [1.0], method="series", progress=False),
            "order 2 as a series",
        ),
        (
            lambda m: nth.plan(m, DATA, (nth.Order(2, method="series"),), [1.0]),
            "order 2 as a series",
        ),
        (lambda m: nth.taylor(m, DATA, 2, [1.0], progress=False), "the Taylor model of degree 2"),
        (lambda m: nth.plan(m, DATA, (2, nth.Taylor(2)), [1.0]), "the Taylor model of degree 2"),
    ],
)
def test_series_and_taylor_models_are_refused(call, what):
    sentence = f"^`model` must allow forward derivatives for {what}, but .*{re.escape(CURE)}"
    with pytest.raises(ValueError, match=sentence):
        call(net(sine))


def test_flow_and_tangent_kernel_do_without_further_derivatives():
    study = nth.compare(net(twofold), DATA, (2,), [0.0, 1.0], progress=False)
    expected = nth.gradient_flow(
        PLAIN, DATA, nth.Run([0.0, 1.0], record=("kernel",)), progress=False
    )
    np.testing.assert_allclose(study.exact.f, expected.f, rtol=1e-9)
    assert study.exact.kernel is not None
    assert expected.kernel is not None
    np.testing.assert_allclose(study.exact.kernel, expected.kernel, rtol=1e-9)
    with pytest.raises(ValueError, match=r"`solver` must be another .* but is Implicit"):
        nth.gradient_flow(net(twofold), DATA, nth.Run([1.0], solver=Implicit()), progress=False)


def test_backward_pass_that_is_not_linear_takes_no_exponential_steps():
    run = nth.gradient_flow(net(clipped), DATA, [1.0], progress=False)
    assert "as the model's backward pass is not linear" in str(run)
    with pytest.raises(ValueError, match="where the model's backward pass is not linear, but is E"):
        nth.gradient_flow(net(clipped), DATA, nth.Run([1.0], solver=Exponential()), progress=False)


def test_backward_pass_of_another_function_is_told_and_makes_the_kernel():
    with pytest.warns(BackwardPassWarning, match="`model` holds a custom_vjp or stop_gradient, "):
        run = nth.gradient_flow(
            net(rounded), DATA, nth.Run([0.0], record=("kernel",)), progress=False
        )
    gradients = jax.vmap(jax.grad(lambda m, x: m(x)), (None, 0))(net(rounded), X)
    rows = jnp.concatenate([a.reshape(3, -1) for a in jax.tree.leaves(gradients)], axis=1)
    assert run.kernel is not None
    np.testing.assert_allclose(run.kernel[0], rows @ rows.T, rtol=1e-12)


def test_derivatives_that_are_kept_back_from_what_moves_are_told():
    held = net(lambda z: jnp.tanh(z) * jax.lax.stop_gradient(jax.nn.sigmoid(z)))
    with pytest.warns(BackwardPassWarning, match="`model` holds a custom_vjp or stop_gradient, "):
        nth.hierarchy(held, DATA, 2, [0.5], progress=False)
    # A hundredth of what moves is enough in float64.
    little = net(lambda z: jnp.tanh(z) - 0.01 * jax.lax.stop_gradient(jnp.mean(z)))
    with pytest.warns(BackwardPassWarning):
        nth.hierarchy(little, DATA, 2, [0.5], progress=False)
    # What a softmax keeps back has no derivative.
    nth.hierarchy(net(lambda z: jax.nn.softmax(z) * z), DATA, 2, [0.5], progress=False)


def test_loop_without_gradients_is_refused_in_a_sentence():
    def grown(z):
        return jax.lax.while_loop(lambda at: jnp.max(at) < 2, lambda at: at + 1, jnp.tanh(z))

    sentence = r"^`model` must allow reverse-mode derivatives \(with Diffrax use adjoint=DirectAdj"
    with pytest.raises(ValueError, match=sentence):
        nth.gradient_flow(net(grown), DATA, [0.5], progress=False)
    with pytest.raises(ValueError, match=sentence):
        nth.kernel(net(grown), DATA.x, 2, progress=False)
    scattered = lambda z: z.at[jnp.array([0, 1])].multiply(z[:2])  # noqa: E731
    with pytest.raises(ValueError, match=r"^`model` must allow reverse-mode .* JAX has none"):
        nth.kernel(net(scattered), DATA.x, 2, progress=False)


def test_model_written_plainly_is_neither_doubted_nor_kept_from_a_series():
    run = nth.hierarchy(PLAIN, DATA, 2, [1.0], method="series", progress=False)
    assert run.stop.reason == "horizon"
