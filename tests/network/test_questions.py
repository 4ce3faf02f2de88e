"""Modules whose forward pass looks at its layers get the right numbers, or a sentence."""

import functools
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import pytest
from asking import CHANGES, QUESTIONS, WAYS, Asking, Calling, layers, plain
from jax.flatten_util import ravel_pytree
from oracles import relative_error

import nthsim as nth
from nthsim.dynamics.pose import pose
from nthsim.inputs.loss import squared_error
from nthsim.kernels import method, work

pytestmark = pytest.mark.slow

X = jr.normal(jr.key(1), (2, 3))
Y = jnp.array([0.3, -0.4])
#: theta_1 and theta_2 of a path, as the parameters are laid out: first and last weight and bias.
STEPS = 0.3 * jr.normal(jr.key(2), (2, 21))

NAMES = [*(f"asks: {q}" for q in QUESTIONS), *(f"calls: {w}" for w in WAYS), *CHANGES]


def network(name):
    kind, _, rest = name.partition(": ")
    if kind == "asks":
        return Asking(*layers(), QUESTIONS[rest])
    return Calling(*layers(), WAYS[rest] if kind == "calls" else CHANGES[name][0])


@functools.cache
def truth(changed):
    """K^(2), K^(3), and the series of outputs and gradients, by nested derivatives in arrays."""
    theta, unravel = ravel_pytree(tuple((at.weight, at.bias) for at in layers()))

    def f(flat):
        first, last = unravel(flat)
        if changed is None:
            return jax.vmap(lambda x: plain(first, last, x))(X)
        way = CHANGES[changed][1]
        return jax.vmap(lambda x: (last[0] @ jnp.tanh(way(*first, x)) + last[1])[0])(X)

    def everything(theta):
        J = jax.jacrev(f)
        kernel = lambda at: J(at) @ J(at).T  # noqa: E731
        third = jax.vmap(lambda g: jax.jvp(kernel, (theta,), (g,))[1], out_axes=-1)(J(theta))
        along = lambda e: f(theta + e * STEPS[0] + e**2 * STEPS[1])  # noqa: E731
        slope = jax.jacfwd(along)
        outputs = jnp.stack([along(0.0), slope(0.0), jax.jacfwd(slope)(0.0) / 2])
        c = (outputs.sum(axis=0) - Y) / len(Y)
        pulled = lambda e: c @ J(theta + e * STEPS[0] + e**2 * STEPS[1])  # noqa: E731
        return kernel(theta), third, outputs, jnp.stack([pulled(0.0), jax.jacfwd(pulled)(0.0)])

    return jax.jit(everything)(theta)


def right(name):
    return truth(name if name in CHANGES else None)


def structured(name, order):
    """The kernel, or the sentence that refuses it."""
    try:
        return nth.kernel(network(name), X, order, method="structured", progress=False)
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("name", NAMES)
def test_structured_kernels_are_right_or_refused_in_a_sentence(name):
    for order in (2, 3):
        got = structured(name, order)
        if isinstance(got, str):
            assert got.startswith("`model` must ")
        else:  # both are exact up to rounding
            assert relative_error(got, right(name)[order - 2]) < 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_large_kernel_is_right_by_default(name, monkeypatch):
    monkeypatch.setattr(work, "QUICK", 0)  # as if it were large
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", method.SlowKernelWarning)
        got = nth.kernel(network(name), X, 2, progress=False)
    assert relative_error(got, right(name)[0]) < 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_series_of_order_3_is_right(name):
    problem = pose(network(name), nth.Dataset(X, Y), squared_error)
    _, unravel = ravel_pytree(problem.theta)
    path = (problem.theta, *map(unravel, STEPS))

    def series(path):
        expansion = problem.expansion(3)
        gradients = expansion.gradients(path, problem.x, problem.residual)
        rows = [ravel_pytree(gradient)[0] for gradient in gradients]
        return expansion.outputs(path, problem.x), jnp.stack(rows)

    outputs, gradients = eqx.filter_jit(series)(path)
    # Coefficients of the second order are differences of numbers of order one: 1e-12 is rounding.
    assert relative_error(outputs, right(name)[2]) < 1e-12
    assert relative_error(gradients, right(name)[3]) < 1e-12
