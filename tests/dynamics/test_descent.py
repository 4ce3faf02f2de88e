"""Training in steps, and the flow that descent follows more closely than that of the loss."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from networks import NETWORKS

import nthsim as nth
from nthsim.models import FCN
from nthsim.solvers import Auto, Explicit, Until

X, Y = jr.normal(jr.key(1), (7, 4)), jnp.sin(jnp.arange(7.0))
DATA = nth.Dataset(X, Y, X[:2] + 0.1)
NET = FCN(4, 5, 2, key=jr.key(0))


def plain(model, steps, rates=None, rate=0.1):
    """Losses before each step of descent and the model after the last, array by array."""
    theta, static = eqx.partition(model, eqx.is_inexact_array)

    def loss(theta):
        return jnp.mean(0.5 * (jax.vmap(eqx.combine(theta, static))(X) - Y) ** 2)

    rates = jax.tree.map(lambda _: 1.0, theta) if rates is None else rates
    losses = []
    for _ in range(steps):
        value, gradient = jax.value_and_grad(loss)(theta)
        losses.append(float(value))
        theta = jax.tree.map(lambda a, g, d: a - rate * d * g, theta, gradient, rates)
    return losses, eqx.combine(theta, static)


def arrays(model):
    return jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))


@pytest.fixture(scope="module")
def errors():
    """Distances of descent to flow and to the modified flow, at four rates."""
    ts, found = [2.0, 4.0], []
    solver = Explicit(rtol=1e-9)
    rates = (0.2, 0.1, 0.05, 0.025)
    for h in rates:
        curves = (nth.Descent(optax.sgd(h), h), nth.Modified(h))
        study = nth.compare(NET, DATA, curves, nth.Run(ts, solver=solver, record=()))
        steps, flow = (study.curves[curve.key].f for curve in curves)
        found.append([np.abs(steps - other).max() for other in (study.exact.f, flow)])
    return np.log(rates), np.log(found)


def test_distance_of_descent_to_flow_falls_like_the_rate(errors):
    assert np.polyfit(errors[0], errors[1][:, 0], 1)[0] == pytest.approx(1.0, abs=0.1)


def test_distance_of_descent_to_the_modified_flow_falls_like_its_square(errors):
    assert np.polyfit(errors[0], errors[1][:, 1], 1)[0] == pytest.approx(2.0, abs=0.2)


def test_descent_is_that_of_a_plain_loop():
    losses, model = plain(NET, 5)
    found = nth.descent(NET, DATA, "sgd:0.1", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    np.testing.assert_allclose(found.loss[:-1], losses, rtol=1e-13)
    assert found.stats.steps == 5
    for ours, theirs in zip(arrays(found.model), arrays(model), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-13, atol=1e-15)


def test_step_of_an_array_is_its_rate_times_that_of_the_optimiser():
    rates = eqx.tree_at(lambda m: m.layers[0].weight, jax.tree.map(lambda _: 2.0, NET), 0.5)
    rates = eqx.filter(rates, lambda leaf: isinstance(leaf, float))
    found = nth.descent(NET, DATA, "sgd:0.1", [0.5], rates=rates)
    _, model = plain(NET, 5, rates)
    for ours, theirs in zip(arrays(found.model), arrays(model), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-13, atol=1e-15)
    one = nth.descent(NET, DATA, "adam:0.1", [0.1], rates=rates)
    for before, after, rate in zip(
        arrays(NET), arrays(one.model), jax.tree.leaves(rates), strict=True
    ):
        np.testing.assert_allclose(
            abs(after - before), 0.1 * rate, rtol=1e-3
        )  # but for its epsilon


OTHERS = {
    "clipped": optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1)),
    "by shape": optax.partition(
        {"wide": optax.sgd(0.1), "narrow": optax.sgd(0.3)},
        lambda p: jax.tree.map(lambda a: "wide" if a.shape == (5, 4) else "narrow", p),
    ),
    "scheduled": optax.sgd(optax.cosine_decay_schedule(0.1, 20)),
    "momentum": optax.sgd(0.1, momentum=0.5),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_plain_descent_takes_the_time_that_is_said(name):
    found = nth.descent(NET, DATA, OTHERS[name], [0.14], rate=0.07)
    assert found.stats.steps == 2


def test_array_of_rate_zero_stays_whatever_the_optimiser_does_to_it():
    rates = eqx.tree_at(lambda m: m.layers[1].weight, jax.tree.map(lambda _: 1.0, NET), 0.0)
    found = nth.descent(NET, DATA, optax.adamw(0.1, weight_decay=0.5), [0.5], rate=0.1, rates=rates)
    np.testing.assert_array_equal(found.model.layers[1].weight, NET.layers[1].weight)
    assert not np.array_equal(found.model.layers[0].weight, NET.layers[0].weight)


def test_between_two_steps_parameters_are_on_the_line_between():
    found = nth.descent(NET, DATA, "sgd:0.1", [0.125])
    _, before = plain(NET, 1)
    _, after = plain(NET, 2)
    line = jax.tree.map(lambda a, b: 0.75 * a + 0.25 * b, arrays(before), arrays(after))
    for ours, theirs in zip(arrays(found.model), line, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-13, atol=1e-15)
    assert found.stats.steps == 1


class Table(eqx.Module):
    """A number for each input, so that what moves tells which inputs were in a batch."""

    w: jax.Array

    def __call__(self, x):
        return self.w[x[0]]


def test_each_epoch_takes_every_point_once_but_for_the_rest():
    table, data = Table(jnp.zeros(7)), nth.Dataset(jnp.arange(7)[:, None], jnp.ones(7))
    ts = np.arange(1, 5) * 0.3
    run = nth.Run(ts, record=(nth.Observable.of("w", lambda m: m.w, axes={"entry": range(7)}),))
    found = nth.descent(table, data, "sgd:0.3", run, batch_size=3, key=jr.key(2))
    moved = np.diff(found.records["w"], axis=0, prepend=np.zeros((1, 7))) != 0
    assert (moved.sum(axis=1) == 3).all()
    assert (moved[:2].sum(axis=0) <= 1).all()
    assert (moved[2:].sum(axis=0) <= 1).all()
    assert not np.array_equal(moved[:2], moved[2:])
    first = found.records["w"][0]
    np.testing.assert_allclose(first[first != 0], 0.3 / 3)  # the mean over the batch


def test_batches_are_those_of_the_key_bit_by_bit():
    def run(key):
        return nth.descent(NET, DATA, "sgd:0.1", [1.0], batch_size=2, key=jr.key(key))

    np.testing.assert_array_equal(run(0).f, run(0).f)
    assert not np.array_equal(run(0).f, run(1).f)


def test_batch_of_all_points_is_no_batch():
    whole = nth.descent(NET, DATA, "sgd:0.1", [1.0])
    shuffled = nth.descent(NET, DATA, "sgd:0.1", [1.0], batch_size=7, key=jr.key(0))
    np.testing.assert_allclose(whole.f, shuffled.f, rtol=1e-12)


def test_descent_ends_after_the_first_step_below_a_loss():
    losses, _ = plain(NET, 30)
    target = 0.5 * (losses[10] + losses[11])
    found = nth.descent(NET, DATA, "sgd:0.1", nth.Run([3.0], until=Until(loss=target)))
    assert found.stop.reason == "loss"
    assert found.stats.steps == 11
    assert found.ts[-1] == pytest.approx(1.1)
    assert found.loss[-1] == pytest.approx(losses[11])


def test_descent_beyond_the_edge_of_stability_diverges_and_keeps_what_it_had():
    steep = nth.Dataset(1e3 * X, Y)
    linear = eqx.nn.Linear(4, "scalar", use_bias=False, key=jr.key(0))
    with pytest.raises(
        nth.SolveError, match=r"diverged by t = .*the loss is no finite number"
    ) as e:
        nth.descent(linear, steep, "sgd:1", [1.0, 1000.0])
    assert e.value.trajectory.stop.reason == "blow-up"
    assert len(e.value.trajectory.ts) == 1


NOISY = optax.chain(optax.add_noise(1e-3, 0.5, jr.key(3)), optax.adam(0.05))  # which holds a key


@pytest.mark.parametrize("batches", [{}, {"batch_size": 2, "key": jr.key(3)}])
@pytest.mark.parametrize("optimiser", [optax.adam(0.05), NOISY])
def test_descent_goes_on_where_it_was_interrupted_bit_by_bit(tmp_path, batches, optimiser):
    def run(*ts, folder):
        run = nth.Run(ts, checkpoint=folder)
        return nth.descent(NET, DATA, optimiser, run, rate=0.1, **batches)

    whole = run(0.3, 0.5, 1.2, folder=tmp_path / "whole")
    run(0.3, 0.5, folder=tmp_path / "parts")
    both = run(0.3, 0.5, 1.2, folder=tmp_path / "parts")
    np.testing.assert_array_equal(whole.f, both.f)
    assert both.stats.steps == 12
    for ours, theirs in zip(arrays(both.model), arrays(whole.model), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_other_times_between_the_steps_that_were_taken_are_refused(tmp_path):
    nth.descent(NET, DATA, "sgd:0.1", nth.Run([0.53, 0.55], checkpoint=tmp_path))
    for ts in ([0.55, 0.7], [0.52], [0.53, 0.54, 0.7]):
        with pytest.raises(ValueError, match="`checkpoint` must be a folder of the same run"):
            nth.descent(NET, DATA, "sgd:0.1", nth.Run(ts, checkpoint=tmp_path))


def test_limit_that_is_met_at_the_start_ends_there():
    run = nth.Run([0.05, 1.0], until=Until(loss=1e3))
    found = nth.descent(NET, DATA, "sgd:0.1", run)
    assert found.stop.reason == "loss"
    np.testing.assert_array_equal(found.ts, [0.0])


def test_what_is_recorded_now_and_then_is_recorded_where_a_descent_stops():
    losses, _ = plain(NET, 30)
    until = Until(loss=0.5 * (losses[2] + losses[3]))
    run = nth.Run([0.3, 1.0], until=until, record=("sharpness",), record_ts=[0.3])
    found = nth.descent(NET, DATA, "sgd:0.1", run)
    assert found.stop.t == 0.3
    np.testing.assert_array_equal(found.record_ts, [0.3])
    np.testing.assert_array_equal(found.ts, [0.3])


def test_descent_in_half_precision_takes_the_steps_that_are_said():
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16) if eqx.is_inexact_array(a) else a, NET)
    found = nth.descent(half, DATA, "sgd:0.1", nth.Run([1.1], solver=Auto(rtol=0.1)))
    assert found.stats.steps == 11


def test_modified_flow_of_a_rate_that_looks_the_same_is_another_run(tmp_path):
    first, second = nth.Modified(0.12345674), nth.Modified(0.12345671)
    for curve in (first, second):
        nth.compare(NET, DATA, (curve,), nth.Run([0.1], checkpoint=tmp_path, record=()))
    assert len(list(tmp_path.glob("modified*"))) == 2


def test_modified_flow_of_a_gradient_without_derivative_is_refused_at_once():
    @jax.custom_vjp
    def act(z):
        return jnp.tanh(z)

    def slope(z):
        return 1 - np.tanh(z) ** 2

    def back(z, g):
        shape = jax.ShapeDtypeStruct(z.shape, z.dtype)
        return (jax.pure_callback(slope, shape, z, vmap_method="sequential") * g,)

    act.defvjp(lambda z: (act(z), z), back)
    net = eqx.nn.MLP(4, "scalar", 3, 1, activation=act, key=jr.key(0))
    with pytest.raises(ValueError, match="`model` must allow second derivatives for the modified"):
        nth.compare(net, DATA, (nth.Modified(0.1),), nth.Run([0.1], record=()), certify=False)


def test_checkpoint_of_another_optimiser_is_refused(tmp_path):
    nth.descent(NET, DATA, optax.adam(0.05), nth.Run([0.3], checkpoint=tmp_path), rate=0.1)
    with pytest.raises(ValueError, match="is not: another optimiser"):
        nth.descent(NET, DATA, optax.adam(0.06), nth.Run([0.3], checkpoint=tmp_path), rate=0.1)


def test_optimiser_made_anew_compiles_nothing_twice(caplog):
    def run():
        return nth.descent(NET, DATA, optax.adam(0.02), [0.4], rate=0.1)

    told = []
    for _ in range(2):
        caplog.clear()
        with jax.log_compiles():
            run()
        told.append([r for r in caplog.records if "Compiling jit(descend)" in r.getMessage()])
    assert len(told[0]) == 1
    assert not told[1]


def test_compared_descents_are_saved_and_computed_again(tmp_path):
    curves = (2, nth.Descent("sgd:0.1"), nth.Descent("adam:0.01"), nth.Modified(0.1))
    curves += (nth.Descent(optax.sgd(0.1, momentum=0.5), 0.2, name="momentum"),)
    study = nth.compare(NETWORKS["mlp of three outputs"], vector_data(), curves, [0.5, 1.0])
    assert list(study.curves) == [
        "order 2", "descent sgd:0.1", "descent adam:0.01", "momentum", "modified 0.1"
    ]  # fmt: skip
    study.save(tmp_path / "study.nc")
    loaded = nth.Comparison.load(tmp_path / "study.nc", model=NETWORKS["mlp of three outputs"])
    np.testing.assert_array_equal(loaded.curves["momentum"].f, study.curves["momentum"].f)
    with pytest.raises(ValueError, match="of momentum a file keeps the numbers only"):
        nth.rerun(loaded)
    study = nth.compare(NET, DATA, curves[1:4], [0.5, 1.0])
    study.save(tmp_path / "study.nc")
    again = nth.rerun(nth.Comparison.load(tmp_path / "study.nc"))
    for name, curve in study.curves.items():
        np.testing.assert_array_equal(curve.f, again.curves[name].f)
        np.testing.assert_array_equal(curve.records["kernel"], again.curves[name].records["kernel"])


def vector_data():
    return nth.Dataset(X, jnp.stack([Y, -Y, Y**2], axis=1))


def test_observables_of_parameters_are_recorded_along_descent():
    run = nth.Run([0.0, 1.0], record=("movement", "sharpness", "kernel"))
    study = nth.compare(NET, DATA, (nth.Descent("sgd:0.1"), nth.Modified(0.1)), run)
    records = [study.exact.records, *(curve.records for curve in study.curves.values())]
    assert len({tuple(sorted(each)) for each in records}) == 1
    for each in records[1:]:
        np.testing.assert_allclose(each["sharpness"][0], records[0]["sharpness"][0], rtol=1e-8)


def no_such_thing(params):
    raise KeyError(type(params).__name__)


MISTAKES = {
    "no optimiser": (
        (0.1, {}), r"`optimiser` must be a gradient transformation of Optax, .*, but is 0\.1\.",
    ),
    "no word": (
        ("SGD:0.1", {}), r'`optimiser` must be a word such as "sgd:0\.1", .*, but is .SGD:0\.1.\.',
    ),
    "no rate": ((optax.adam(0.1), {}), r"`rate` must be the time that one step .* is None\."),
    "another rate": (
        (optax.sgd(0.1), {"rate": 0.2}), r"`rate` must be that of .* at 0\.1, .*0\.2\.",
    ),
    "negative rate": ((optax.adam(0.1), {"rate": -1.0}), r"`rate` must be a positive .*-1\.0"),
    "large batch": (
        ("sgd:0.1", {"batch_size": 8, "key": jr.key(0)}),
        r"`batch_size` must be at most the number of training points, 7, but is 8\.",
    ),
    "no key": (
        ("sgd:0.1", {"batch_size": 2}), r"`key` must be a random key for batches, .* None\.",
    ),
    "needless key": (
        ("sgd:0.1", {"key": jr.key(0)}), r"`key` must be None where no `batch_size` is given",
    ),
    "step of another shape": (
        (optax.stateless(lambda updates, params: (updates,)), {"rate": 0.1}),
        r"`optimiser` must (return a step of the shapes|make steps of the model's) .*",
    ),
    "failing": (
        (optax.stateless(lambda updates, params: no_such_thing(params)), {"rate": 0.1}),
        r"`optimiser` must make steps of the model's parameters, but fails on them: .*",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_one_sentence(mistake):
    (optimiser, settings), words = MISTAKES[mistake]
    with pytest.raises(ValueError, match=words) as error:
        nth.descent(NET, DATA, optimiser, [1.0], **settings)
    assert re.fullmatch(r"[^\n]*\.", str(error.value))


def test_modified_flow_of_no_rate_is_refused():
    with pytest.raises(ValueError, match=r"`rate` must be the time that one .*, but is None\."):
        nth.Modified(None)
