"""Networks, data and save times, as the command line's settings describe them."""

import jax.random as jr
import numpy as np

from nthsim.checks import count
from nthsim.datasets import Dataset
from nthsim.files import load_data
from nthsim.images import digits, mnist
from nthsim.models.fcn import FCN
from nthsim.models.resnet import ResNet
from nthsim.settings import Common, Timed, is_file
from nthsim.synthetic import sphere

MODELS = {"fcn": FCN, "resnet": ResNet}
IMAGES = {"digits": digits, "mnist": mnist}


def made_model(settings: Common, data: Dataset) -> FCN | ResNet:
    """A network that fits the data: one output for each column of the targets.

    Raises:
        ValueError: When a setting is wrong.
    """
    return MODELS[settings.model](
        data.x[0].size,
        settings.width,
        settings.depth,
        out_size="scalar" if data.y.ndim == 1 else data.y.shape[1],
        activation=settings.activation,
        init=settings.init,
        key=jr.key(count("seed", settings.seed, 0)),
    )


def made_data(settings: Common) -> Dataset:
    """The data that `data` names.

    Raises:
        ValueError: When it names none, or there are too few points.
    """
    n, t, seed = settings.n_train, settings.n_test, settings.seed
    if is_file(settings.data):
        return load_data(settings.data, n_train=n, n_test=t)
    name, _, detail = settings.data.partition(":")
    numbers = [part.strip() for part in detail.split(",")] if detail else []
    if all(part.isdecimal() for part in numbers):
        if name in IMAGES:
            return IMAGES[name](*map(int, numbers), n_train=n, n_test=t, seed=seed)
        if name == "sphere" and len(numbers) == 1:
            return sphere(n, t, dim=int(numbers[0]), seed=seed)
    raise ValueError(
        "`data` must be digits, digits:3,8, mnist, mnist:3,8, sphere:DIM or the name of a .npz or "
        f".csv file, but is {settings.data!r}."
    )


def made_times(settings: Timed) -> np.ndarray:
    """The save times from 0 to t1.

    Raises:
        ValueError: When `t1` is not positive, or there are fewer than two times.
    """
    t1, T = settings.t1, count("num_ts", settings.num_ts, 2)
    if not (np.isfinite(t1) and t1 > 0):
        raise ValueError(f"`t1` must be a positive number, but is {t1!r}.")
    if settings.log_times:
        return np.concatenate([[0.0], np.geomspace(t1 / 1000, t1, T - 1) if T > 2 else [t1]])
    return np.linspace(0.0, t1, T)
