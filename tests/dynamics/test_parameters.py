"""What trains is told, and what does not train stays where it was."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import nthsim as nth
from nthsim.cli.main import main
from nthsim.network.network import parameter_count
from nthsim.network.split import split
from nthsim.network.trained import TiedWeightsWarning
from nthsim.results.record import network_digest
from nthsim.scaling.population import Drawn, population

X = jr.normal(jr.key(9), (3, 4))


class NonTrainable(eqx.Module):
    """Stands in for the class of this name in paramax, which is recognised by its name."""

    tree: object

    def unwrap(self):
        return jax.lax.stop_gradient(self.tree)


NonTrainable.__module__ = "paramax.wrappers"


class Features(eqx.Module):
    """A readout over random features, which are wrapped or not."""

    first: object
    readout: eqx.nn.Linear

    def __call__(self, x):
        first = self.first.unwrap() if isinstance(self.first, NonTrainable) else self.first
        return self.readout(jnp.tanh(first @ x))


class Stopped(eqx.Module):
    """The same by JAX alone: the features are parameters that no gradient reaches."""

    net: Features

    def __call__(self, x):
        return self.net.readout(jnp.tanh(jax.lax.stop_gradient(self.net.first) @ x))


def features(seed=0, *, mark: Any = NonTrainable):
    first_key, readout_key = jr.split(jr.key(seed))
    first = jr.normal(first_key, (5, 4))
    return Features(mark(first), eqx.nn.Linear(5, "scalar", key=readout_key))


def data():
    return nth.Dataset(X, jnp.array([1.0, -1.0, 0.5]))


class Normalised(eqx.Module):
    """Holds what is no parameter: state, integers, keys, numbers."""

    layer: eqx.nn.Linear
    mean: eqx.nn.StateIndex
    order: jax.Array
    key: jax.Array
    scale: float
    offset: np.ndarray
    unused: jax.Array

    def __call__(self, x):
        shifted = x[self.order] + jnp.asarray(self.offset)
        return self.layer(shifted) + jax.lax.stop_gradient(self.unused)


def normalised():
    return Normalised(
        layer=eqx.nn.Linear(4, "scalar", key=jr.key(1)),
        mean=eqx.nn.StateIndex(jnp.zeros(3)),
        order=jnp.arange(4)[::-1],
        key=jr.key(2),
        scale=0.5,
        offset=np.ones(4),
        unused=jnp.ones(()),
    )


def test_list_names_every_parameter_and_why_the_rest_does_not_train():
    assert str(nth.parameters(normalised(), X)).splitlines() == [
        "trains          shape  size",
        ".layer.weight   1 x 4     4",
        ".layer.bias         1     1",
        ".offset             4     4",
        ".unused        scalar     1",
        "P                        10",
        "all in float64",
        ".offset: a NumPy array, which trains as any other",
        ".unused: no gradient reaches it at these inputs, so that it does not move",
        "",
        "does not train:",
        ".mean.init (3): state of a layer, which training by gradients leaves alone",
        ".order (4): an array of int64",
        ".key (scalar): a random key",
        ".scale (scalar): a number of Python; as a jax.numpy array it would train",
    ]


def test_array_in_a_static_field_is_told():
    class Held(eqx.Module):
        inner: list
        fixed: np.ndarray = eqx.field(static=True)

    with pytest.warns(UserWarning, match="being set as static"):
        held = Held([], np.ones((2, 3)))
    model = eqx.nn.Sequential([eqx.nn.Linear(4, 2, key=jr.key(0)), eqx.nn.Lambda(jnp.tanh)])
    with_it = eqx.tree_at(lambda m: m.layers[1].fn, model, held)
    (only,) = nth.parameters(with_it).left
    assert (only.path, only.shape, only.note) == (
        ".layers[1].fn.fixed",
        (2, 3),
        "in a static field",
    )


def test_numpy_array_trains_and_later_changes_to_it_do_nothing():
    model = normalised()
    network, theta = split(model)
    before = network(theta, X)
    model.offset[:] = 7.0
    np.testing.assert_array_equal(network(theta, X), before)


def test_state_of_a_layer_made_without_make_with_state_is_no_parameter():
    norm = eqx.nn.BatchNorm(3, axis_name="batch", mode="ema")
    model = eqx.nn.Sequential([eqx.nn.Linear(4, 3, key=jr.key(0)), norm])
    assert parameter_count(split(model)[1]) == 4 * 3 + 3 + 3 + 3
    noted = {part.path for part in nth.parameters(model).left if part.note.startswith("state")}
    assert any("state_index" in path for path in noted)


def test_tied_weights_are_told_once_with_the_cure():
    layer = eqx.nn.Linear(4, 4, key=jr.key(0))
    with pytest.warns(TiedWeightsWarning) as told:
        listed = nth.parameters(eqx.nn.Sequential([layer, layer]))
    (warning,) = told
    assert "as .layers[0].weight and as .layers[1].weight (1 more likewise)" in str(warning.message)
    assert "eqx.nn.Shared" in str(warning.message)
    assert listed.total == 2 * (16 + 4)  # as JAX counts and trains them
    assert ".layers[0].bias: the same array as .layers[1].bias" in str(listed)


def test_weights_tied_by_equinox_are_one_parameter_without_a_warning():
    pair = eqx.nn.Linear(4, 4, key=jr.key(0)), eqx.nn.Linear(4, 4, key=jr.key(1))
    shared = eqx.nn.Shared(pair, lambda p: p[1].weight, lambda p: p[0].weight)

    class Tied(eqx.Module):
        layers: eqx.nn.Shared

        def __call__(self, x):
            first, second = self.layers()
            return second(jnp.tanh(first(x)))

    assert nth.parameters(Tied(shared)).total == 16 + 4 + 4


def test_what_another_package_marks_as_constant_is_no_parameter():
    listed = nth.parameters(features())
    assert [part.path for part in listed.trained] == [".readout.weight", ".readout.bias"]
    (kept,) = listed.left
    assert (kept.path, kept.note) == (".first.tree", "marked as constant by paramax.NonTrainable")


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("method", ["nested", "structured"])
def test_constants_left_out_give_the_kernels_of_stopped_gradients(order, method):
    right = nth.kernel(Stopped(features(mark=jnp.asarray)), X, order, progress=False)
    got = nth.kernel(features(), X, order, method=method, progress=False)
    np.testing.assert_allclose(got, right, rtol=1e-12, atol=1e-14)


def test_class_of_the_same_name_elsewhere_marks_nothing():
    class NonTrainable(eqx.Module):
        tree: object

    model = eqx.tree_at(lambda m: m.first, features(), NonTrainable(jnp.ones((5, 4))))
    assert parameter_count(split(model)[1]) == 20 + 5 + 1


@pytest.mark.slow
def test_comparison_with_constants_is_that_of_stopped_gradients_and_comes_back(tmp_path):
    options: Any = {"certify": False, "progress": False}
    study = nth.compare(
        features(),
        data(),
        (nth.Order(2, method="series"), nth.Order(3, method="series")),
        [0.0, 0.3],
        **options,
    )
    other = nth.compare(Stopped(features(mark=jnp.asarray)), data(), (2, 3), [0.0, 0.3], **options)
    # Another norm of other parameters measures errors, so that steps differ within tolerances.
    np.testing.assert_allclose(study.exact.f, other.exact.f, rtol=1e-6)
    np.testing.assert_allclose(study.curve(3).f, other.curve(3).f, rtol=1e-6)
    np.testing.assert_array_equal(study.exact.model.first.tree, study.asked.model.first.tree)
    assert study.parameters is not None
    assert study.parameters.total == 6
    assert "6 parameters" in str(study)
    study.save(tmp_path / "study.nc")
    # Constants stand in the file too: another module's are replaced by them.
    again = nth.Comparison.load(tmp_path / "study.nc", model=features(7))
    np.testing.assert_array_equal(again.asked.model.first.tree, study.asked.model.first.tree)
    np.testing.assert_array_equal(nth.rerun(again, progress=False).exact.f, study.exact.f)


def test_checkpoint_tells_networks_of_other_constants_apart():
    one, other = (
        eqx.tree_at(lambda m: m.first.tree, features(), jnp.full((5, 4), v)) for v in (1.0, 2.0)
    )
    marks = [network_digest(*split(model)) for model in (one, other, one)]
    assert marks[0] == marks[2] != marks[1]


def test_population_of_networks_with_constants_of_their_own_has_the_kernels_of_each():
    models = [features(seed) for seed in range(3)]
    kernels = population([*map(Drawn, models)], data(), nth.squared_error).kernel(3)
    for model, got in zip(models, kernels, strict=True):
        right = nth.kernel(model, X, 3, progress=False)
        np.testing.assert_allclose(got, right, rtol=1e-12, atol=1e-14)


def test_constant_that_a_module_takes_past_its_mark_gets_no_gradient_in_a_population():
    class Past(eqx.Module):
        net: Features

        def __call__(self, x):
            first: Any = self.net.first
            return self.net.readout(jnp.tanh(first.tree @ x))

    models = [Past(features(seed)) for seed in range(2)]
    kernels = population([*map(Drawn, models)], data(), nth.squared_error).kernel(2)
    right = nth.kernel(features(1), X, 2, progress=False)
    np.testing.assert_allclose(kernels[1], right, rtol=1e-12)


class Still(eqx.Module):
    mark: object

    def __call__(self, x):
        return x.sum()


def test_model_in_which_nothing_trains_is_refused():
    with pytest.raises(ValueError, match="one floating-point array that trains, but has none"):
        nth.parameters(Still(NonTrainable(jnp.ones(3))))


def test_plan_lists_what_trains_when_asked(capsys):
    tiny = ["--data", "sphere:4", "--n-train", "3", "--n-test", "2", "--width", "5"]
    assert main(["plan", *tiny]) == 0
    assert "trains" not in capsys.readouterr().out
    assert main(["plan", *tiny, "--parameters"]) == 0
    listed = capsys.readouterr().out
    assert "trains" in listed
    assert "5 x 5" in listed
    assert "all in float64" in listed
    assert str(nth.plan(features(), data(), (2,), [0.0, 1.0]).parameters).startswith("trains")


def test_number_of_numpy_is_said_to_train():
    layer = eqx.nn.Linear(2, "scalar", key=jr.key(0))
    scaled = eqx.nn.Sequential([layer, Scaled(1 / np.sqrt(3.0))])
    assert "a number of NumPy's, which trains as an array does" in str(nth.parameters(scaled))
    scaled = eqx.nn.Sequential([layer, Scaled(1 / float(np.sqrt(3.0)))])
    assert "NumPy" not in str(nth.parameters(scaled))


class Scaled(eqx.Module):
    scale: float | np.floating

    def __call__(self, x, key=None):
        del key
        return self.scale * x
