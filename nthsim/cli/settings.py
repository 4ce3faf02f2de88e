"""What one run of the command line is told, by flags and by a TOML file."""

import dataclasses
import math
from pathlib import Path
from typing import Annotated, Literal

import tyro

Activation = Literal[
    "erf", "gelu", "identity", "relu", "sigmoid", "silu", "sin", "softplus", "tanh"
]
Limit = Annotated[
    float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="(default: never)")
]
OutFolder = Annotated[
    Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: nothing is written)")
]

DATA = (
    "The data: digits:3,8 (8x8 pixels, targets -1 and +1), digits (all ten, ten outputs), "
    "mnist:3,8 or mnist (28x28 pixels), sphere:DIM (random inputs, linear targets), or a .npz or "
    ".csv file, from whose top the points are taken; images in it are flattened to vectors."
)


@dataclasses.dataclass(frozen=True)
class Common:
    """The network, the data, and how to compute."""

    model: Literal["fcn", "resnet"] = "fcn"
    """The network: fully connected (Huang and Yau) or residual (Li, Luo and Yip)."""
    width: int = 64
    """The number of neurons in each hidden layer."""
    depth: int = 2
    """The number of hidden layers."""
    activation: Activation = "tanh"
    """The activation of the hidden layers."""
    init: Literal["gaussian", "orthogonal"] = "gaussian"
    """The distribution of the initial hidden weights."""
    c_sigma: Annotated[
        float | Literal["auto"] | None,
        tyro.conf.arg(
            metavar="FLOAT|auto", help_behavior_hint="(default: 1 for fcn, auto for resnet)"
        ),
    ] = None
    """The constant under the root beside 1/width; auto normalises the activation."""
    c_res: Annotated[
        float | None,
        tyro.conf.arg(metavar="FLOAT", help_behavior_hint="(default: 1; fcn has none)"),
    ] = None
    """The constant of the residual blocks, of resnet only."""
    depth_exponent: Annotated[
        float | None,
        tyro.conf.arg(metavar="FLOAT", help_behavior_hint="(default: 1; fcn has none)"),
    ] = None
    """The power of the depth that residual blocks are divided by, of resnet only."""
    parametrisation: Literal["ntk", "standard", "mup", "mean-field"] = "ntk"
    """How outputs and rates depend on the width; mup and mean-field are one."""
    weight_scale: float = 1.0
    """The standard deviation of the initial hidden weights."""
    readout_scale: float = 1.0
    """The standard deviation of the initial readout weights; 0 is allowed."""
    rates: Annotated[
        tuple[float, ...],
        tyro.conf.arg(metavar="FLOAT", help_behavior_hint="(default: by the parametrisation)"),
    ] = ()
    """How fast each layer trains, the readout last; at 0 it does not."""
    data: Annotated[str, tyro.conf.arg(metavar="DATA", help=DATA)] = "digits:3,8"
    labels: bool = False
    """Whether the targets of a file are the names of classes, integers or words."""
    n_train: int = 16
    """The number of training points."""
    n_test: int = 16
    """The number of test points; they never act on training."""
    seed: int = 0
    """The seed of both the data's and the network's random draws."""
    precision: Literal["float64", "float32"] = "float64"
    """The precision of all numbers."""
    memory: Annotated[
        str | None, tyro.conf.arg(metavar="SIZE", help_behavior_hint="(default: what is free)")
    ] = None
    """The memory to stay within, in GB or with a unit: 8, 8GB or 500MB."""
    config: Annotated[
        Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: no file)")
    ] = None
    """A TOML file of these settings, by their names here; explicit flags override it."""


@dataclasses.dataclass(frozen=True)
class Solved(Common):
    """What the solution of a dynamics needs besides."""

    loss: Literal["squared_error", "logistic", "softmax_cross_entropy"] = "squared_error"
    """The loss of one sample."""
    t1: float = 10.0
    """The last save time, in the unit of gradient flow on the mean loss with learning rate one."""
    num_ts: int = 51
    """The number of save times; the first is 0."""
    log_times: bool = False
    """Whether the save times after 0 are evenly spaced in log t, from t1/1000, and not in t."""
    rtol: Annotated[
        float | None,
        tyro.conf.arg(metavar="FLOAT", help_behavior_hint="(default: 1e-7, in float32 1e-4)"),
    ] = None
    """The error allowed in each step, relative to the size of the solution."""
    atol: Annotated[
        float | None,
        tyro.conf.arg(metavar="FLOAT", help_behavior_hint="(default: 1e-6 times rtol)"),
    ] = None
    """The error allowed in each step, absolute."""
    max_steps: int = 100_000
    """The number of steps after which a run is given up, its results kept."""
    solver: Literal["auto", "explicit", "implicit", "exponential", "stabilised"] = "auto"
    """The kind of steps: explicit, or exponential, implicit or, at loose tolerances, stabilised for
    stiff flow; auto chooses among the explicit and exponential."""


@dataclasses.dataclass(frozen=True)
class Timed(Solved):
    """What else a flow goes down, when it may end, and where it is kept."""

    weight_decay: float = 0.0
    """The strength of weight decay: half of it times the squared length of all parameters, or of
    what they have moved by, is added to the loss."""
    decay_towards: Literal["zero", "start"] = "zero"
    """What weights decay towards: zero, or where they start."""
    momentum: Annotated[
        str | None, tyro.conf.arg(metavar="WORD", help_behavior_hint="(default: none)")
    ] = None
    """The momentum of training from rest: heavy-ball:0.5, of its friction, or nesterov:3."""
    until_loss: Limit = None
    """The training loss at which exact flow is to stop."""
    until_gradient: Limit = None
    """The norm of the loss's gradient at which exact flow is to stop."""
    until_stalled: Limit = None
    """The part of itself, per unit of time, by less than which the loss changes when exact flow is
    to stop."""
    until_seconds: Limit = None
    """The wall time after which exact flow is to stop, compilation included."""
    checkpoint: OutFolder = None
    """A folder that runs are kept in as they go; the same command again goes on from there."""


@dataclasses.dataclass(frozen=True)
class Ordered(Timed):
    """What truncations need besides."""

    orders: tuple[int, ...] = (2, 3, 4)
    """The orders at which the hierarchy is truncated, each at least 2."""
    curves: Annotated[
        tuple[str, ...], tyro.conf.arg(metavar="CURVE", help_behavior_hint="(default: none)")
    ] = ()
    """Other curves to draw: taylor-1, taylor-2 and so on are Taylor models, polynomials in the
    parameters, limit trains with the kernel of infinite width, perturbation is the first order in
    1/width (squared error only), descent-sgd:0.1 or descent-adam:0.01 takes steps of that rate on
    all points, modified-0.1 is the flow that descent at that rate follows more closely, and
    noisy-0.1:8 is 16 paths of the stochastic flow that descent at that rate in batches of 8 is
    near to."""
    method: Literal["auto", "dense", "series"] = "auto"
    """The way to integrate a truncation: dense holds all its tensors, series needs none of them but
    several copies of the parameters, and auto takes the one that should be quicker."""
    record: tuple[str, ...] = ("kernel",)
    """What to record along each run: kernel (K2, which is compared too), its spectrum (or
    spectrum:5), alignment, centred_alignment and effective_rank, and the margin of classes; of
    exact flow and descent alone movement, sharpness (or sharpness:3), gradient_covariance and, of a
    ResNet, blocks. --record alone for nothing."""


@dataclasses.dataclass(frozen=True)
class CompareSettings(Ordered):
    """Train the network exactly and by truncated hierarchies, and print the errors of each order.

    With --out it also writes orders.nc (everything; see nthsim show), orders.png, table.txt and
    config.toml, in place of those of an earlier run.
    """

    certify: bool = True
    """Whether to fit the power of t by which each order departs at small times (in float64, and of
    orders integrated dense)."""
    bounds: bool = False
    """Whether to evaluate a-priori bounds on the error of order 2 and on the kernel's movement
    (squared error only)."""
    audit: bool = False
    """Whether to solve everything once more, ten times as tightly, and to mark what is no larger
    than the change."""
    out: OutFolder = None
    """The folder for results, made if need be."""


@dataclasses.dataclass(frozen=True)
class FlowSettings(Timed):
    """Train the network by exact gradient flow, and print its losses over time.

    With --out it also writes flow.nc (all outputs and the trained network) and config.toml, in
    place of those of an earlier run.
    """

    out: OutFolder = None
    """The folder for results, made if need be."""


@dataclasses.dataclass(frozen=True)
class KernelsSettings(Common):
    """Compute kernels of the hierarchy on the training points, and print how large they are.

    With --out it also writes kernels.npz (K2, K3 and so on, x, y) and config.toml, in place of
    those of an earlier run.
    """

    orders: tuple[int, ...] = (2, 3, 4)
    """The orders r of the kernels K^(r), each at least 2."""
    out: OutFolder = None
    """The folder for results, made if need be."""


@dataclasses.dataclass(frozen=True)
class ScalingSettings(Solved):
    """Train networks of several widths or depths, many seeds of each, and print how errors scale.

    So do kernels at t = 0 and the drift of the tangent kernel.

    With --out it also writes scaling.nc (everything; see nthsim show), scaling.png, table.txt and
    config.toml, and keeps each finished batch of seeds in DIR/cells: the same command again, or one
    with further widths or seeds, computes only what is missing there.
    """

    widths: Annotated[
        tuple[int, ...], tyro.conf.arg(help_behavior_hint="(default: 16 32 64 128)")
    ] = ()
    """The widths to compare; --width has no meaning then."""
    depths: Annotated[tuple[int, ...], tyro.conf.arg(help_behavior_hint="(default: none)")] = ()
    """The depths to compare instead of widths; --depth has no meaning then."""
    seed: int = 0
    """The seed of the data's random draws; networks have seeds of their own."""
    seeds: int = 20
    """The number of networks of each size; their seeds are 0, 1, 2 and so on."""
    orders: tuple[int, ...] = (2, 3, 4)
    """The orders at which the hierarchy is truncated, each at least 2."""
    kernels: Annotated[
        int | None,
        tyro.conf.arg(metavar="INT", help_behavior_hint="(default: the highest order, at least 3)"),
    ] = None
    """The highest r of the kernels K^(r) that are measured at t = 0."""
    beside: Annotated[
        Literal["fcn", "resnet"] | None, tyro.conf.arg(help_behavior_hint="(default: none)")
    ] = None
    """A second kind of network, measured beside the first one."""
    chunk: Annotated[
        int | None,
        tyro.conf.arg(
            metavar="INT", help_behavior_hint="(default: what fits into memory, at most 64)"
        ),
    ] = None
    """The number of seeds in a batch, which is computed in one piece."""
    cluster: Annotated[
        str | None,
        tyro.conf.arg(metavar="ADDRESS", help_behavior_hint="(default: this process computes)"),
    ] = None
    """The address of a Dask scheduler, or its file, whose workers compute the batches."""
    out: OutFolder = None
    """The folder for results, made if need be."""


@dataclasses.dataclass(frozen=True)
class PlanSettings(Ordered):
    """Print what a comparison would take in memory and work, without starting it."""

    parameters: bool = False
    """Whether to list what trains too, array by array, and what does not."""


@dataclasses.dataclass(frozen=True)
class ShowSettings:
    """Print saved results again; with --out, draw their figures too."""

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """The .nc file of a result of nthsim, or a folder of such files, all of which are shown."""
    out: OutFolder = None
    """The folder for table.txt and the figures (a flow has none), made if need be."""


Command = (
    CompareSettings | FlowSettings | KernelsSettings | ScalingSettings | PlanSettings | ShowSettings
)


def is_file(data: str) -> bool:
    """Whether `data` names a file, rather than data that come with nthsim."""
    return data.lower().endswith((".npz", ".csv"))


def in_bytes(memory: str) -> int:
    """The number of bytes in an amount of memory such as 8, 8GB or 500 MB.

    Raises:
        ValueError: When it is no such thing, or less than a byte.
    """
    units = {"TB": 10**12, "GB": 10**9, "MB": 10**6, "KB": 10**3, "": 10**9}
    text = memory.strip().upper()
    unit = next(unit for unit in units if text.endswith(unit))
    try:
        amount = float(text.removesuffix(unit)) * units[unit]
    except ValueError:
        amount = math.nan
    if not (math.isfinite(amount) and amount >= 1):
        raise ValueError(f"`memory` must be an amount such as 8, 8GB or 500MB, but is {memory!r}.")
    return int(amount)
