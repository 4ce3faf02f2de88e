"""A seed whose steps end does not end those of others."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import nthsim as nth


class Net(eqx.Module):
    """Two layers and a slope, whose order 3 of seed 2 comes to a pole on the way."""

    layers: list
    slope: jax.Array

    def __init__(self, width, key):
        keys = jr.split(key, 3)
        sizes = ((2, width), (width, width), (width, 2))
        self.layers = [
            eqx.nn.Linear(i, o, key=key) for (i, o), key in zip(sizes, keys, strict=True)
        ]
        self.slope = jnp.array(0.7)

    def __call__(self, x):
        for layer in self.layers[:-1]:
            x = jnp.tanh(self.slope * layer(x))
        return self.layers[-1](x)


def made(width, key):
    """With rates of its own."""
    net = Net(width, key)
    rates = jax.tree.map(lambda a: 1.0, eqx.filter(net, eqx.is_inexact_array))
    where = lambda r: (r.layers[0].bias, r.layers[-1].weight, r.slope)  # noqa: E731
    return net, eqx.tree_at(where, rates, (0.0, 0.5, 2.0))


def steep(f, y):
    """Of fourth power, so that a truncation ends in a pole that no bound tells of."""
    return jnp.sum((f - y) ** 4) + 0.2 * jnp.log(jnp.cosh(f[0] * f[1])) - 3.0


def test_seeds_beside_one_whose_steps_end_go_on_as_they_do_alone():
    y = jnp.array([[0.7, 0.2], [-0.4, 0.1], [0.3, -0.5]])
    data = nth.Dataset(jr.normal(jr.key(1), (3, 2)), y)
    together, alone = (
        nth.width_scaling(
            made,
            data,
            (3,),
            3,
            (3,),
            nth.Run([0.0, 0.5, 2.0]),
            loss=steep,
            sweep=nth.Sweep(chunk=chunk),
            progress=False,
        )
        for chunk in (3, 1)
    )
    assert together.blown_up is not None
    assert together.error_f is not None
    assert alone.error_f is not None
    np.testing.assert_array_equal(together.blown_up[0, 0].ravel(), [0, 0, 1])
    np.testing.assert_array_equal(alone.blown_up, together.blown_up)
    errors = [error[0, 0, :, 0] for error in (together.error_f, alone.error_f)]
    np.testing.assert_allclose(*errors, rtol=1e-4)
    np.testing.assert_array_equal(np.isnan(errors[0]).sum(axis=1), [0, 0, 1])
    assert "1 of 3 seeds did not come to the end: the step size fell" in " ".join(together.remarks)
