"""Networks in the parametrisations of the field, beside their own definitions at unit rate."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import nthsim as nth
from nthsim.models import FCN, ResNet
from nthsim.models.parametrisation import PARAMETRISATIONS
from nthsim.scaling.predictions import drift_exponent, form, kernel_exponent, mean_exponent
from nthsim.solvers import Explicit

X = jr.normal(jr.key(1), (3, 4)) / 2
DATA = nth.Dataset(X, jnp.array([0.5, -1.0, 0.3]), X[:2] + 0.1)
RUN = nth.Run([0.0, 0.5, 1.0], solver=Explicit(rtol=1e-10))
WIDTH = 5


def net(kind, parametrisation, *, depth=2, **further):
    return kind(4, WIDTH, depth, parametrisation=parametrisation, key=jr.key(0), **further)


class AsPublished(eqx.Module):
    """What papers write, in weights that all train at unit rate, without any factor in layers.

    "standard" has entries of variance 1/m behind the first layer. "mup" (Yang & Hu 2021, table 1)
    has such everywhere, with the factors sqrt(m) before the first layer and 1/sqrt(m) before the
    readout.
    """

    weights: list
    before: tuple[float, float] = eqx.field(static=True)
    branch: float | None = eqx.field(static=True)

    def __call__(self, x):
        first, *hidden, last = self.weights
        h = jnp.tanh(self.before[0] * first @ x)
        for w in hidden:
            h = jnp.tanh(w @ h) if self.branch is None else h + self.branch * jnp.tanh(w @ h)
        return self.before[1] * jnp.dot(last, h)


def as_published(model):
    first, *hidden = (layer.weight for layer in model.layers)
    root, last = np.sqrt(WIDTH), model.readout.weight[0]
    behind = [w / root for w in (*hidden, last)]
    branch = None if isinstance(model, FCN) else model.c_res / model.depth**model.depth_exponent
    if model.parametrisation == "standard":
        return AsPublished([first, *behind], (1.0, 1.0), branch)
    return AsPublished([first / root, *behind], (float(root), float(1 / root)), branch)


@pytest.mark.parametrize("parametrisation", ["standard", "mup"])
@pytest.mark.parametrize("kind", [FCN, ResNet])
def test_training_and_kernels_are_those_of_the_published_form_at_unit_rate(kind, parametrisation):
    further: Any = {} if kind is FCN else {"c_sigma": 1.0, "c_res": 0.7, "depth_exponent": 0.5}
    ours = net(kind, parametrisation, **further)
    theirs = as_published(ours)
    flow, other = (nth.gradient_flow(each, DATA, RUN, progress=False) for each in (ours, theirs))
    np.testing.assert_allclose(flow.f, other.f, rtol=1e-8, atol=1e-10)
    assert np.abs(flow.f[-1] - flow.f[0]).max() > 1e-2
    for order in (2, 3, 4):
        found, expected = (nth.kernel(each, X, order, progress=False) for each in (ours, theirs))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    one, two = (nth.hierarchy(each, DATA, 3, RUN, progress=False) for each in (ours, theirs))
    np.testing.assert_allclose(one.f, two.f, rtol=1e-8, atol=1e-10)


def test_mean_field_is_a_mean_over_neurons_whose_time_is_scaled_by_the_width():
    class Mean(eqx.Module):
        W: jax.Array
        a: jax.Array

        def __call__(self, x):
            return jnp.mean(self.a * jnp.tanh(self.W @ x))

    ours = net(FCN, "mean-field", depth=1)
    theirs = Mean(ours.layers[0].weight, ours.readout.weight[0])
    flow = nth.gradient_flow(ours, DATA, RUN, progress=False)
    other = nth.gradient_flow(theirs, DATA, RUN, rates=float(WIDTH), progress=False)
    np.testing.assert_allclose(flow.f, other.f, rtol=1e-8, atol=1e-10)


def test_kernels_of_mup_are_those_of_ntk_times_a_power_of_the_width():
    for order in (2, 3, 4):
        ntk, mup = (nth.kernel(net(FCN, name), X, order, progress=False) for name in ("ntk", "mup"))
        scaled = WIDTH ** (order / 2 - 1) * ntk
        np.testing.assert_allclose(mup, scaled, rtol=0, atol=1e-13 * np.abs(scaled).max())


def test_rates_are_a_tree_of_numbers_for_layers_that_parts_of_can_be_changed():
    model = net(ResNet, "standard", depth=3)
    rates = model.rates()
    assert [*rates.layers, rates.readout] == [1.0, 5.0, 5.0, 5.0]
    still = eqx.tree_at(lambda r: r.readout, rates, 0.0)
    flow = nth.gradient_flow(model, DATA, RUN, rates=still, progress=False)
    np.testing.assert_array_equal(flow.model.readout.weight, model.readout.weight)
    assert not np.array_equal(flow.model.layers[0].weight, model.layers[0].weight)


def test_rates_that_are_given_count_instead_and_those_within_another_module_are_known():
    model = net(FCN, "mup")
    gradients = jax.vmap(jax.grad(lambda m, x: m(x)), (None, 0))(model, X)
    rows = np.concatenate([np.reshape(g, (3, -1)) for g in jax.tree.leaves(gradients)], axis=1)
    found = nth.kernel(model, X, 2, rates=1.0, progress=False)
    np.testing.assert_allclose(found, rows @ rows.T, rtol=1e-12)

    class Around(eqx.Module):
        inner: FCN

        def __call__(self, x):
            return self.inner(-x)

    one = nth.kernel(Around(model), -X, 2, progress=False)
    np.testing.assert_allclose(one, WIDTH * rows @ rows.T, rtol=1e-12)


def test_comparison_from_a_file_trains_at_the_same_rates_again(tmp_path):
    model = net(FCN, "mup")
    for rates, words in ((None, "FCN, width 5, depth 2, tanh, mup"), (1.0, "mup")):
        study = nth.compare(model, DATA, (2,), RUN, rates=rates, certify=False, progress=False)
        study.save(tmp_path / "study.nc")
        again = nth.rerun(nth.Comparison.load(tmp_path / "study.nc"), progress=False)
        np.testing.assert_array_equal(again.exact.f, study.exact.f)
        flow = nth.gradient_flow(model, DATA, RUN, rates=rates, progress=False)
        np.testing.assert_array_equal(study.exact.f, flow.f)
        assert words in str(study)
        assert ("trained at rates 5" in str(study)) == (rates is None)


def test_limits_weigh_layers_by_the_rates_of_the_parametrisation():
    start = nth.Run([0.0], record=("kernel",))
    further = {"c_sigma": 1.0, "c_res": 0.7, "depth_exponent": 0.5}
    for name, rates in (("mup", (5.0,) * 4), ("standard", (1.0, 5.0, 5.0, 5.0))):
        model = net(ResNet, name, depth=3, **further)
        limit = nth.limit_flow(model, DATA, start, progress=False)
        kernel = nth.limit_kernel(
            "resnet", X, depth=3, c_sigma=1.0, c_res=0.7 * np.sqrt(3), rates=rates
        )
        scale = 1 / WIDTH if name == "mup" else 1.0
        assert limit.kernel is not None
        np.testing.assert_allclose(limit.kernel[0][:3], scale * kernel, rtol=1e-12)


def test_residual_blocks_are_divided_by_a_power_of_the_depth():
    root = net(ResNet, "ntk", depth=4, c_res=0.5, depth_exponent=0.5)
    whole = net(ResNet, "ntk", depth=4, c_res=1.0)
    np.testing.assert_allclose(jax.vmap(root)(X), jax.vmap(whole)(X), rtol=1e-14)


def test_exponents_are_known_for_ntk_and_mup_and_none_for_standard():
    draw = lambda name: net(FCN, name, depth=1, activation="erf")  # noqa: E731
    assert form(draw("standard"), WIDTH, jr.key(0)) is None
    assert [kernel_exponent(r, "mup") for r in range(2, 7)] == [0, -0.5, 0, -0.5, 0]
    assert [mean_exponent(r, "mup") for r in range(2, 5)] == [0, -1, 0]
    assert (drift_exponent(), drift_exponent("mup")) == (-1, 0)
    families = {
        name: lambda m, key, name=name: FCN(4, m, 1, parametrisation=name, key=key)
        for name in PARAMETRISATIONS
    }
    study = nth.width_scaling(families, DATA, (3, 4), 2, (2,), RUN.ts, progress=False)
    known = dict(zip(study.families, study.predicted, strict=True))
    assert known == {name: None if name == "standard" else name for name in families}
    by = {name: study.quantities(name) for name in families}
    assert [by[name]["drift"].predicted for name in families] == [-1, None, 0, 0]
    assert [by[name]["rms K^(3)"].predicted for name in families] == [-1, None, -0.5, -0.5]
    assert [by[name]["f, p = 2"].predicted for name in families] == [-1, None, 0, 0]
    assert "no prediction for standard" in str(study)


@pytest.mark.parametrize("name", ["NTK", "muP", ""])
def test_no_other_parametrisation_is_taken(name):
    with pytest.raises(ValueError, match="`parametrisation` must be one of 'ntk', 'standard', "):
        net(FCN, name)
    with pytest.raises(ValueError, match="`depth_exponent` must be a finite non-negative number"):
        net(ResNet, "ntk", depth_exponent=-1.0)
