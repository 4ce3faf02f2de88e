"""What is compiled, kept or replaced belongs to what a model and a loss are now."""

import re
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from beartype import beartype
from jaxtyping import Float, jaxtyped
from networks import with_slope

import nthsim as nth
from nthsim.network.function_contents import described
from nthsim.network.program import program

X = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2)))
DATA = nth.Dataset(X, [1.0, -1.0, 0.5])
SETTINGS = {"scale": 1.0}


def scaled(z):
    return jnp.tanh(SETTINGS["scale"] * z)


def mlp(activation):
    return eqx.nn.MLP(2, "scalar", 3, 1, activation=activation, key=jr.key(0))


@pytest.mark.parametrize("method", ["nested", "structured"])
def test_kernel_is_that_of_the_settings_of_the_moment(method, monkeypatch):
    kernel = lambda act: nth.kernel(mlp(act), X, 2, method=method, progress=False)  # noqa: E731
    before = kernel(scaled)
    monkeypatch.setitem(SETTINGS, "scale", 2.0)
    np.testing.assert_allclose(kernel(scaled), kernel(lambda z: jnp.tanh(2.0 * z)), rtol=1e-12)
    assert np.abs(kernel(scaled) - before).max() > 0.1


SLOPED = {"act": with_slope(1.0)}


def sloped(z):
    return SLOPED["act"](z)


def test_kernel_is_that_of_the_derivatives_of_the_moment(monkeypatch):
    kernel = lambda act: nth.kernel(mlp(act), X, 2, progress=False)  # noqa: E731
    before = kernel(sloped)
    monkeypatch.setitem(SLOPED, "act", with_slope(2.0))
    np.testing.assert_allclose(kernel(sloped), kernel(with_slope(2.0)), rtol=1e-12)
    assert np.abs(kernel(sloped) - before).max() > 0.1


def ruled(rule):
    """A function of JAX with a derivative that is not JAX's."""
    spike = jax.custom_jvp(jnp.sign)
    spike.defjvp(lambda p, t: (jnp.sign(p[0]), t[0] * rule(p[0])))
    return spike


def handed(rule):
    """The same, handed over as JAX does for its own."""
    spike = jax.custom_jvp(jnp.sign)
    spike.defjvps(lambda t, ans, z: t * rule(z))
    return spike


def host(kind):
    """A function of NumPy and its derivative, defined anew under the same names."""
    cell = "def value(z): return np.{}(z)\ndef slope(z): return {}"
    made = {"np": np}
    parts = {"tanh": ("tanh", "1 - np.tanh(z)**2"), "sin": ("sin", "np.cos(z)")}[kind]
    exec(cell.format(*parts), made)
    call = lambda f, z: jax.pure_callback(  # noqa: E731
        f, jax.ShapeDtypeStruct(z.shape, z.dtype), z, vmap_method="expand_dims"
    )
    act = jax.custom_jvp(lambda z: call(made["value"], z))
    act.defjvp(lambda p, t: (act(p[0]), t[0] * call(made["slope"], p[0])))
    return act


@pytest.mark.parametrize(
    ("first", "second", "right"),
    [
        (ruled(jnp.cos), ruled(jnp.exp), None),
        (handed(jnp.cos), handed(jnp.exp), None),
        (host("tanh"), host("sin"), jnp.sin),
    ],
)
def test_kernel_is_that_of_the_rule_or_callback_of_the_moment(first, second, right, monkeypatch):
    kernel = lambda act: nth.kernel(mlp(act), X, 2, progress=False)  # noqa: E731
    monkeypatch.setitem(SLOPED, "act", first)
    before = kernel(sloped)
    monkeypatch.setitem(SLOPED, "act", second)
    expected = kernel(right or (lambda z: second(z)))
    np.testing.assert_allclose(kernel(sloped), expected, rtol=1e-12)
    assert np.abs(kernel(sloped) - before).max() > 0.1


class Gain:
    """A gain that is its own."""

    def __init__(self, gain):
        self.gain = gain

    def by(self, z):
        return self.gain * z


def test_program_tells_callbacks_apart_by_all_that_they_depend_on():
    shape = jax.ShapeDtypeStruct((2,), jnp.float64)

    def words(function, *, equinox=False):
        call = lambda x: eqx.filter_pure_callback(function, x, result_shape_dtypes=shape)  # noqa: E731
        plain = lambda x: jax.pure_callback(function, shape, x)  # noqa: E731
        return program(call if equinox else plain, shape).digest(described)

    by = lambda settings: lambda z: settings["k"] * z  # noqa: E731
    one, other = {"k": 1.0}, {"k": 2.0}
    gain, more = Gain(1.0), Gain(2.0)
    assert len({words(lambda z: np.tanh(z)) for _ in range(2)}) == 1
    assert not re.search(r"\d{9}", described(lambda z: np.tanh(z)))  # no place in memory
    assert words(np.tanh) != words(np.sin)
    assert words(np.tanh, equinox=True) == words(np.tanh, equinox=True)
    assert words(np.tanh, equinox=True) != words(np.sin, equinox=True)
    assert words(by(one)) == words(by(one)) != words(by(other))
    assert words(gain.by) == words(gain.by) != words(more.by)
    before = words(gain.by)
    gain.gain = 3.0
    assert words(gain.by) != before


FACTOR = {"c": 1.0}


@jaxtyped(typechecker=beartype)
def _checked(c: Float[jax.Array, ""]) -> Float[jax.Array, ""]:
    return FACTOR["c"] * c**2


def test_what_checks_the_shapes_of_a_function_is_no_part_of_it(monkeypatch):
    before = described(_checked)
    assert len(before) < 100_000  # once it was a million letters, read again at every call
    monkeypatch.setitem(FACTOR, "c", 2.0)
    assert described(_checked) != before


def test_derivatives_of_jax_are_not_looked_into_and_those_given_to_its_functions_are():
    shape = jax.ShapeDtypeStruct((2,), jnp.float64)
    given = jax.custom_jvp(jax.nn.relu)
    given.defjvps(lambda t, ans, z: t * jax.nn.sigmoid(z))
    for function in (jax.nn.relu, jax.nn.relu6, jax.nn.softplus, jax.nn.logsumexp):
        assert not program(function, shape).derivatives
    for function in (given, ruled(jnp.cos), handed(jnp.cos)):
        assert program(function, shape).derivatives


class Weighted:
    """A loss with a setting."""

    weight = 1.0

    def __call__(self, f, y):
        return self.weight * 0.5 * (f - y) ** 2


def test_flow_is_that_of_the_loss_of_the_moment():
    loss = Weighted()
    flow = lambda loss, t: nth.gradient_flow(mlp(jnp.sin), DATA, [t], loss=loss, progress=False)  # noqa: E731
    flow(loss, 0.3)
    loss.weight = 4.0
    run = flow(loss, 0.3)
    # Four times the loss is the same flow in a quarter of the time; tolerances are 1e-7.
    np.testing.assert_allclose(run.f, flow(nth.squared_error, 1.2).f, rtol=1e-5)
    np.testing.assert_allclose(
        run.loss, 2 * np.mean((run.f - np.asarray(DATA.y)[None]) ** 2, axis=1), rtol=1e-12
    )


class Gained(eqx.Module):
    """Asks which activation it has."""

    first: eqx.nn.Linear
    readout: eqx.nn.Linear
    activation: Callable

    def __call__(self, x):
        gain = 2.0 if self.activation is jax.nn.softplus else 1.0
        return self.readout(gain * self.activation(self.first(x)))


def gained():
    keys = jr.split(jr.key(1))
    first, readout = eqx.nn.Linear(2, 4, key=keys[0]), eqx.nn.Linear(4, "scalar", key=keys[1])
    return Gained(first, readout, jax.nn.softplus)


@pytest.mark.parametrize("dynamics", ["series", "taylor"])
def test_module_that_asks_for_its_activation_keeps_it(dynamics):
    net, start = gained(), jax.vmap(gained())(DATA.x)
    if dynamics == "series":
        run = nth.hierarchy(net, DATA, 3, [0.0, 0.2], method="series", progress=False)
        dense = nth.hierarchy(net, DATA, 3, [0.0, 0.2], method="dense", progress=False)
        np.testing.assert_allclose(run.f, dense.f, rtol=1e-6)
    else:
        run = nth.taylor(net, DATA, 2, [0.0, 0.2], progress=False)
    np.testing.assert_allclose(run.f[0], start, rtol=1e-12)
    assert "a derivative of its own" in str(run.method)


def test_checkpoint_of_another_activation_or_loss_is_refused(tmp_path):
    run = nth.Run([0.0, 0.1], checkpoint=tmp_path)
    flow = lambda net, **kw: nth.gradient_flow(net, DATA, run, progress=False, **kw)  # noqa: E731
    made = lambda scale: lambda z: jnp.tanh(scale * z)  # noqa: E731
    huber = lambda c: lambda f, y: jnp.where(jnp.abs(f - y) < c, 0.5 * (f - y) ** 2, c * jnp.abs(f))  # noqa: E731
    flow(mlp(made(1.0)), loss=huber(50.0))
    with pytest.raises(ValueError, match="model"):
        flow(mlp(made(2.0)), loss=huber(50.0))
    with pytest.raises(ValueError, match="loss"):
        flow(mlp(made(1.0)), loss=huber(60.0))


def cautious(self, x):
    try:
        return self.layers[1](jnp.tanh(self.layers[0](x)))
    except Exception:
        return jnp.sum(x)


class Cautious(eqx.Module):
    """Goes on after errors of its layers."""

    layers: list

    def __call__(self, x):
        return cautious(self, x)


class Careless(eqx.Module):
    """Goes on after whatever comes."""

    layers: list
    instead: int

    def __call__(self, x):
        h = jnp.tanh(self.layers[0](x))
        try:
            h = self.layers[1](h)
        except:  # noqa: E722
            h = jnp.full(3 + self.instead, 0.1)
        return self.layers[2](jnp.sin(h))


@pytest.mark.parametrize("instead", [0, 1])
def test_model_that_catches_everything_has_the_same_series(instead):
    keys, sizes = jr.split(jr.key(2), 3), [(2, 4), (4, 3), (3, "scalar")]
    layers = [eqx.nn.Linear(*s, key=k) for s, k in zip(sizes, keys, strict=True)]
    series, dense = (
        nth.hierarchy(Careless(layers, instead), DATA, 3, [0.0, 0.5], method=method, progress=False)
        for method in ("series", "dense")
    )
    np.testing.assert_allclose(series.f, dense.f, rtol=1e-6)
    assert "layer by layer" in str(series.method)


def test_model_that_catches_errors_is_followed_layer_by_layer_all_the_same():
    keys = jr.split(jr.key(2))
    net = Cautious([eqx.nn.Linear(2, 4, key=keys[0]), eqx.nn.Linear(4, "scalar", key=keys[1])])
    run = nth.hierarchy(net, DATA, 2, [0.0, 0.2], method="series", progress=False)
    np.testing.assert_allclose(run.f[0], jax.vmap(net)(DATA.x), rtol=1e-12)
    assert "layer by layer" in str(run.method)


def test_program_tells_constants_and_steps_apart():
    shape = jax.ShapeDtypeStruct((2,), jnp.float64)
    of = lambda c: program(lambda x: c * x, shape).digest(described)  # noqa: E731
    one, other = jnp.array([1.0, 2.0]), jnp.array([1.0, 3.0])
    assert of(one) == of(jnp.array(one)) != of(other)
    assert of(1.0) != of(2.0)
    inner = lambda c: jax.jit(lambda x: c * x)  # noqa: E731
    digests = [program(lambda x, c=c: inner(c)(x), shape).digest(described) for c in (one, other)]
    assert digests[0] != digests[1]
    keyed = lambda key: program(lambda x: x + jr.normal(key, (2,)), shape).digest(described)  # noqa: E731
    assert keyed(jr.key(0)) != keyed(jr.key(1))
