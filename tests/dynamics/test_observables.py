"""What nthsim records along runs, beside dense linear algebra on the same networks."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import nthsim as nth
from nthsim.models import FCN, ResNet

X = jr.normal(jr.key(1), (5, 3))
DATA = nth.Dataset(X, jr.normal(jr.key(2), (5, 2)), X[:2] + 0.1)
NET = eqx.nn.MLP(3, 2, 11, 1, activation=jnp.tanh, key=jr.key(0))
TS = np.array([0.0, 0.5, 2.0])
ALL = ("kernel", "spectrum", "alignment", "centred_alignment", "effective_rank")
ALL += ("movement", "sharpness:3")


@pytest.fixture(scope="module")
def study():
    run = nth.Run(TS, record=ALL)
    return nth.compare(NET, DATA, (3,), run, progress=False)


def matrices(trajectory):
    return [(K + K.T) / 2 for K in trajectory.kernel.reshape(len(TS), 10, 10)]


@pytest.mark.parametrize("of", ["exact", "order 3"])
def test_kernel_is_described_as_by_dense_linear_algebra(study, of):
    run = study.exact if of == "exact" else study.curve(3)
    y, H = np.asarray(DATA.y), np.eye(5) - 1 / 5
    for i, K in enumerate(matrices(run)):
        values = np.linalg.eigvalsh(K)[::-1]
        np.testing.assert_allclose(run.records["spectrum"][i], values, rtol=1e-10, atol=1e-12)
        parts = np.maximum(values, 0) / np.maximum(values, 0).sum()
        entropy = -sum(p * np.log(p) for p in parts if p > 0)
        np.testing.assert_allclose(run.records["effective_rank"][i], np.exp(entropy), rtol=1e-8)
        centre = np.kron(H, np.eye(2))
        for name, M, t in (("alignment", K, y), ("centred_alignment", centre @ K @ centre, H @ y)):
            t = t.ravel()
            expected = np.sum(M * np.outer(t, t)) / np.linalg.norm(M) / np.linalg.norm(t) ** 2
            np.testing.assert_allclose(run.records[name][i], expected, rtol=1e-10)


def test_sharpness_is_that_of_the_hessian(study):
    after = study.exact.model
    for i, model in ((0, NET), (2, after)):
        theta, static = eqx.partition(model, eqx.is_inexact_array)
        flat, back = ravel_pytree(theta)
        f = lambda v, back=back, static=static: jax.vmap(eqx.combine(back(v), static))(X)  # noqa: E731
        risk = lambda v, f=f: 0.5 * jnp.sum((f(v) - DATA.y) ** 2) / 5  # noqa: E731
        expected = np.linalg.eigvalsh(jax.hessian(risk)(flat))[::-1]
        np.testing.assert_allclose(study.exact.records["sharpness"][i], expected[:3], rtol=1e-8)


@pytest.mark.parametrize("rates", [1.0, [0.7, 2.0, 0.0, 1.5]])
def test_gradient_covariance_is_that_of_all_gradients(rates):
    theta, static = eqx.partition(NET, eqx.is_inexact_array)
    leaves, structure = jax.tree.flatten(theta)
    factors = rates if isinstance(rates, list) else [rates] * len(leaves)
    tree = jax.tree.unflatten(structure, factors)
    run = nth.Run([0.0], record=("gradient_covariance:7",))
    found = nth.gradient_flow(NET, DATA, run, rates=tree).records["gradient_covariance"][0]

    loss = lambda v, x, y: 0.5 * jnp.sum((eqx.combine(v, static)(x) - y) ** 2)  # noqa: E731
    gradients = jax.vmap(jax.grad(loss), (None, 0, 0))(theta, X, DATA.y)
    parts = zip(jax.tree.leaves(gradients), factors, strict=True)
    g = np.concatenate([np.sqrt(rate) * np.reshape(a, (5, -1)) for a, rate in parts], axis=1)
    expected = np.linalg.eigvalsh(np.cov(g.T, bias=True))[::-1][:5]
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-12)


def test_largest_eigenvalues_of_a_large_kernel_are_had_without_it():
    x = jr.normal(jr.key(3), (1100, 2))
    net = FCN(2, 4, 1, key=jr.key(0))
    run = nth.Run([0.0], record=("kernel", "spectrum:3"))
    flow = nth.gradient_flow(net, nth.Dataset(x, x[:, 0]), run, progress=False)
    assert flow.kernel is not None
    expected = np.linalg.eigvalsh(flow.kernel[0])[::-1][:3]
    np.testing.assert_allclose(flow.records["spectrum"][0], expected, rtol=1e-8)


@pytest.mark.parametrize("rates", [None, 2.0])
def test_movement_is_that_of_the_arrays_of_the_module(rates):
    net = FCN(3, 5, 1, parametrisation="mup", key=jr.key(0))
    data = nth.Dataset(X, X[:, 0])
    flow = nth.gradient_flow(
        net, data, nth.Run(TS, record=("movement",)), rates=rates, progress=False
    )
    risk = lambda net: 0.5 * jnp.mean((jax.vmap(net)(X) - X[:, 0]) ** 2)  # noqa: E731
    now, start, slope = flow.model, net, eqx.filter_grad(risk)(flow.model)
    for i, of in enumerate((lambda net: net.layers[0].weight, lambda net: net.readout.weight)):
        D = 5.0 if rates is None else rates
        expected = {"norm": of(now), "distance": of(now) - of(start), "speed": D * of(slope)}
        for name, array in expected.items():
            size = np.linalg.norm(array)
            np.testing.assert_allclose(flow.records[name][-1, i], size, rtol=1e-10)
    assert flow.labels["norm"].coordinates["array"].tolist() == [
        "layers[0].weight",
        "readout.weight",
    ]


def test_what_is_recorded_changes_nothing_and_comes_back_from_a_file(study, tmp_path):
    plain = nth.gradient_flow(NET, DATA, TS, progress=False)
    np.testing.assert_array_equal(study.exact.f, plain.f)
    study.save(tmp_path / "study.nc")
    loaded = nth.Comparison.load(tmp_path / "study.nc", model=NET)
    assert tuple(each.word for each in loaded.asked.run.record or ()) == ALL
    for name, values in study.exact.records.items():
        np.testing.assert_array_equal(loaded.exact.records[name], values)
    assert "movement" not in study.curve(3).records
    assert "sharpness: " in str(study)
    titles = {ax.get_title() for ax in study.plot().axes}
    assert {"alignment", "sharpness of exact flow", "distance of exact flow"} <= titles


def test_alignment_is_one_where_targets_are_all_that_the_kernel_knows_and_none_for_zeros():
    net, x = (
        eqx.nn.Linear(2, "scalar", use_bias=False, key=jr.key(0)),
        np.array([[1.0, 0], [-2, 0]]),
    )
    for y, expected in ((x[:, 0], 1.0), (0 * x[:, 0], np.nan)):
        run = nth.Run([0.0], record=("alignment", "effective_rank", "spectrum:9"))
        flow = nth.gradient_flow(net, nth.Dataset(x, y), run, progress=False)
        np.testing.assert_allclose(flow.records["alignment"], [expected], rtol=1e-14)
        np.testing.assert_allclose(flow.records["effective_rank"], [1.0], rtol=1e-12)
        np.testing.assert_allclose(flow.records["spectrum"], [[5.0, 0.0]], atol=1e-14)


@pytest.mark.parametrize("word", ["spectra", "spectrum:", "spectrum:-1", "alignment:2", "kernel:3"])
def test_words_that_ask_for_nothing_are_refused(word):
    with pytest.raises(ValueError, match=r'`record` must hold "kernel", "spectrum", .*observables'):
        nth.Run(TS, record=(word,))


def test_numbers_below_one_are_refused():
    for wrong in (lambda: nth.Run(TS, record=("sharpness:0",)), lambda: nth.Spectrum(0)):
        with pytest.raises(ValueError, match="`top` must be an integer of at least 1"):
            wrong()
    with pytest.raises(ValueError, match="`record` must hold nothing of a network's parameters"):
        nth.perturbation(NET, DATA, nth.Run(TS, record=("movement",)), progress=False)


@pytest.mark.parametrize("count", [3, 5, 12, 25])
def test_eigenvalues_stand_there_as_often_as_each_is_one(count):
    x, keys = jr.normal(jr.key(0), (120, 16)), jr.split(jr.key(1))
    net = eqx.nn.Linear(16, 10, use_bias=False, key=keys[0])
    run = nth.Run([0.0], record=(f"spectrum:{count}", f"sharpness:{count}"))
    data = nth.Dataset(x, jr.normal(keys[1], (120, 10)))
    flow = nth.gradient_flow(net, data, run, progress=False)
    values = np.repeat(np.linalg.eigvalsh(x.T @ x)[::-1], 10)[:count]
    np.testing.assert_allclose(flow.records["spectrum"][0], values, rtol=1e-8)
    np.testing.assert_allclose(flow.records["sharpness"][0], values / 120, rtol=1e-8)


def test_sharpness_of_a_loss_that_does_not_move_is_zero():
    class Still(eqx.Module):
        w: jax.Array

        def __call__(self, x):
            return 0.0 * jnp.sum(self.w) * x[0]

    run = nth.Run([0.0], record=("sharpness",))
    flow = nth.gradient_flow(Still(jnp.ones(100)), nth.Dataset(np.eye(3), np.ones(3)), run)
    np.testing.assert_array_equal(flow.records["sharpness"], [0.0])


def test_alignment_of_what_is_constant_is_none():
    run = nth.Run([0.0, 1.0], record=("centred_alignment",))
    same_targets = nth.Dataset(X, jnp.full((5, 2), 0.1))
    same_inputs = nth.Dataset(jnp.tile(X[:1], (5, 1)), DATA.y)
    for data in (same_targets, same_inputs):
        flow = nth.gradient_flow(NET, data, run, progress=False)
        assert np.isnan(flow.records["centred_alignment"]).all()


CLASSES = nth.Dataset(X, [1.0, -1.0, 1.0, 1.0, -1.0])
ONE_HOT = nth.Dataset(X, jnp.eye(3)[jnp.array([0, 2, 1, 1, 0])], X[:2])
RESIDUAL = ResNet(3, 6, 4, c_res=1.5, key=jr.key(3))


@pytest.mark.parametrize(
    ("data", "out", "loss"),
    [
        (CLASSES, "scalar", nth.logistic),
        (CLASSES, "scalar", lambda f, y: jnp.exp(-y * f)),
        (ONE_HOT, 3, nth.softmax_cross_entropy),
    ],
)
def test_margin_is_that_of_the_outputs_of_every_dynamics(data, out, loss):
    net = eqx.nn.MLP(3, out, 5, 1, activation=jnp.tanh, key=jr.key(0))
    run, curves = nth.Run(TS, record=("margin",)), (2, nth.Taylor(1), nth.Descent("sgd:0.1"))
    study = nth.compare(net, data, curves, run, loss=loss, progress=False)
    for found in (study.exact, *study.curves.values()):
        if out == "scalar":
            expected = (found.f * np.asarray(data.y)).min(axis=1)
        else:
            own = np.asarray(data.y, bool)
            right = found.f[:, own]
            expected = (right - np.where(own, -np.inf, found.f).max(axis=2)).min(axis=1)
        np.testing.assert_array_equal(found.records["margin"], expected)


def test_margin_of_what_are_no_classes_is_not_recorded():
    run = nth.Run(TS, record=("margin",))
    with pytest.raises(nth.SolveError, match="margin needs targets that are classes"):
        nth.gradient_flow(NET, DATA, run, progress=False)


def test_features_are_those_of_the_network_of_the_moment(tmp_path):
    hidden = nth.Features("hidden", lambda net, x: jnp.tanh(net.layers[0](x)))
    data, run = nth.Dataset(X, X[:, :2]), nth.Run(TS, record=("kernel", hidden))
    study = nth.compare(NET, data, (2,), run, progress=False)
    expected = jnp.tanh(jax.vmap(study.exact.model.layers[0])(X))
    found = study.exact.records
    np.testing.assert_allclose(found["hidden"][-1], expected, rtol=1e-12)
    np.testing.assert_allclose(found["hidden_kernel"][-1], expected @ expected.T, rtol=1e-12)
    study.save(tmp_path / "study.nc")
    loaded = nth.Comparison.load(tmp_path / "study.nc", model=NET).exact
    np.testing.assert_array_equal(loaded.records["hidden_kernel"], found["hidden_kernel"])
    assert loaded.labels["hidden"].axes == ("point", "feature")


SCALE = [1.0]


def test_features_are_those_of_what_the_function_reads_now():
    run = nth.Run([0.0], record=(nth.Features("scaled", lambda net, x: SCALE[0] * net(x)),))
    data = nth.Dataset(X, X[:, :2])
    before = nth.gradient_flow(NET, data, run, progress=False).records["scaled"]
    SCALE[0] = 2.0
    after = nth.gradient_flow(NET, data, run, progress=False).records["scaled"]
    np.testing.assert_allclose(after, 2 * before, rtol=1e-12)


def test_blocks_are_those_of_all_samples_apart():
    data = nth.Dataset(X, X[:, 0])
    flow, own = (
        nth.gradient_flow(RESIDUAL, data, nth.Run(TS, record=(record,)), progress=False)
        for record in ("blocks", nth.Blocks(lambda net: net.steps()))
    )

    @jax.jit
    def apart(net, x, y):
        first, *blocks, last = net.steps()
        cosines, sizes, h = [], [], first(x)

        def rest(h, i):
            for block in blocks[i:]:
                h = block(h)
            return 0.5 * (last(h) - y) ** 2

        for i, block in enumerate(blocks):
            down, branch = -jax.grad(rest)(h, i), block(h) - h
            size = jnp.linalg.norm(branch)
            cosines.append(down @ branch / size / jnp.linalg.norm(down))
            sizes.append(size / jnp.linalg.norm(h))
            h = block(h)
        return jnp.array(cosines), jnp.array(sizes)

    pairs = zip(X, data.y, strict=True)
    cosines, sizes = np.mean([apart(flow.model, x, y) for x, y in pairs], axis=0)
    np.testing.assert_allclose(flow.records["block_cosine"][-1], cosines, rtol=1e-10)
    np.testing.assert_allclose(flow.records["block_size"][-1], sizes, rtol=1e-10)
    np.testing.assert_array_equal(own.records["block_cosine"], flow.records["block_cosine"])


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ("blocks", "blocks needs a network with a method `steps`"),
        (nth.Blocks(lambda net: net.layers), "steps that make other outputs than the network"),
        (nth.Blocks(lambda net: net.layers * 2), "one that returns another shape than it takes"),
        (nth.Features("a", lambda net, x: net.nothing), "a fails: 'MLP' object has no"),
    ],
)
def test_what_a_network_has_not_is_told_before_the_run(record, words):
    with pytest.raises(ValueError, match=f"^`record` must hold functions .*{words}"):
        nth.gradient_flow(NET, DATA, nth.Run(TS, record=(record,)), progress=False)


def semi(f, y):
    """A loss whose gradient is not that of its value."""
    return jnp.sum((f - 3 * jax.lax.stop_gradient(f[::-1])) ** 2) + jnp.sum((f - y) ** 2)


def test_second_derivatives_of_a_loss_without_them_are_refused():
    run = nth.Run(TS, record=("sharpness:2",))
    with pytest.raises(ValueError, match="sharpness fails: the loss has no Hessian, as its grad"):
        nth.gradient_flow(NET, DATA, run, loss=semi, progress=False)
    with pytest.raises(ValueError, match=r"^`loss` must have the gradient of its value for the mo"):
        nth.compare(NET, DATA, (nth.Modified(0.1),), TS, loss=semi, progress=False)
    nth.gradient_flow(NET, DATA, TS, loss=semi, progress=False)
