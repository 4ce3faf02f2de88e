"""Structured kernels against derivative tensors and against nested derivatives."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from oracles import derivative_tensors, relative_error, tree_kernel

import nthsim as nth
from nthsim.engines import QUICK, kernel_work
from nthsim.models import FCN, ResNet
from nthsim.network import split
from nthsim.slots import Slots

N, D = 3, 2


class Recurrent(eqx.Module):
    """A layer that is called once per step, and a raw array beside the layers."""

    inner: eqx.nn.Linear
    start: jax.Array
    readout: eqx.nn.Linear

    def __call__(self, x):
        h = self.start
        for one in x:
            h = jnp.tanh(self.inner(jnp.append(h, one)))
        return self.readout(h)


def modules():
    keys = jr.split(jr.key(0), 7)
    return {
        "fcn": FCN(D, 3, 2, key=keys[0]),
        "resnet with two outputs": ResNet(D, 3, 2, out_size=2, activation="erf", key=keys[1]),
        "mlp with biases": eqx.nn.MLP(D, "scalar", 3, 1, activation=jax.nn.gelu, key=keys[2]),
        "recurrent": Recurrent(
            eqx.nn.Linear(3, 2, key=keys[3]),
            jr.normal(keys[4], (2,)),
            eqx.nn.Linear(2, "scalar", key=keys[5]),
        ),
        "layer norm": eqx.nn.Sequential(
            [
                eqx.nn.Linear(D, 4, key=keys[5]),
                eqx.nn.LayerNorm(4),
                eqx.nn.Lambda(jnp.tanh),
                eqx.nn.Linear(4, "scalar", key=keys[6]),
            ]
        ),
    }


@pytest.fixture(scope="module")
def x():
    return jr.normal(jr.key(1), (N, D))


def joined(kernel, order):
    size = round(kernel.size ** (1 / order))
    return kernel.reshape((size,) * order)


@pytest.mark.parametrize("name", modules())
def test_structured_kernel_is_the_sum_over_trees_of_derivative_tensors(name, x):
    model = modules()[name]
    top = {"fcn": 5, "layer norm": 3}.get(name, 4)
    tensors = derivative_tensors(model, x, top - 1)
    for order in range(2, top + 1):
        actual = joined(nth.kernel(model, x, order, method="structured"), order)
        assert relative_error(actual, tree_kernel(tensors, order)) < 1e-12


@pytest.mark.parametrize("chunk_bytes", [1, 20_000, 60_000, 10**9])
@pytest.mark.parametrize("order", [3, 4])
def test_structured_kernel_does_not_depend_on_its_blocks(order, chunk_bytes):
    model, x = modules()["fcn"], jr.normal(jr.key(2), (7, D))
    whole = nth.kernel(model, x, order, method="nested")
    blocks = nth.kernel(model, x, order, method="structured", chunk_bytes=chunk_bytes)
    np.testing.assert_allclose(blocks, whole, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("order", [2, 3])
def test_first_slot_may_hold_other_points(order, x):
    model = modules()["resnet with two outputs"]
    others = x[:2] + 0.5
    block = nth.kernel(model, x, order, x_first=others, method="structured")
    expected = nth.kernel(model, x, order, x_first=others, method="nested")
    np.testing.assert_allclose(block, expected, rtol=1e-11, atol=1e-13)


class Unsuited(eqx.Module):
    """Uses its layer as no tap can see."""

    linear: eqx.nn.Linear
    spare: eqx.nn.Linear
    how: str = eqx.field(static=True)

    def __call__(self, x):
        use = {
            "vmap": lambda: jax.vmap(self.linear)(jnp.stack([x, 2 * x])).sum(axis=0),
            "scan": lambda: jax.lax.scan(lambda h, _: (self.linear(h), None), x, None, 2)[0],
            "weight": lambda: self.linear.weight @ x,
            "unused": lambda: self.linear(x),
        }
        h = jnp.tanh(use[self.how]())
        return h.sum() if self.how == "unused" else self.spare(h)


@pytest.mark.parametrize("how", ["vmap", "scan", "weight", "unused"])
def test_module_that_hides_its_layers_is_refused_or_done_by_nested_derivatives(how, x):
    keys = jr.split(jr.key(3))
    model = Unsuited(eqx.nn.Linear(D, D, key=keys[0]), eqx.nn.Linear(D, "scalar", key=keys[1]), how)
    with pytest.raises(ValueError, match=r"^`model` must call .* to be taken apart"):
        nth.kernel(model, x, 2, method="structured")
    expected = nth.kernel(model, x, 2, method="nested")
    np.testing.assert_array_equal(nth.kernel(model, x, 2), expected)


def work_of(model, x):
    network, theta = split(model)
    return kernel_work(network, theta, Slots(x, (0, len(x)), (0, len(x)), 1))


def test_auto_takes_the_structure_once_there_is_enough_work(x):
    work = work_of(FCN(D, 64, 2, key=jr.key(4)), x)
    assert work.method(3, 3, 3) == "nested"
    assert work.method(100, 100, 4) == "structured"
    assert work.nested(100, 100, 4) > QUICK
    assert work.structured(100, 100, 4) < work.nested(100, 100, 4) / 10


def test_auto_leaves_modules_alone_whose_parameters_are_elsewhere():
    images = jr.normal(jr.key(5), (2, 1, 4, 4))
    conv = eqx.nn.Sequential(
        [
            eqx.nn.Conv2d(1, 3, 2, key=jr.key(6)),
            eqx.nn.Lambda(jnp.ravel),
            eqx.nn.Linear(27, "scalar", key=jr.key(7)),
        ]
    )
    work = work_of(conv, images)
    assert work.signals is None
    assert work.method(10**3, 10**3, 4) == "nested"


def test_structured_kernel_agrees_at_a_size_where_auto_takes_it():
    data = nth.digits(3, 8, n_train=9, n_test=4)
    model = FCN(64, 256, 2, key=jr.key(8))
    work = work_of(model, data.x)
    assert work.method(4, 9, 4) == "structured"
    auto = nth.kernel(model, data.x, 4, x_first=data.x_test)
    nested = nth.kernel(model, data.x, 4, x_first=data.x_test, method="nested")
    assert relative_error(auto, nested) < 1e-12
