"""Synthetic data whose teacher is known."""

import numpy as np

from nthsim import checks, counts
from nthsim.datasets import Dataset
from nthsim.memory import available, readable

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
    n, t = counts.points(n_train, n_test)
    d = counts.count("dim", dim, 1)
    _check_fits(n + t, d)
    teacher = checks.choice("labels", labels, ("linear", "sign", "gaussian"))
    root = np.random.default_rng(counts.count("seed", seed, 0))
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
