"""Functions made anew are compiled once where they are surely the same, and never mixed up."""

import functools
import types
import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import nthsim as nth
from nthsim.network.function_contents import contents
from nthsim.network.same_functions import RecompilationWarning, alike, hint
from nthsim.network.split import split
from nthsim.solvers import Explicit

SCALE = 1.0
SETTINGS = types.ModuleType("settings")
vars(SETTINGS)["scale"] = 1.0
TRACED: list[str] = []
jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: TRACED.append(event))


def mlp(activation, width=5):
    return eqx.nn.MLP(3, "scalar", width, 1, activation=activation, key=jr.key(0))


def data():
    return nth.Dataset(jr.normal(jr.key(1), (3, 3)), jnp.arange(3.0))


def traces(run):
    """How many programs are traced by a run."""
    TRACED.clear()
    run()
    return sum("jaxpr_trace" in event for event in TRACED)


def scaled(k):
    return lambda z: jnp.tanh(k * z)


def called(helper):
    return lambda z: helper(z) + 1


def by_default(k):
    return lambda z, k=k: jnp.tanh(k * z)


def by_keyword(k):
    def activation(z, *, k=k):
        return jnp.tanh(k * z)

    return activation


def by_global():
    return lambda z: jnp.tanh(SCALE * z)


def by_helper():
    return lambda z: _helped(z)


def by_module():
    return lambda z: jnp.tanh(SETTINGS.scale * z)


def _helped(z):
    return jnp.tanh(SCALE * z)


@pytest.mark.parametrize(
    "make",
    [
        lambda: lambda z: jnp.tanh(z),
        lambda: scaled(1.5),
        lambda: scaled((1, "two", None)),
        lambda: scaled(np.arange(3.0)),
        lambda: scaled(jnp.arange(3.0)),
        lambda: called(scaled(2.0)),
        lambda: by_default(2.0),
        lambda: by_keyword(2.0),
        lambda: functools.partial(scaled(1.0), z=2),
        lambda: functools.partial(jax.nn.leaky_relu, negative_slope=0.1),
        by_helper,
        by_module,
    ],
)
def test_functions_made_anew_are_equal_where_all_that_they_read_is(make):
    first, second = make(), make()
    assert first is not second
    assert first != second
    assert alike(first) == alike(second)
    assert hash(alike(first)) == hash(alike(second))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (lambda z: jnp.tanh(z), lambda z: jnp.sin(z)),
        (scaled(1), scaled(True)),
        (scaled(1), scaled(1.0)),
        (scaled(0.0), scaled(-0.0)),
        (scaled(np.arange(3.0)), scaled(np.arange(3.0) + 1e-16 * np.ones(3) * 2**52)),
        (scaled(jnp.arange(3.0)), scaled(np.arange(3.0))),
        (scaled(jnp.ones(3)), scaled(jnp.ones((3, 1)))),
        (scaled(np.ones(())), scaled(np.ones(1))),
        (scaled(np.arange(6).reshape(2, 3)), scaled(np.arange(6).reshape(3, 2).T)),
        (called(scaled(1.0)), called(scaled(2.0))),
        (by_default(1.0), by_default(2.0)),
        (by_keyword(1.0), by_keyword(2.0)),
        (functools.partial(scaled, 1.0), functools.partial(scaled, 2.0)),
        (functools.partial(scaled, 1.0), functools.partial(scaled, k=1.0)),
    ],
)
def test_functions_that_read_something_else_differ(first, second):
    assert alike(first) != alike(second)


@pytest.mark.parametrize("make", [by_global, by_helper])
def test_functions_made_before_and_after_a_global_variable_changed_differ(make, monkeypatch):
    first = alike(make())
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    assert alike(make()) != first


def test_functions_made_before_and_after_a_module_changed_differ(monkeypatch):
    first = alike(by_module())
    monkeypatch.setattr(SETTINGS, "scale", 2.0)
    assert alike(by_module()) != first


def importing(z):
    from nthsim.models import activation

    return activation.relu(z)


class Box:
    scale = 1.0

    def act(self, z):
        return self.scale * z


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (scaled([1.0]), "k"),
        (scaled({"k": 1.0}), "k"),
        (scaled(Box()), "k"),
        (by_default([1.0]), "defaults"),
        (called(Box().act), "helper"),
        (called(np.random.default_rng(0).normal), "helper"),
        (functools.partial(Box().act), ""),
        (lambda z: z * len(globals()), "globals"),
        (lambda z: z * len(TRACED), "TRACED"),
        (importing, "importing"),
        (scaled(jr.key(0)), "k"),
    ],
)
def test_function_that_may_change_behind_our_back_stays_the_only_one(function, name):
    assert contents(function).unknown == (name,)
    assert alike(function) is function


class Chosen(eqx.Module):
    """Looks at which functions it has, as a module may."""

    layer: eqx.nn.Linear
    one: Any
    other: object = eqx.field(static=True)
    pair: tuple = eqx.field(static=True)

    def __call__(self, x):
        return self.layer(self.one(x)) * (2 if self.one is self.other else 1)


def chosen(one, other):
    return Chosen(eqx.nn.Linear(3, "scalar", key=jr.key(0)), one, other, (one, 3))


def test_module_gets_its_own_functions_back_from_leaves_and_static_fields():
    one, other = scaled(1.0), scaled(2.0)
    network, theta = split(chosen(one, other))
    model = network.model(theta)
    assert model.one is one
    assert model.other is other
    assert model.pair == (one, 3)
    assert type(model) is Chosen
    assert network.static.other is not other


def test_two_equal_functions_of_one_module_stay_two():
    one, other, x = scaled(1.0), scaled(1.0), jnp.ones((2, 3))
    kernels = [
        nth.kernel(chosen(*pair), x, 2, progress=False) for pair in ((one, other), (one, one))
    ]
    np.testing.assert_allclose(kernels[1], 4 * kernels[0], rtol=1e-14)


def test_kernel_of_a_function_made_anew_traces_no_more_than_of_the_same(monkeypatch):
    x = data().x
    run = lambda activation: nth.kernel(mlp(activation), x, 2, progress=False)  # noqa: E731
    one = scaled(1.5)
    run(one)
    again, anew = traces(lambda: run(one)), traces(lambda: run(scaled(1.5)))
    assert anew == again
    assert traces(lambda: run(scaled(2.5))) > again
    # and a changed variable is no old program: K^(2) of tanh(2 z) is no K^(2) of tanh(z)
    run(by_global())
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    right = run(lambda z: jnp.tanh(2.0 * z))
    np.testing.assert_allclose(run(by_global()), right, rtol=1e-13)


@pytest.mark.slow
def test_flow_with_loss_and_activation_made_anew_traces_no_more_than_with_the_same():
    def run(activation, loss):
        how = nth.Run([0.0, 0.1], solver=Explicit(rtol=1e-3))
        return nth.gradient_flow(mlp(activation), data(), how, loss=loss, progress=False)

    power = lambda p: lambda f, y: jnp.abs(f - y) ** p  # noqa: E731
    one, loss = scaled(1.5), power(2)
    first = run(one, loss)
    again, anew = traces(lambda: run(one, loss)), traces(lambda: run(scaled(1.5), power(2)))
    assert anew == again
    assert first.model.activation is one


def test_functions_that_cannot_be_compared_get_a_hint_once():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(4):
            hint("model", mlp(scaled([1.0])))
    assert len(told) == 1
    assert told[0].category is RecompilationWarning
    sentence = str(told[0].message)
    assert sentence.startswith("`model` holds a function that was made anew, scaled.<locals>")
    assert "which depends on k, so that all is compiled again" in sentence


@pytest.mark.parametrize(
    "make", [lambda: jax.jit(lambda z: z), lambda: Box().act, lambda: called(Box().act)]
)
def test_other_functions_made_anew_get_a_hint_too(make):
    hint("model", mlp(make(), 4))
    with pytest.warns(RecompilationWarning, match="made anew"):
        hint("model", mlp(make(), 4))


def test_functions_that_are_the_same_or_came_with_other_shapes_get_no_hint():
    kept = scaled([2.0])
    for make in (lambda: scaled(3.0), lambda: kept, lambda: scaled(jnp.ones(5))):
        for _ in range(3):
            hint("model", mlp(make()))
    for width in (2, 3, 4):
        hint("model", mlp(called([2.0]), width))


def test_functions_that_hold_arrays_of_their_own_get_a_hint():
    held = lambda a: lambda z: a * z  # noqa: E731
    hint("model", mlp(held(jnp.ones(5))))
    with pytest.warns(RecompilationWarning, match="which depends on a, so that"):
        hint("model", mlp(held(jnp.zeros(5))))
