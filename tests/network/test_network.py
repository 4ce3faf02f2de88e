"""Any Equinox module as a function of its parameters."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import nthsim as nth
from nthsim.models import FCN
from nthsim.network.network import output_shape, parameter_count, precision
from nthsim.network.split import split

pytestmark = pytest.mark.compiled


def test_split_model_evaluates_as_the_model():
    model = eqx.nn.MLP(3, 2, 5, 2, activation=jax.nn.relu, key=jr.key(0))
    x = jr.normal(jr.key(1), (4, 3))
    network, theta = split(model)
    np.testing.assert_array_equal(network(theta, x), jax.vmap(model)(x))
    assert parameter_count(theta) == 3 * 5 + 5 + 5 * 5 + 5 + 5 * 2 + 2
    assert output_shape(network, theta, x) == (2,)
    assert precision(theta) == jnp.float64


def test_integers_and_functions_are_no_parameters():
    class Shifted(eqx.Module):
        w: jax.Array
        shift: jax.Array
        parts: list

        def __call__(self, x):
            return self.parts[0](self.w @ jnp.roll(x, self.shift))

    model = Shifted(jnp.ones(3), jnp.array(1), [jnp.tanh])
    network, theta = split(model)
    assert parameter_count(theta) == 3
    np.testing.assert_allclose(network.single(theta, jnp.arange(3.0)), np.tanh(3.0))


class Anything(eqx.Module):
    w: jax.Array
    returns: str = eqx.field(static=True)

    def __call__(self, x):
        if self.returns == "raises":
            raise RuntimeError("a stranger's\nlong story")
        return {"matrix": jnp.outer(self.w, x), "tuple": (x, x)}[self.returns]


@pytest.mark.parametrize(
    ("returns", "sentence"),
    [
        ("matrix", r"`model` must map one input to a scalar or a vector, but returns shape \(2, 3"),
        ("tuple", r"`model` must map one input to a scalar or a vector, but returns tuple\.$"),
        ("raises", r"one input of shape \(3,\), but fails on it: a stranger's\.$"),
    ],
)
def test_model_that_gives_no_output_is_refused(returns, sentence):
    network, theta = split(Anything(jnp.ones(2), returns))
    with pytest.raises(ValueError, match=sentence):
        output_shape(network, theta, jnp.ones((4, 3)))


class Cast(eqx.Module):
    """A linear network whose output is made into something else."""

    w: jax.Array
    last: Callable = eqx.field(static=True)

    def __call__(self, x):
        return self.last(self.w @ x)


OTHER_NUMBERS = {
    "complex128": lambda z: jax.lax.complex(z, z),
    "int64": lambda z: z.astype(jnp.int64),
    "bool": lambda z: z > 0,
    "bfloat16": lambda z: z.astype(jnp.bfloat16),
    "float32": lambda z: z.astype(jnp.float32),
}
CALLS = {
    "kernel": lambda model, data: nth.kernel(model, data.x, 2, progress=False),
    "flow": lambda model, data: nth.gradient_flow(model, data, [1.0], progress=False),
    "order": lambda model, data: nth.hierarchy(model, data, 3, [1.0], progress=False),
    "plan": lambda model, data: nth.plan(model, data, (2,), [1.0]),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", OTHER_NUMBERS)
def test_outputs_other_than_real_ones_of_the_precision_are_refused(name, call):
    data = nth.Dataset(jnp.ones((2, 3)), jnp.ones(2))
    sentence = (
        "^`model` must return real numbers in the precision of its parameters, float64, "
        rf"but returns {name}\.$"
    )
    with pytest.raises(ValueError, match=sentence):
        CALLS[call](Cast(jnp.ones(3), OTHER_NUMBERS[name]), data)


@pytest.mark.parametrize("name", OTHER_NUMBERS)
def test_losses_other_than_real_ones_of_the_precision_are_refused(name):
    data = nth.Dataset(jnp.ones((2, 3)), jnp.ones(2))
    sentence = (
        "^`loss` must return a real number in the precision of the outputs, float64, "
        rf"but returns {name}\.$"
    )
    with pytest.raises(ValueError, match=sentence):
        nth.gradient_flow(
            Cast(jnp.ones(3), jnp.tanh),
            data,
            [1.0],
            loss=lambda f, y: OTHER_NUMBERS[name](f - y),
            progress=False,
        )


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (jnp.ones(3), "`model` must be an Equinox module that maps one input to its output"),
        (eqx.nn.Lambda(jnp.tanh), "`model` must have at least one floating-point array"),
        (
            Anything(jnp.ones(2, complex), "tuple"),
            "real parameters of one precision, .* complex128",
        ),
        (Anything(jnp.array([1.0, jnp.nan]), "tuple"), "finite parameters, but some are NaN"),
        (
            eqx.nn.Sequential(
                [Anything(jnp.ones(2), ""), Anything(jnp.ones(2, jnp.float32), "tuple")]
            ),
            "parameters of one precision, but holds float32, float64",
        ),
    ],
)
def test_model_without_usable_parameters_is_refused(model, sentence):
    with pytest.raises(ValueError, match=sentence):
        split(model)


def test_array_in_a_static_field_is_refused():
    class Masked(eqx.Module):
        layer: eqx.nn.Linear
        mask: np.ndarray = eqx.field(static=True)

        def __call__(self, x):
            return self.layer(self.mask * x)

    with pytest.warns(UserWarning, match="set as static"):
        model = Masked(eqx.nn.Linear(3, "scalar", key=jr.key(0)), np.ones(3))
    with pytest.raises(ValueError, match=r"^`model` must hold its arrays in fields that"):
        nth.kernel(model, jnp.ones((2, 3)), 2, progress=False)


def test_models_and_solvers_are_at_hand():
    assert nth.models.FCN is FCN
    assert nth.solvers.Auto


class Noisy(eqx.Module):
    """Draws other numbers at each call."""

    layer: eqx.nn.Linear
    random: np.random.Generator = eqx.field(static=True)

    def __call__(self, x):
        return self.layer(x + self.random.normal(size=2))


class Remembering(eqx.Module):
    """Keeps what its first call computed."""

    layer: eqx.nn.Linear
    kept: dict = eqx.field(static=True)

    def __call__(self, x):
        return self.layer(x * self.kept.setdefault("scale", jnp.cos(jnp.ones(2))))


@pytest.mark.parametrize("made", [lambda a: Noisy(a, np.random.default_rng(0)), None])
def test_model_whose_calls_differ_is_refused(made):
    layer = eqx.nn.Linear(2, "scalar", key=jr.key(0))
    model = made(layer) if made else Remembering(layer, {})
    with pytest.raises(ValueError, match="must compute the same each time it is called"):
        nth.kernel(model, jnp.ones((2, 2)), 2, progress=False)


def test_error_that_a_model_raises_ends_the_run_and_keeps_what_was_computed():
    class Bounded(eqx.Module):
        layer: eqx.nn.Linear

        def __call__(self, x):
            z = self.layer(x)
            return eqx.error_if(z, jnp.abs(z) > 1.5, "outputs beyond 1.5")

    net = Bounded(eqx.nn.Linear(2, "scalar", key=jr.key(0)))
    data = nth.Dataset(np.eye(2), np.array([3.0, 3.0]))
    with pytest.raises(nth.SolveError, match=r"raises after t = .*: outputs beyond 1\.5") as caught:
        nth.gradient_flow(net, data, np.linspace(0, 3, 31), progress=False)
    assert len(caught.value.trajectory.ts) > 1
