"""Rules of Taylor arithmetic that are relied on without a proof at the data."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax import lax
from networks import NETWORKS

from nthsim.network.coefficients import RIGHT, coefficients, has_right_rules
from nthsim.network.program import Evaluation
from nthsim.network.split import split

pytestmark = pytest.mark.compiled

#: Zero and points about it; positive ones.
Z = jnp.array([0.0, 1.0, -1.0, 0.5, -2.3, 2.3])
POSITIVE = 0.3 + Z**2

FUNCTIONS = {
    "sums and products": lambda z: (z + z) * (z - 1.0) * -z + lax.square(z) + jnp.sum(z * z),
    "derivative of a sum": lambda z: jax.grad(lambda z: jnp.sum(z * jnp.sin(z)))(z) * z,
    "quotient": lambda z: z / (2.0 + z * z),
    "matrices": lambda z: (z.reshape(2, 3).T @ z.reshape(2, 3)).ravel(),
    "convolution": lambda z: lax.conv(z[None, None], z[None, None, :3], (1,), "SAME"),
    "powers": lambda z: z**2 + z**3 - z**5 + (z + 5.0) ** -1,
    "exponentials": lambda z: jnp.exp(z) + jnp.expm1(z) + jnp.sinh(z) + jnp.cosh(z),
    "waves": lambda z: jnp.sin(z) * jnp.cos(z),
    "steps": lambda z: jnp.tanh(z) + jax.nn.sigmoid(z) + lax.erf(z) * lax.erfc(z),
    "shapes": lambda z: jnp.concatenate([z[::-1], lax.pad(z, 1.0, [(2, 0, 1)])]) ** 2,
    "parts": lambda z: (lax.dynamic_slice(z, (1,), (2,)) * z[jnp.array([1, 4])] * z[2:4]) ** 2,
    "choice": lambda z: jnp.where((z > 0) & ~(z >= 2) | (z == 1), z * z, jnp.sin(z)),
    "choices": lambda z: jnp.where((z < 0) | (z <= -1) | (z != 1), z * z, lax.iota(z.dtype, 6)),
    "whole numbers": lambda z: jnp.zeros(6).at[0].get() + lax.convert_element_type(z, float) * z,
    "broadcast": lambda z: jnp.squeeze(jnp.broadcast_to(z, (2, 6))[:1]) * jnp.copy(z),
    "held": lambda z: lax.stop_gradient(z) * z,
}
OF_POSITIVE = {
    "roots": lambda z: jnp.sqrt(z) + lax.rsqrt(z),
    "logarithms": lambda z: jnp.log(z) * jnp.log1p(z),
}


def path(at):
    return [at, *jr.normal(jr.key(0), (4, *at.shape))]


@pytest.mark.parametrize("name", [*FUNCTIONS, *OF_POSITIVE])
def test_rules_are_those_of_nested_derivatives(name):
    function = (FUNCTIONS | OF_POSITIVE)[name]
    at = POSITIVE if name in OF_POSITIVE else Z
    terms, nested = (coefficients(function, path(at), nested=each) for each in (False, True))
    for term, expected in zip(terms, nested, strict=True):
        # Rounding of up to four nested derivatives.
        np.testing.assert_allclose(term, expected, rtol=1e-11, atol=1e-11)


def words_in(function, at):
    """The words of a program, among which are the names of its operations."""
    text = str(jax.make_jaxpr(function)(at))
    return {word.partition("[")[0] for line in text.splitlines() for word in line.split()}


def test_every_rule_that_is_relied_on_was_compared():
    tried = set().union(*(words_in(f, Z) for f in FUNCTIONS.values()))
    tried |= set().union(*(words_in(f, POSITIVE) for f in OF_POSITIVE.values()))
    assert RIGHT - tried == set()


@pytest.mark.parametrize("name", ["fcn", "resnet", "mlp of three outputs", "convolutional"])
def test_usual_networks_are_made_of_such_operations(name):
    network, theta = split(NETWORKS[name])
    plain = network.expandable(theta, jnp.zeros((1, 4)))
    assert has_right_rules(Evaluation(plain, theta, jnp.zeros(4)))
