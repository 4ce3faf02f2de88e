"""Networks, data and save times, as the command line's settings describe them."""

import dataclasses
import inspect
from functools import partial

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from nthsim.cli.mistakes import called
from nthsim.cli.settings import Common, Ordered, ScalingSettings, Solved, Timed, is_file
from nthsim.comparison.curves import named_curve
from nthsim.dynamics import recipes
from nthsim.dynamics.curve import Curve
from nthsim.dynamics.hierarchy import Order
from nthsim.dynamics.run import Run
from nthsim.inputs.arrays import log_times
from nthsim.inputs.builtin import digits, mnist, sphere
from nthsim.inputs.data_files import load_data
from nthsim.inputs.dataset import Dataset
from nthsim.inputs.memory import available, largest, readable
from nthsim.kernels.work import CHUNK, PROGRAM
from nthsim.models import MODELS as NETWORKS
from nthsim.network.regulariser import WeightDecay
from nthsim.scaling.cells import Maker
from nthsim.solvers.momentum import Momentum, momentum_of
from nthsim.solvers.solver import AbstractSolver
from nthsim.solvers.until import Until

#: Networks by their names here.
MODELS = {name.lower(): kind for name, kind in NETWORKS.items()}
#: Settings of residual blocks alone.
BLOCKS = ("c_res", "depth_exponent")
#: A petabyte: arrays much larger have no size in XLA, and no plan.
MOST_BYTES = 10**15
#: More layers than compile in minutes.
MOST_LAYERS = 1000
#: What `nthsim scaling` varies unless told otherwise.
WIDTHS = (16, 32, 64, 128)
IMAGES = {"digits": digits, "mnist": mnist}


def made_model(settings: Common, data: Dataset) -> PyTree:
    """A network that fits the data, drawn once its weights are known to fit into memory.

    Raises:
        ValueError: When a setting is wrong, or there is too little memory.
    """
    free = available()
    check_weights(settings, data, free, f"{readable(free)} are available")
    return drawn_model(settings, data)


def drawn_model(settings: Common, data: Dataset) -> PyTree:
    """A network with one output for each column of the targets, whatever its size.

    Raises:
        ValueError: When a setting is wrong.
    """
    return _network(settings, *_shape(data), jr.key(settings.seed))


def made_rates(settings: Common, model: PyTree) -> PyTree:
    """The rates of a network's layers in a tree like it; None where they were left out.

    Raises:
        ValueError: When there are more or fewer than layers.
    """
    if not settings.rates:
        return None
    weights = lambda net: [layer.weight for layer in (*net.layers, net.readout)]  # noqa: E731
    number = len(weights(model))
    if len(settings.rates) != number:
        raise ValueError(
            f"`rates` must be {number} numbers, one for each hidden layer and the readout, but are "
            f"{len(settings.rates)}."
        )
    return eqx.tree_at(weights, model, list(settings.rates))


def made_regulariser(settings: Timed) -> WeightDecay | None:
    """The weight decay, if there is any.

    Raises:
        ValueError: When its strength is negative.
    """
    if settings.weight_decay == 0:
        return None
    with called(strength="weight_decay"):
        return WeightDecay(settings.weight_decay, settings.decay_towards)


def made_momentum(settings: Timed) -> Momentum | None:
    """The momentum, if there is any.

    Raises:
        ValueError: When its word stands for none.
    """
    return None if settings.momentum is None else momentum_of(settings.momentum)


def made_families(settings: ScalingSettings, data: Dataset, axis: str) -> dict[str, Maker]:
    """For each kind of network, what draws one by its width or depth, as `axis` says, and a key."""
    kinds: list[ScalingSettings] = [settings]
    if settings.beside is not None:
        # Of the two, only one has residual blocks.
        plain = dataclasses.replace(settings, **dict.fromkeys(BLOCKS))
        kinds = [
            dataclasses.replace(settings if model == "resnet" else plain, model=model)
            for model in (settings.model, settings.beside)
        ]
    return {kind.model: partial(_sized, kind, axis, *_shape(data)) for kind in kinds}


def made_sizes(settings: ScalingSettings) -> tuple[str, tuple[int, ...]]:
    """What is varied, width or depth, and how."""
    return ("depth", settings.depths) if settings.depths else ("width", settings.widths or WIDTHS)


def _sized(
    settings: Common,
    axis: str,
    in_size: int,
    out_size: int | str,
    size: int,
    key: PRNGKeyArray,
) -> PyTree:
    """A function by name, so that a cluster's workers find it."""
    model = _network(dataclasses.replace(settings, **{axis: size}), in_size, out_size, key)
    return (model, made_rates(settings, model)) if settings.rates else model


def _shape(data: Dataset) -> tuple[int, int | str]:
    """The numbers of inputs and outputs."""
    return data.x[0].size, "scalar" if data.y.ndim == 1 else data.y.shape[1]


def _network(settings: Common, in_size: int, out_size: int | str, key: PRNGKeyArray) -> PyTree:
    """The network by its name, made of those settings that it has."""
    if settings.depth > MOST_LAYERS:
        raise ValueError(f"`depth` must be at most {MOST_LAYERS}, but is {settings.depth}.")
    kind = MODELS[settings.model]
    taken = inspect.signature(kind).parameters
    for name in ("c_sigma", *BLOCKS):
        if getattr(settings, name) is not None and name not in taken:
            raise ValueError(
                f"`{name}` must be left out for {settings.model}, which has none, "
                f"but is {getattr(settings, name)!r}."
            )
    given = {name: value for name, value in vars(settings).items() if name in taken}
    given = {name: value for name, value in given.items() if value is not None}
    return kind(in_size=in_size, out_size=out_size, key=key, **given)


def weight_bytes(settings: Common, data: Dataset) -> int:
    """What the weights take while they are drawn, twice their own size; none is drawn.

    Raises:
        ValueError: When a setting is wrong.
    """
    model = eqx.filter_eval_shape(drawn_model, settings, data)
    leaves = [a for a in jax.tree.leaves(model) if isinstance(a, jax.ShapeDtypeStruct)]
    return 2 * sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def check_weights(settings: Common, data: Dataset, most: int, limit: str) -> None:
    """Refuse weights of more than `most` bytes, which `limit` puts in words; none is drawn.

    Raises:
        ValueError: When a setting is wrong, or there are so many; the sentence names the width.
    """
    needed = weight_bytes(settings, data)
    if needed <= most:
        return
    shortage = f"its weights need {readable(needed)} and {limit}"
    resized = lambda m: dataclasses.replace(settings, width=m)  # noqa: E731
    width = largest(lambda m: weight_bytes(resized(m), data) <= most, 1, settings.width - 1)
    if width is None:
        raise ValueError(
            f"`model` must be smaller to fit into memory, or that be larger, but {shortage}."
        )
    raise ValueError(f"`width` must be at most {width}, but is {settings.width}: {shortage}.")


def check_memory(memory: int) -> None:
    """Refuse less than any dynamics takes, so that no model or data are to blame.

    Raises:
        ValueError: When `memory` bytes are less.
    """
    if memory < CHUNK + PROGRAM:
        raise ValueError(
            f"`memory` must be at least {readable(CHUNK + PROGRAM)}, which every run takes, "
            f"but is {readable(memory)}."
        )


def made_data(settings: Common) -> Dataset:
    """The data that `data` names.

    Raises:
        ValueError: When it names none, or there are too few points.
    """
    n, t, seed = settings.n_train, settings.n_test, settings.seed
    if is_file(settings.data):
        with called(path="data"):
            return _flat(load_data(settings.data, n_train=n, n_test=t, labels=settings.labels))
    if settings.labels:
        raise ValueError(f"`labels` must be of a file, but `data` is {settings.data!r}.")
    name, _, detail = settings.data.partition(":")
    numbers = [part.strip() for part in detail.split(",")] if detail else []
    if all(part.isdecimal() for part in numbers):
        if name in IMAGES:
            with called(classes="data"):
                return IMAGES[name](*map(int, numbers), n_train=n, n_test=t, seed=seed)
        if name == "sphere" and len(numbers) == 1:
            with called(dim="--data sphere:DIM"):
                return sphere(n, t, dim=int(numbers[0]), seed=seed)
    raise ValueError(
        "`data` must be digits, digits:3,8, mnist, mnist:3,8, sphere:DIM or the name of a .npz or "
        f".csv file, but is {settings.data!r}."
    )


def _flat(data: Dataset) -> Dataset:
    """The same with each input in one row, as the networks here take them."""
    test = None if data.x_test is None else data.x_test.reshape(data.n_test, -1)
    x = data.x.reshape(data.n, -1)
    return Dataset(x, data.y, test, data.y_test, classes=data.classes)


def made_times(settings: Solved) -> np.ndarray:
    """The save times from 0 to t1."""
    t1, T = settings.t1, settings.num_ts
    if settings.log_times:
        return log_times(t1 / 1000, t1, T) if T > 2 else np.array([0.0, t1])
    return np.linspace(0.0, t1, T)


def made_solver(settings: Solved) -> AbstractSolver:
    """The solver by its name, with its tolerances."""
    kind = recipes.SOLVERS[settings.solver.capitalize()]
    return kind(settings.rtol, settings.atol, settings.max_steps)


def made_run(settings: Timed) -> Run:
    """When to look, how to step, when to stop, what to record and where to keep it.

    Raises:
        ValueError: When a setting is wrong.
    """
    record = settings.record if isinstance(settings, Ordered) else None
    return Run(
        made_times(settings),
        solver=made_solver(settings),
        until=made_until(settings),
        record=record,
        checkpoint=settings.checkpoint,
    )


def made_curves(settings: Ordered) -> tuple[Curve, ...]:
    """The orders, and other curves by their words.

    Raises:
        ValueError: When there is no such curve.
    """
    orders = [Order(p, method=settings.method) for p in settings.orders]
    with called(degree="curves", rate="curves", batch_size="curves"):
        return (*orders, *map(named_curve, settings.curves))


def made_until(settings: Timed) -> Until:
    """When to stop.

    Raises:
        ValueError: When a limit is not positive.
    """
    names = {field.name: f"until_{field.name}" for field in dataclasses.fields(Until)}
    with called(**names):
        return Until(**{name: getattr(settings, flag) for name, flag in names.items()})
