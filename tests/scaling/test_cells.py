"""A cell measures what single runs of its networks show, seed by seed."""

import functools
import json
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from failing import failing
from studies import TS, points, scalar

import nthsim as nth
from nthsim.models import FCN, ResNet
from nthsim.scaling.cells import Cell, Study
from nthsim.solvers import Auto

LOOSE = Auto(rtol=1e-5)
SEEDS = (0, 3, 4)


def _fcn(width, key):
    return FCN(4, width, 1, key=key)


def _study(**changes) -> Study:
    """Its first network of width 8 is that of `scalar`, and so are data, times and solver."""
    settings = {
        "axis": "width",
        "families": {"FCN": _fcn},
        "sizes": (6, 8),
        "seeds": SEEDS,
        "data": points(),
        "orders": (2, 3),
        "kernels": 3,
        "ts": TS,
        "loss": nth.squared_error,
        "solver": LOOSE,
        "chunk": 2,
    }
    return Study(**(settings | changes))


@functools.cache
def _record(seeds):
    return _study().compute(Cell("FCN", 8, seeds))


def test_errors_and_drift_are_those_of_compare():
    study, arrays = scalar(), _record((3, 0)).arrays
    for i, order in enumerate((2, 3)):
        errors = study.errors(order)
        # Differences of numbers of order one, each of which is within some 1e-5.
        for name, wanted in (
            ("error_f", errors.train_rms),
            ("error_f_test", errors.test_rms),
            ("error_kernel", errors.kernel),
        ):
            assert wanted is not None
            np.testing.assert_allclose(arrays[name][1, i], wanted, atol=3e-5)
            assert arrays[name][1, i, -1] > 1e-3  # far above that
    movement = study.drift()
    assert movement is not None
    np.testing.assert_allclose(arrays["drift"][1], movement, atol=3e-5)
    assert arrays["blown_up"].tolist() == [[0, 0], [0, 0]]


def test_sizes_and_means_are_those_of_the_kernels():
    model, arrays, x = scalar().asked.model, _record((3, 0)).arrays, points().x
    f = np.asarray(jax.vmap(model)(x))
    kernels = [np.asarray(nth.kernel(model, x, r)) for r in (2, 3)]
    np.testing.assert_allclose(arrays["initial_f"][1], f, rtol=1e-12)
    np.testing.assert_allclose(arrays["initial_kernels"][1], kernels[0], rtol=1e-12)
    for i, K in enumerate(kernels):
        np.testing.assert_allclose(arrays["kernel_rms"][1, i], np.sqrt((K**2).mean()), rtol=1e-12)
        np.testing.assert_allclose(arrays["kernel_max"][1, i], np.abs(K).max(), rtol=1e-12)
    means = [kernels[0].mean(), np.einsum("abc,c->", kernels[1], f) / 27]
    np.testing.assert_allclose(arrays["kernel_mean"][1, :2], means, rtol=1e-11)


def test_seeds_do_not_depend_on_their_chunk():
    whole = _record((3, 0)).arrays
    part = _record((0,)).arrays  # filled up to the same chunk
    assert {len(array) for array in part.values()} == {1}
    for name, array in part.items():
        np.testing.assert_allclose(array[0], whole[name][1], rtol=1e-10, atol=3e-5)


def test_blow_up_is_marked_and_leaves_nan_behind():
    def product(width, key):
        del width
        return Product(jr.uniform(key, (3,), minval=0.9, maxval=1.1))

    data = nth.Dataset(np.ones((1, 1)), np.array([0.3]))
    study = _study(
        families={"product": product},
        data=data,
        orders=(3,),
        ts=np.linspace(0.0, 3.0, 4),
    )
    record = study.compute(Cell("product", 1, (0, 1)))
    assert record.arrays["blown_up"].tolist() == [[1], [1]]
    np.testing.assert_array_equal(
        np.isnan(record.arrays["error_f"][0, 0]), [False] * 2 + [True] * 2
    )
    assert "error_f_test" not in record.arrays
    assert record.facts["stops"]["order 3"]["message"] == "reached t = 3"


class Product(eqx.Module):
    """f = w1·w2·w3 times the one input, whose order 3 blows up."""

    w: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.prod(self.w) * x[0]


def test_cells_are_all_families_sizes_and_chunks_and_have_names_of_their_own():
    families = {"FCN": _fcn, "my ResNet": lambda width, key: ResNet(4, width, 2, key=key)}
    cells = _study(families=families, seeds=(3, 4, 5)).cells()
    assert [cell.name for cell in cells] == [
        f"{family}-{size}-seeds-{seeds}"
        for family in ("fcn", "my-resnet")
        for size in (6, 8)
        for seeds in ("3-4", "5-5")
    ]


def test_seeds_with_gaps_are_told_apart_by_name():
    names = {Cell("FCN", 6, seeds).name for seeds in ((0, 1, 4), (0, 3, 4), (0, 4))}
    assert len(names) == 3
    assert all(re.fullmatch("fcn-6-seeds-0-4-[0-9a-f]{8}", name) for name in names)


def test_interrupted_run_makes_no_cell():
    def computed(kind):
        families = {"FCN": lambda width, key: kind(4, width, 1, key=key)}
        _study(families=families, orders=(), kernels=2).compute(Cell("FCN", 6, (0, 3)))
        return len(kind.calls)

    for after in range(computed(failing(None))):
        with pytest.raises(KeyboardInterrupt):
            computed(failing(KeyboardInterrupt, after))


def _flow():
    return _study().population("FCN", 6, (0, 3)).flow(TS, LOOSE)


def test_subject_is_json_and_tells_studies_apart():
    subject = _study().subject()
    assert json.loads(json.dumps(subject)) == subject == _study().subject()
    changes = {
        "families": {"FCN": lambda width, key: FCN(4, width, 1, activation="erf", key=key)},
        "sizes": (6, 7),
        "data": nth.sphere(3, 2, dim=4, seed=1),
        "orders": (2,),
        "kernels": 4,
        "ts": TS[:-1],
        "loss": lambda f, y: (f - y) ** 4,
        "solver": Auto(rtol=1e-5, max_steps=7),  # what the limit cut short is kept as it is
        "chunk": 3,
    }
    for name, change in changes.items():
        assert _study(**{name: change}).subject() != subject, name
    assert _study(seeds=(1, 3)).subject() == subject


def test_networks_of_other_structure_are_refused():
    def unlike(width, key):
        return FCN(4, width, 1 + int(jr.bernoulli(key)), key=key)

    seeds = (0, next(s for s in range(1, 9) if jr.bernoulli(jr.key(s)) != jr.bernoulli(jr.key(0))))
    with pytest.raises(ValueError, match=r"^`make_model` must return models of one structure"):
        _study(families={"FCN": unlike}).compute(Cell("FCN", 4, seeds))
