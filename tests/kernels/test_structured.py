"""Structured kernels against derivative tensors and against nested derivatives."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from oracles import derivative_tensors, relative_error, tree_kernel

import nthsim as nth
from nthsim.kernels.block_kernel import Slots
from nthsim.kernels.method import SlowKernelWarning
from nthsim.kernels.work import QUICK, kernel_size
from nthsim.models import FCN, ResNet
from nthsim.network.split import split

pytestmark = [pytest.mark.slow, pytest.mark.compiled]

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


def test_symmetric_kernel_of_several_blocks_is_that_of_nested_derivatives():
    model, x = modules()["resnet with two outputs"], jr.normal(jr.key(9), (67, D))
    structured = nth.kernel(model, x, 2, method="structured")
    np.testing.assert_array_equal(structured.reshape(134, 134), structured.reshape(134, 134).T)
    assert relative_error(structured, nth.kernel(model, x, 2, method="nested")) < 1e-13


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
        frozen = lambda: jax.lax.stop_gradient(self.linear)  # noqa: E731
        doubled = lambda: jax.tree.map(lambda a: 2 * a, self.linear)  # noqa: E731
        use = {
            "vmap": lambda: jax.vmap(self.linear)(jnp.stack([x, 2 * x])).sum(axis=0),
            "scan": lambda: jax.lax.scan(lambda h, _: (self.linear(h), None), x, None, 2)[0],
            "jit": lambda: jax.jit(lambda h: self.linear(h))(x),
            "checkpoint": lambda: eqx.filter_checkpoint(self.linear)(x),
            "gradient": lambda: jax.grad(lambda h: self.linear(h).sum())(x),
            "frozen": lambda: frozen()(x),
            "doubled": lambda: doubled()(x),
            "weight": lambda: self.linear.weight @ x,
            "unused": lambda: self.linear(x),
        }
        h = jnp.tanh(use[self.how]())
        return h.sum() if self.how == "unused" else self.spare(h)


@pytest.mark.parametrize(
    ("how", "piece"),
    [
        ("vmap", "`model.linear` on one input at a time"),
        ("scan", "`model.linear` on one input at a time and outside of scan"),
        ("jit", "`model.linear` on one input at a time and outside of scan, jit"),
        ("checkpoint", "`model.linear` on one input at a time"),
        ("gradient", "`model.linear` on one input at a time"),
        ("frozen", "`model.linear` as it is"),
        ("doubled", "`model.linear` as it is"),
        ("weight", "`model.linear`"),
        ("unused", "`model.spare`"),
    ],
)
def test_module_that_hides_its_layers_is_not_taken_apart(how, piece, x):
    keys = jr.split(jr.key(3))
    model = Unsuited(eqx.nn.Linear(D, D, key=keys[0]), eqx.nn.Linear(D, "scalar", key=keys[1]), how)
    with pytest.raises(ValueError, match=r"^`model` must .* to be taken apart, but") as refusal:
        nth.kernel(model, x, 2, method="structured")
    assert piece in str(refusal.value)
    assert work_of(model, x).signals is None


def work_of(model, x):
    network, theta = split(model)
    return kernel_size(network, theta, Slots(x, (0, len(x)), (0, len(x)), 1)).work


def test_auto_takes_the_structure_once_there_is_enough_work(x):
    work = work_of(FCN(D, 64, 2, key=jr.key(4)), x)
    assert work.method(3, 3, 3) == "nested"
    assert work.method(100, 100, 4) == "structured"
    assert work.nested(100, 100, 4) > QUICK
    assert work.structured(100, 100, 4) < work.nested(100, 100, 4) / 10


class Cell(eqx.Module):
    """Most of its parameters are the cell's own arrays."""

    cell: eqx.nn.GRUCell
    readout: eqx.nn.Linear

    def __call__(self, x):
        return self.readout(self.cell(x, x))


def cell():
    keys = jr.split(jr.key(5))
    return Cell(eqx.nn.GRUCell(D, D, key=keys[0]), eqx.nn.Linear(D, "scalar", key=keys[1]))


def test_auto_leaves_modules_alone_whose_parameters_are_elsewhere(x):
    work = work_of(cell(), x)
    assert work.signals is None
    assert work.method(10**3, 10**3, 4) == "nested"


def test_auto_says_what_keeps_a_large_kernel_from_being_taken_apart(x, monkeypatch):
    monkeypatch.setattr("nthsim.kernels.work.QUICK", 1)  # as if it were large
    one, other = (eqx.nn.Linear(D, D, key=key) for key in jr.split(jr.key(6)))
    hidden = Unsuited(one, other, "scan")
    for model, piece in ((cell(), r"`model\.cell\.weight_[ih]h`"), (hidden, r"`model\.linear`")):
        with pytest.warns(SlowKernelWarning, match=rf"{piece}.*: kernels take nested derivatives"):
            kernel = nth.kernel(model, x, 2)
        np.testing.assert_array_equal(kernel, nth.kernel(model, x, 2, method="nested"))


class Nothing(eqx.Module):
    """A layer, and an array without entries beside it, as of a correction of rank 0."""

    layer: eqx.nn.Linear
    low: jax.Array

    def __call__(self, x):
        return jnp.tanh(self.layer(x)) + self.low.T @ (self.low @ x)


@pytest.mark.parametrize("order", [2, 3])
def test_array_without_entries_adds_nothing(order):
    layer, x = eqx.nn.Linear(3, 3, key=jr.key(0)), jr.normal(jr.key(1), (2, 3))
    found = nth.kernel(Nothing(layer, jnp.zeros((0, 3))), x, order, method="structured")
    plain = eqx.nn.Sequential([layer, eqx.nn.Lambda(jnp.tanh)])
    np.testing.assert_allclose(found, nth.kernel(plain, x, order, method="nested"), rtol=1e-12)
