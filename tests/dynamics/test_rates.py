"""Arrays that train at rates of their own, and some not at all."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.integrate import solve_ivp

import nthsim as nth
from nthsim.models import FCN, ResNet
from nthsim.network.rates import listed
from nthsim.network.trained import TiedWeightsWarning
from nthsim.scaling.population import Drawn, population
from nthsim.solvers import Explicit

X = jr.normal(jr.key(1), (3, 4))
TS, TIGHT = np.array([0.0, 1.0, 2.0]), Explicit(rtol=1e-10)


def convolution():
    """Two outputs, biases, and a convolution called at three positions."""
    first, last = jr.split(jr.key(4))
    layers = [
        eqx.nn.Lambda(lambda x: x[None]),
        eqx.nn.Conv1d(1, 2, 2, key=first),
        eqx.nn.Lambda(jnp.tanh),
        eqx.nn.Lambda(jnp.ravel),
        eqx.nn.Linear(6, 2, key=last),
    ]
    return eqx.nn.Sequential(layers)


NETS = {
    "fcn": FCN(4, 5, 2, key=jr.key(0)),
    "resnet": ResNet(4, 5, 2, key=jr.key(0)),
    "mlp": eqx.nn.MLP(4, "scalar", 3, 1, activation=jnp.tanh, key=jr.key(3)),
    "convolution": convolution(),
}


def points(net):
    return nth.Dataset(X, jr.normal(jr.key(2), (3, *jax.eval_shape(net, X[0]).shape)), X[:2] + 0.1)


def drawn_rates(net, still=None):
    """One for each array; 0 for the one whose place is `still`."""
    leaves, tree = jax.tree.flatten(eqx.filter(net, eqx.is_inexact_array))
    rates = [float(jr.uniform(jr.key(i), minval=0.3, maxval=3)) for i in range(len(leaves))]
    return jax.tree.unflatten(tree, [0.0 if i == still else r for i, r in enumerate(rates)])


class Written(eqx.Module):
    """The same network, written in v with w = sqrt(D) v."""

    v: eqx.Module
    static: eqx.Module = eqx.field(static=True)
    rates: tuple[float, ...] = eqx.field(static=True)

    def __call__(self, x):
        leaves, tree = jax.tree.flatten(self.v)
        pairs = zip(leaves, self.rates, strict=True)
        w = jax.tree.unflatten(tree, [np.sqrt(rate) * leaf for leaf, rate in pairs])
        return eqx.combine(w, self.static)(x)


def written(net, rates):
    theta, static = eqx.partition(net, eqx.is_inexact_array)
    v = jax.tree.map(lambda w, rate: w / np.sqrt(rate), theta, rates)
    return Written(v, static, tuple(jax.tree.leaves(rates)))


@pytest.mark.parametrize("method", ["nested", "structured"])
@pytest.mark.parametrize("name", NETS)
def test_kernels_are_those_of_the_network_in_units_of_its_rates(name, method):
    net, rates = NETS[name], drawn_rates(NETS[name])
    other = written(net, rates)
    for order in (2, 3, 4):
        found = nth.kernel(net, X, order, rates=rates, method=method, progress=False)
        expected = nth.kernel(other, X, order, method="nested", progress=False)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * scale)


def solved(net, rates, data):
    """SciPy's own flow, theta' = -D grad L, at the same times."""
    theta, static = eqx.partition(net, eqx.is_inexact_array)
    flat, back = ravel_pytree(theta)
    D, _ = ravel_pytree(jax.tree.map(lambda a, rate: jnp.full(a.shape, rate), theta, rates))
    f = lambda v: jax.vmap(eqx.combine(back(v), static))(data.x)  # noqa: E731
    risk = lambda v: 0.5 * jnp.sum((f(v) - data.y) ** 2) / len(data.x)  # noqa: E731
    field = jax.jit(lambda v: -D * jax.grad(risk)(v))
    way = solve_ivp(
        lambda _, v: np.asarray(field(v)), (0, 2), flat, t_eval=TS, rtol=1e-10, atol=1e-12
    )
    return np.stack([f(v) for v in way.y.T])


@pytest.mark.parametrize(
    ("name", "still"), [("fcn", None), ("mlp", 0), ("mlp", 1), ("convolution", 1)]
)
def test_flow_and_truncations_train_at_their_rates_and_leave_the_rest_as_it_is(name, still):
    net, data = NETS[name], points(NETS[name])
    rates, run = drawn_rates(net, still), nth.Run(TS, solver=TIGHT)
    flow = nth.gradient_flow(net, data, run, rates=rates, progress=False)
    np.testing.assert_allclose(flow.f, solved(net, rates, data), rtol=1e-7, atol=1e-9)
    before, after = (jax.tree.leaves(eqx.filter(m, eqx.is_array)) for m in (net, flow.model))
    kept = [bool(np.array_equal(a, b)) for a, b in zip(before, after, strict=True)]
    assert kept == [i == still for i in range(len(kept))]
    for order in (3, 4):
        one, other = (
            nth.hierarchy(net, data, order, run, method=method, rates=rates, progress=False)
            for method in ("dense", "series")
        )
        np.testing.assert_allclose(one.f, other.f, rtol=1e-9, atol=1e-10)


def test_all_at_twice_the_rate_make_kernels_of_order_three_four_times_as_large():
    net = NETS["mlp"]
    doubled = nth.kernel(net, X, 3, rates=2.0, progress=False)
    np.testing.assert_allclose(doubled, 4 * nth.kernel(net, X, 3, progress=False), rtol=1e-12)


def test_array_that_leaves_its_precision_by_its_rate_is_refused():
    net = jax.tree.map(lambda a: 1e4 * a.astype(jnp.float16), NETS["mlp"].layers[0])
    with pytest.raises(ValueError, match=r"`rates` must leave arrays finite .* not in float16"):
        nth.kernel(net, X.astype(jnp.float16), 2, rates=1e-4, progress=False)


def test_array_in_two_places_is_told_where_one_of_them_stays():
    layer = eqx.nn.Linear(4, 4, key=jr.key(0))
    net = eqx.nn.Sequential([layer, layer])
    rates = eqx.tree_at(lambda n: n.layers[0], jax.tree.map(lambda _: 1.0, net), False)
    with pytest.warns(TiedWeightsWarning):
        nth.kernel(net, X, 2, rates=rates, progress=False)


def test_array_at_rate_zero_is_a_constant_and_no_parameter():
    net, data = NETS["mlp"], points(NETS["mlp"])
    rates = eqx.tree_at(lambda r: r.layers[0].weight, jax.tree.map(lambda _: True, net), False)
    listed = nth.parameters(net, rates=rates)
    assert listed.total == nth.parameters(net).total - 12
    assert ".layers[0].weight (3 x 4): its rate is 0" in str(listed)
    whole, part = (nth.plan(net, data, (2,), TS, rates=r).size.parameters for r in (None, rates))
    assert part == whole - 12


def test_comparison_with_rates_is_saved_and_computed_again(tmp_path):
    net, data = NETS["fcn"], points(NETS["fcn"])
    rates = drawn_rates(net, 0)
    study = nth.compare(net, data, (2, 3), TS, rates=rates, progress=False)
    assert study.certificate is not None
    assert not study.certificate.broken
    study.save(tmp_path / "a.nc")
    again = nth.rerun(nth.Comparison.load(tmp_path / "a.nc"), progress=False)
    np.testing.assert_array_equal(again.exact.f, study.exact.f)
    assert "; trained at rates 0, " in str(again).splitlines()[0]
    plain = nth.compare(net, data, (2,), TS, progress=False)
    assert np.abs(plain.exact.f - study.exact.f).max() > 0.01


def test_bounds_taylor_and_perturbation_follow_the_rates():
    net, data = NETS["fcn"], points(NETS["fcn"])
    rates, run = drawn_rates(net, 1), nth.Run([0.0, 0.05], solver=TIGHT)
    curves = (2, nth.Taylor(1), nth.Perturbation(), nth.LimitKernel())
    study = nth.compare(net, data, curves, run, rates=rates, bounds=True, progress=False)
    linear, order = study.curves["Taylor 1"], study.curves["order 2"]
    np.testing.assert_allclose(linear.f, order.f, rtol=1e-8)
    assert study.bounds is not None
    assert np.abs(order.f - study.exact.f)[-1].max() <= study.bounds.f_bound[-1]
    near = np.abs(study.curves["perturbation"].f - study.exact.f)[-1].max()
    assert near < 0.1 * np.abs(order.f - study.exact.f)[-1].max()


@pytest.mark.parametrize("kind", ["fcn", "resnet"])
def test_limit_kernel_weighs_layers_by_their_rates(kind):
    make = {"fcn": FCN, "resnet": ResNet}[kind]
    rates = (0.5, 0.0, 2.0)
    limit = nth.limit_kernel(kind, X, depth=2, rates=rates)

    def finite(key):
        net = make(4, 800, 2, key=key)
        weights = lambda n: [n.layers[0].weight, n.layers[1].weight, n.readout.weight]  # noqa: E731
        tree = eqx.tree_at(weights, jax.tree.map(lambda _: True, net), rates)
        return nth.kernel(net, X, 2, rates=tree, method="nested", progress=False)

    kernels = np.stack([finite(jr.key(i)) for i in range(6)])
    error = kernels.std(axis=0) / np.sqrt(6)
    assert np.all(np.abs(kernels.mean(axis=0) - limit) < 5 * error + 1e-3)
    full = nth.limit_kernel(kind, X, depth=2)
    parts = [nth.limit_kernel(kind, X, depth=2, rates=row) for row in np.eye(3)]
    np.testing.assert_allclose(sum(parts), full, rtol=1e-12)


def test_members_of_a_study_train_at_their_rates():
    data = points(NETS["mlp"])
    nets = [eqx.nn.MLP(4, "scalar", 3, 1, activation=jnp.tanh, key=jr.key(i)) for i in range(2)]
    rates = eqx.tree_at(lambda r: r.layers[0], jax.tree.map(lambda _: 2.0, nets[0]), False)
    members = [Drawn(net, rates) for net in nets]
    flow = population(members, data, nth.squared_error).flow(TS, TIGHT)
    for i, net in enumerate(nets):
        alone = nth.gradient_flow(net, data, nth.Run(TS, solver=TIGHT), rates=rates, progress=False)
        np.testing.assert_allclose(flow.records["f"][:, i, :3], alone.f, rtol=1e-8)

    def maker(width, key):
        net = eqx.nn.MLP(4, "scalar", width, 1, activation=jnp.tanh, key=key)
        return net, eqx.tree_at(lambda r: r.layers[0], jax.tree.map(lambda _: 2.0, net), False)

    study = nth.width_scaling(maker, data, (3,), 2, (2,), TS, progress=False)
    np.testing.assert_allclose(
        study.initial_f[0, 0], [[net(x) for x in X] for net in nets], rtol=1e-12
    )


@pytest.mark.parametrize(
    ("rates", "sentence"),
    [
        (-1.0, "`rates` must hold numbers of at least 0, but holds -1.0"),
        (np.nan, "`rates` must hold numbers of at least 0, but holds nan"),
        ("fast", "`rates` must hold numbers of at least 0, but holds 'fast'"),
        ([1.0, 2.0], "`rates` must be a number or a tree of numbers that is a prefix"),
        (False, "`rates` must let at least one array of the model train"),
        (10**400, "`rates` must hold numbers of at least 0"),
        (1j, "`rates` must hold numbers of at least 0, but holds 1j"),
        (np.str_("2"), "`rates` must hold numbers of at least 0"),
        (1e-320, "`rates` must be 0 or from 2e-308 to 2e[+]308 in float64, but one is 9.99"),
        (jax.tree.map(lambda _: None, NETS["fcn"]), "`rates` must hold numbers of .* holds None"),
    ],
)
def test_mistakes_with_rates_are_named(rates, sentence):
    net, data = NETS["fcn"], points(NETS["fcn"])
    with pytest.raises(ValueError, match=sentence):
        nth.gradient_flow(net, data, TS, rates=rates, progress=False)
    with pytest.raises(ValueError, match=sentence):
        nth.compare(net, data, (2,), TS, rates=rates, progress=False)


def test_rates_of_a_model_with_a_function_of_ones_own_are_those_of_its_arrays():
    class Own(eqx.Module):
        layer: eqx.nn.Linear
        act: Callable = eqx.field(static=True)

        def __call__(self, x):
            return self.act(self.layer(x))

    net = Own(eqx.nn.Linear(4, "scalar", key=jr.key(0)), lambda z: jnp.tanh(z))
    rates = eqx.tree_at(lambda n: (n.layer.weight, n.layer.bias), net, (2.0, np.bool_(False)))
    assert listed(rates, net) == (2.0, 0.0)
    mlp = NETS["mlp"]  # of which two leaves are activations
    arrays, rest = eqx.partition(mlp, eqx.is_inexact_array)
    assert listed(eqx.combine(jax.tree.map(lambda _: 3.0, arrays), rest), mlp) == (3.0,) * 4
    found = nth.kernel(net, X, 2, rates=rates, progress=False)
    weights = jax.vmap(jax.grad(lambda n, x: n(x)), (None, 0))(net, X).layer.weight[:, 0]
    np.testing.assert_allclose(found, 2 * weights @ weights.T, rtol=1e-12)
    with pytest.raises(ValueError, match="but hold one that is traced here"):
        jax.jit(lambda rate: nth.kernel(net, X, 2, rates=rate, progress=False))(1.0)


def test_rates_of_one_change_nothing():
    net, data = NETS["mlp"], points(NETS["mlp"])
    ones = jax.tree.map(lambda _: 1.0, net)
    plain, same = (
        nth.gradient_flow(net, data, TS, rates=rates, progress=False) for rates in (None, ones)
    )
    np.testing.assert_array_equal(plain.f, same.f)


def test_checkpoint_of_other_rates_is_refused(tmp_path):
    net, data = NETS["mlp"], points(NETS["mlp"])
    run = nth.Run(TS, checkpoint=tmp_path)
    nth.gradient_flow(net, data, run, rates=2.0, progress=False)
    with pytest.raises(ValueError, match="another model"):
        nth.gradient_flow(net, data, run, rates=3.0, progress=False)


def test_limit_kernel_refuses_rates_of_other_layers():
    with pytest.raises(ValueError, match="`rates` must be 3 numbers of at least 0, one for each"):
        nth.limit_kernel("fcn", X, depth=2, rates=(1.0, 1.0))
