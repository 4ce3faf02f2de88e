"""Exponents are predicted for those networks that theory derives them for, and for no others."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from studies import points

import nthsim as nth
from nthsim.models import FCN, ResNet
from nthsim.scaling.predictions import error_exponent, form, kernel_exponent

KEY = jr.key(3)


def _fcn(width=5, key=KEY, **changes):
    return FCN(4, width, 2, key=key, **changes)


def _changed(where, change):
    return eqx.tree_at(where, _fcn(), replace_fn=change)


def test_predicted_exponents_are_those_of_the_theory():
    assert [kernel_exponent(r) for r in range(2, 7)] == [0, -1, -1, -2, -2]
    assert [error_exponent(p) for p in range(2, 6)] == [-1, -1, -2, -2]


@pytest.mark.parametrize("activation", ["tanh", jnp.tanh, "softplus", jax.nn.softplus, "identity"])
def test_networks_in_ntk_parametrisation_have_one_form_at_all_widths(activation):
    for kind in (FCN, ResNet):
        draw = lambda width, key, kind=kind: kind(4, width, 2, activation=activation, key=key)  # noqa: E731
        found = form(draw(5, KEY), 5, KEY)
        assert found is not None
        assert found == form(draw(7, jr.key(4)), 7, jr.key(4))


def test_forms_differ_with_what_a_network_is_made_of():
    assert form(_fcn(), 5, KEY) != form(_fcn(weight_scale=1.5), 5, KEY)


def test_rounding_to_another_precision_is_no_change():
    single = jax.tree.map(lambda w: w.astype(jnp.float32), _fcn())
    assert form(single, 5, KEY) == form(_fcn(), 5, KEY)


class Wider(FCN):
    """A class of one's own."""


@pytest.mark.parametrize(
    "model",
    [
        eqx.nn.MLP(4, "scalar", 5, 1, key=KEY),
        _fcn(width=6),
        _fcn(key=jr.key(4)),
        _fcn(activation="relu"),
        _fcn(activation=lambda z: z**2),
        _fcn(init="orthogonal"),
        _fcn(readout_scale=0.0),
        Wider(4, 5, 2, key=KEY),  # pyright: ignore[reportCallIssue]
        _changed(lambda net: net.readout.weight, lambda w: w / np.sqrt(5)),
        _changed(lambda net: net.layers[1].weight, lambda w: w.at[0, 0].add(1e-6)),
        _changed(lambda net: net.layers[1], lambda layer: eqx.nn.Linear(5, 5, key=KEY)),
    ],
)
def test_no_other_network_has_a_form(model):
    assert form(model, 5, KEY) is None


def test_family_is_predicted_if_nothing_but_the_width_changes_with_the_width(tmp_path):
    families = {
        "changed": lambda m, key: eqx.tree_at(
            lambda net: net.readout.weight, FCN(4, m, 1, key=key), replace_fn=lambda w: w / 2
        ),
        "ntk": lambda m, key: FCN(4, m, 1, key=key),
        "scaled": lambda m, key: FCN(4, m, 1, readout_scale=1 / m, key=key),
    }
    run = nth.Run((0.0,), checkpoint=tmp_path)
    study = lambda widths: nth.width_scaling(  # noqa: E731
        families, points(tests=0), widths, 2, (), run, kernels=2, progress=False
    )
    found = study((3, 4))
    assert dict(zip(found.families, found.predicted, strict=True)) == {
        "changed": None,
        "ntk": "ntk",
        "scaled": None,
    }
    # The same from files; and one width does not tell what depends on it.
    assert study((3, 4)).predicted == found.predicted
    assert study((3,)).predicted == (None, None, None)
