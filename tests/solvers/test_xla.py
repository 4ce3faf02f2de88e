"""Programs that XLA's CPU backend compiles wrongly unless it is kept from it."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import nthsim as nth
from nthsim.dynamics.pose import pose
from nthsim.inputs.jump import JumpingLossWarning
from nthsim.models import FCN
from nthsim.network.network import Network
from nthsim.solvers import Explicit
from nthsim.solvers.comparisons import compares
from nthsim.solvers.compiled import compiled, is_staged, is_traced
from nthsim.solvers.xla import FLAG, compiler_options, guard_process

pytestmark = pytest.mark.compiled


class Squared(eqx.Module):
    """|W x|², wrong at thousands of inputs without options (jax 0.10.2)."""

    W: jax.Array

    def __call__(self, x):
        return jnp.sum((self.W @ x) ** 2)


class Summed(eqx.Module):
    """z · (A x) with a matrix A of ones, wrong without options (jax 0.10.2 to 0.12)."""

    z: jax.Array

    def __call__(self, x):
        return jnp.sum(self.z * (jnp.ones((len(self.z), len(x)), x.dtype) @ x))


SIZES = [(20_000, 3, 3), (40_000, 3, 3), (5_000, 20, 16), (300, 20, 16)]


@pytest.mark.parametrize(("n", "d", "m"), SIZES)
def test_outputs_and_loss_along_a_flow_are_right_at_any_number_of_inputs(n, d, m):
    rng = np.random.default_rng(n + m)
    x, y, W, z = (rng.normal(size=s) for s in ((n, d), (n,), (m, d), (m,)))
    expected = {Squared: np.sum((x @ W.T) ** 2, axis=1), Summed: np.sum(z) * np.sum(x, axis=1)}
    for model in (Squared(jnp.asarray(W)), Summed(jnp.asarray(z))):
        run = nth.gradient_flow(
            model,
            nth.Dataset(x, y),
            nth.Run([0.0, 1e-6], solver=Explicit(rtol=1e-3)),
            progress=False,
        )
        right = expected[type(model)]
        np.testing.assert_allclose(run.f[0], right, rtol=1e-11, atol=1e-11 * abs(right).max())
        np.testing.assert_allclose(run.loss[0], 0.5 * np.mean((right - y) ** 2), rtol=1e-11)


@pytest.mark.parametrize("method", ["nested", "structured"])
def test_kernel_of_a_thousand_inputs_is_that_of_its_formula(method):
    rng = np.random.default_rng(5)
    net = FCN(3, 5, 1, activation="identity", key=jr.key(0))
    x = jnp.asarray(rng.normal(size=(1501, 3)))
    kernel = nth.kernel(net, x[:201], 2, x_first=x, method=method, progress=False)
    x = np.asarray(x)
    W, a = (np.asarray(layer.weight) for layer in (net.layers[0], net.readout))
    expected = ((x @ W.T) @ (x[:201] @ W.T).T + np.sum(a**2) * x @ x[:201].T) / 5
    np.testing.assert_allclose(kernel, expected, rtol=1e-11, atol=1e-11)


def test_taylor_model_of_a_square_is_the_square():
    rng = np.random.default_rng(6)
    net, x = Squared(jnp.asarray(rng.normal(size=(16, 20)))), rng.normal(size=(300, 20))
    data, ts = nth.Dataset(x, rng.normal(size=300)), [0.0, 1e-4]
    exact = nth.gradient_flow(net, data, ts, progress=False)
    taylor = nth.taylor(net, data, 2, ts, progress=False)
    np.testing.assert_allclose(taylor.f, exact.f, rtol=1e-9)


PROBE = """
import warnings
import jax, jax.numpy as jnp, numpy as np
import nthsim as nth, equinox as eqx
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    {before}
    for order in (2, 2):
        nth.kernel(eqx.nn.Linear(2, 1, key=jax.random.key(0)), np.ones((2, 2)), order)
told = [str(one.message) for one in told if one.category is nth.MiscompilationWarning]
z, x = np.ones((300, 16), np.float32), np.ones((300, 3), np.float32)
found = jax.jit(lambda z, x: jnp.sum(z * (x @ jnp.ones((3, 16), x.dtype)), axis=1))(z, x)
print(len(told), bool(np.allclose(found, 48)), *told)
"""


def answered(before):
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    environment |= {"PYTHONWARNINGS": "ignore", "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
    words = [sys.executable, "-c", PROBE.replace("{before}", before)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split(maxsplit=2)


def test_process_that_compiles_wrongly_is_told_once_with_the_cure():
    count, right, *told = answered("pass")
    assert int(count) == (right == "False")  # says so just where it is so
    assert right == "True" or f"XLA_FLAGS={FLAG}" in told[0]


def test_guarded_process_compiles_rightly_and_is_told_nothing():
    assert answered("nth.guard_process()")[:2] == ["0", "True"]


def test_guard_keeps_the_flags_that_are_set(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_of_mine=1")
    guard_process()
    guard_process()
    assert os.environ["XLA_FLAGS"] in ("--xla_of_mine=1", f"--xla_of_mine=1 {FLAG}")


def test_program_within_another_one_is_a_part_of_it():
    double = compiled(lambda x: 2 * x)
    assert float(jax.jit(lambda x: double(x) + 1)(jnp.array(3.0))) == 7
    assert float(jax.grad(lambda x: double(x) ** 2)(jnp.array(3.0))) == 24
    seen = []
    jax.eval_shape(lambda x: seen.append((is_traced(x), is_traced(2.0), is_staged())), 1.0)
    assert seen == [(True, False, True)]
    assert not is_staged(jnp.ones(2))


def test_nothing_is_compiled_but_by_those_options():
    for folder in ("nthsim", "nthsim.models", "nthsim.solvers"):
        for file in resources.files(folder).iterdir():
            if file.name.endswith(".py") and file.name not in (
                "compiled.py",
                "xla.py",
                "function_contents.py",
            ):
                found = re.findall(r"filter_jit|jax\.jit\(|@jax\.jit", file.read_text())
                assert found == [], file.name
    assert set(compiler_options()) <= {"xla_cpu_experimental_ynn_fusion_type"}
    more = set(compiler_options(unfused=True)) - set(compiler_options())
    assert "xla_disable_hlo_passes" in more


class Pooled(eqx.Module):
    """Maxima over neighbours, whose gradients fusions lose (jax 0.10.2 to 0.12)."""

    first: eqx.nn.Linear
    s: jax.Array
    last: eqx.nn.Linear

    def __call__(self, x):
        z = self.first(x)
        return self.last(jnp.max((self.s * jnp.tanh(z) + 0.3 * z).reshape(4, 2), axis=1))


def told(net, data):
    """Whether derivatives of a network compare numbers."""
    network = pose(net, data, nth.squared_error).network
    assert isinstance(network, Network)
    return network.program.compares


def test_derivatives_of_maxima_are_right():
    rng = np.random.default_rng(0)
    W, s, a, x = (rng.normal(size=size) for size in ((8, 6), (8,), (4,), (5, 6)))
    layers = [
        eqx.nn.Linear(6, 8, use_bias=False, key=jr.key(0)),
        eqx.nn.Linear(4, "scalar", use_bias=False, key=jr.key(0)),
    ]
    first, last = (
        eqx.tree_at(lambda layer: layer.weight, layer, jnp.asarray(weight))
        for layer, weight in zip(layers, (W, a[None]), strict=True)
    )
    net = Pooled(first, jnp.asarray(s), last)
    z = x @ W.T
    h = s * np.tanh(z) + 0.3 * z
    chosen = h == np.repeat(h.reshape(5, 4, 2).max(axis=2), 2, axis=1)
    back = chosen * np.repeat(a, 2)
    by_z = back * (s / np.cosh(z) ** 2 + 0.3)
    pooled = (h * chosen).reshape(5, 4, 2).sum(axis=2)
    rows = [(by_z[..., None] * x[:, None]).reshape(5, -1), back * np.tanh(z), pooled]
    expected = sum(part @ part.T for part in rows)
    for method in ("nested", "structured"):
        found = nth.kernel(net, jnp.asarray(x), 2, method=method, progress=False)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    data = nth.Dataset(x, rng.normal(size=5))
    run = nth.Run([0.0], solver=Explicit(), record=("kernel",))
    flow = nth.gradient_flow(net, data, run, progress=False)
    assert told(net, data)  # whatever this CPU does
    assert flow.kernel is not None
    np.testing.assert_allclose(flow.kernel[0], expected, rtol=1e-12)


def own_derivative(kind):
    """The largest number, whose derivative is by a comparison of its own."""

    def largest(x):
        return jax.lax.top_k(x, 1)[0][0]

    def part(x, t):
        return jnp.sum(jnp.where(x == largest(x), t, 0.0))

    function: Any = kind(largest)
    if kind is jax.custom_jvp:
        function.defjvp(lambda x, t: (largest(*x), part(*x, *t)))
    else:
        function.defvjp(lambda x: (largest(x), x), lambda x, g: (jnp.where(x == largest(x), g, 0),))
    return function


def test_functions_whose_derivatives_compare_numbers_are_told_from_others():
    x = jnp.arange(3.0)
    found = lambda function: compares(jax.make_jaxpr(function)(x), function, x)  # noqa: E731
    assert found(lambda x: jnp.max(jnp.tanh(x)))
    assert found(jnp.min)
    assert found(lambda x: jax.ops.segment_max(x, jnp.array([0, 0, 1]), 2))
    assert found(lambda x: jnp.where(x >= jnp.max(x), x, 0.0))
    assert found(lambda x: jnp.where(x == jnp.sort(x)[1], x, 0.0))
    assert found(lambda x: jnp.maximum(x[:1], x[1:2] * x[2:]))  # maxout
    assert found(lambda x: jnp.max(jnp.maximum(x, 0.0)))  # a cap before the pooling
    assert found(lambda x: jnp.max(jnp.minimum(jnp.maximum(x, 0.0), 6.0)))
    assert found(lambda x: jnp.where(x - jnp.sort(x)[1] >= 0, x, 0.0))
    assert found(lambda x: x * (1 + jnp.sign(x - jnp.max(x))))
    assert found(lambda x: x * jnp.floor(1 - jax.lax.stop_gradient(jnp.max(x) - x)))
    assert found(lambda x: jnp.where(x / jax.lax.top_k(x, 1)[0] < 1, x, 0.0))
    assert found(lambda x: jnp.where((x[:, None] - x[None]) ** 2 > 0, x, 0.0))  # from itself
    assert found(lambda x: jax.lax.scan(lambda c, z: (jnp.maximum(c, z), None), x[0] * 0, x)[0])
    assert found(lambda x: x * jnp.floor(jax.lax.cond(x[0] > 0, jnp.max, jnp.min, x) - x))
    onehot = lambda x: jax.nn.one_hot(jnp.argsort(x), 3, dtype=x.dtype)  # noqa: E731
    assert found(lambda x: jnp.where(x - (onehot(x) @ x)[1] >= 0, x, 0.0))
    assert found(lambda x: jnp.where(x - jnp.sum(onehot(x)[0] * x) >= 0, x, 0.0))
    apart = lambda s, u, v: jnp.where((s * u - s * v) ** 2 > 0, u, v)  # noqa: E731
    assert found(lambda x: jax.vmap(lambda u: jax.vmap(lambda v: apart(x[0], u, v))(x))(x))
    assert found(own_derivative(jax.custom_jvp))
    assert found(own_derivative(jax.custom_vjp))
    assert not found(lambda x: jnp.where(jnp.eye(3) @ jax.nn.softmax(x) > 0, x, 0.0))
    assert not found(lambda x: jnp.where(x > 0.5, jnp.clip(x, -1.0, 1.0) * jnp.floor(x), 0.0))
    held = lambda a, b: a @ jnp.where(b == jnp.max(b), b, 0.0)  # noqa: E731  # it lies in memory
    made = lambda a, b: held(a, jnp.sin(b) + b)  # noqa: E731  # and what is made of it does not
    assert not compares(jax.make_jaxpr(held)(x, x), held, x, x)
    assert compares(jax.make_jaxpr(made)(x, x), made, x, x)
    assert not found(jax.nn.softmax)  # its maximum has no derivative
    assert not found(eqx.nn.LayerNorm(3))  # nor what is not below zero
    assert not found(lambda x: jax.nn.relu(jnp.maximum(x, 1.0)))
    assert not found(lambda x: jnp.sort(x)[-1] + jax.nn.logsumexp(x))


class Chosen(eqx.Module):
    """Numbers that are chosen among products and sums, by a function."""

    w: jax.Array
    a: jax.Array
    r: jax.Array
    choose: Callable[..., jax.Array] = eqx.field(static=True)

    def __call__(self, x):
        z = self.w @ x
        chosen = self.choose(self.a * jnp.tanh(z) + 0.3 * z)
        return chosen @ self.r[: len(chosen)] / 3


CHOICES = {
    "maximum of what is cut off": lambda z: jnp.max(jnp.maximum(z.reshape(4, 2), 0.0), axis=1),
    "by a difference": lambda z: jnp.where(z - jnp.sort(z)[-3] >= 0, z, 0.0),
    "by a sign": lambda z: z * (1 + jnp.sign(z - jnp.max(z))),
    "own derivative": lambda z: jax.vmap(own_derivative(jax.custom_jvp))(z.reshape(4, 2)),
}


@pytest.mark.parametrize("name", CHOICES)
def test_what_is_chosen_among_computed_numbers_is_that_of_each_operation_by_itself(name):
    keys = jr.split(jr.key(0), 3)
    shapes = (8, 6), (8,), (8,)
    w, a, r = (jr.normal(k, s) for k, s in zip(keys, shapes, strict=True))
    net = Chosen(w, a, r, CHOICES[name])
    x = jnp.asarray(np.random.default_rng(0).normal(size=(12, 6)))
    with jax.disable_jit():
        gradients = [jax.grad(lambda net, x: net(x))(net, one) for one in x]
        expected = [float(net(one)) for one in x]
    rows = np.stack([np.concatenate([np.ravel(a) for a in jax.tree.leaves(g)]) for g in gradients])
    K = nth.kernel(net, x, 2, progress=False)
    np.testing.assert_allclose(K, rows @ rows.T, rtol=1e-10, atol=1e-13)
    data = nth.Dataset(x, jnp.cos(jnp.arange(12.0)))
    flow = nth.gradient_flow(net, data, nth.Run([0.0], solver=Explicit()), progress=False)
    np.testing.assert_allclose(flow.f[0], expected, rtol=1e-12)


def test_model_that_begins_to_compare_numbers_is_looked_at_anew():
    at: dict[str, Callable[..., jax.Array]] = {"reduce": jnp.sum}
    layers = [eqx.nn.Linear(3, 4, key=jr.key(0)), eqx.nn.Lambda(lambda z: at["reduce"](z))]
    net, data = eqx.nn.Sequential(layers), nth.Dataset(np.eye(3), np.ones(3))
    assert not told(net, data)
    at["reduce"] = jnp.max
    assert told(net, data)


def test_loss_that_compares_numbers_is_told():
    worst = lambda f, y: jnp.max((f - y) ** 2)  # noqa: E731
    data = nth.Dataset(np.eye(3), np.ones((3, 2)))
    with pytest.warns(JumpingLossWarning):
        problem = pose(eqx.nn.Linear(3, 2, key=jr.key(0)), data, worst)
    assert problem.residual.program.compares


class Maxout(eqx.Module):
    """The larger of two, times one more parameter, lost by fusions in float32 (jax 0.10.2)."""

    a: jax.Array
    s: jax.Array
    r: jax.Array

    def __call__(self, x):
        z = self.a @ x
        z = self.s * jnp.tanh(z) + 0.3 * z
        return jnp.maximum(z[:4], z[4:]) @ self.r[:4] * self.r[5]


def test_kernel_of_a_maxout_network_is_that_of_each_operation_by_itself():
    keys = jr.split(jr.key(1), 3)
    net = Maxout(
        *(jr.normal(k, s, jnp.float32) for k, s in zip(keys, ((8, 6), (8,), (8,)), strict=True))
    )
    x = jr.normal(jr.key(101), (300, 6), jnp.float32)
    gradients = jax.vmap(jax.grad(lambda net, x: net(x)), (None, 0))
    with jax.disable_jit():
        rows = [np.reshape(leaf, (300, -1)) for leaf in jax.tree.leaves(gradients(net, x))]
    expected = sum(np.asarray(row, float) @ np.asarray(row, float).T for row in rows)
    found = nth.kernel(net, x, 2, progress=False)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


class Sorted(eqx.Module):
    a: jax.Array

    def __call__(self, x):
        return jnp.sort(self.a @ x) @ jnp.array([1.0, 2.0, -1.0])


@pytest.mark.parametrize("n", [3, 4])
def test_transpositions_around_a_sort_are_kept(n):
    net, x = Sorted(jr.normal(jr.key(5), (3, 2))), jr.normal(jr.key(10), (n, 2))
    rows = []
    for one in np.asarray(x):
        weights = np.array([1.0, 2.0, -1.0])[np.argsort(np.argsort(np.asarray(net.a) @ one))]
        rows.append(np.outer(weights, one).ravel())
    expected = np.array(rows) @ np.array(rows).T
    np.testing.assert_allclose(nth.kernel(net, x, 2, progress=False), expected, rtol=1e-12)
