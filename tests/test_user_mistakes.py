"""Every mistake of a user gets one sentence, as a ValueError or as one line of the command."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import nthsim as nth
from nthsim.cli.main import main
from nthsim.inputs.integers import checked_integers
from nthsim.models import FCN, ResNet
from nthsim.solvers import Auto, Explicit, Until

KEY = jr.key(0)
TS = np.linspace(0.0, 1.0, 3)
DATA = nth.sphere(4, 2, dim=3)
NET = FCN(3, 4, 1, key=KEY)
VECTOR = FCN(3, 4, 1, out_size=2, key=KEY)
SIGNED = nth.Dataset(DATA.x, np.array([1.0, -1.0, 1.0, -1.0]))
TWO = nth.Dataset(DATA.x, np.eye(2)[[0, 1, 0, 1]])


class Mistake(NamedTuple):
    """What is done, the sentence that answers, and whether an argument has a wrong type."""

    name: str
    call: Callable[[], Any]
    sentence: str
    wrong_type: bool = False


class NoParameters(eqx.Module):
    def __call__(self, x):
        return jnp.sum(x)


class Matrix(eqx.Module):
    scale: jax.Array

    def __call__(self, x):
        return self.scale * jnp.outer(x, x)


class Raising(eqx.Module):
    scale: jax.Array

    def __call__(self, x):
        raise RuntimeError("first line\nsecond line")


def like(dtype):
    return jax.tree.map(lambda a: a.astype(dtype) if eqx.is_inexact_array(a) else a, NET)


def changed(value):
    weight = NET.readout.weight * 1.0
    return eqx.tree_at(lambda m: m.readout.weight, NET, weight.at[0, 0].set(value))


def mixed():
    return eqx.tree_at(lambda m: m.readout.weight, NET, replace_fn=lambda a: a.astype(jnp.float32))


def flow(model: Any = NET, data: Any = DATA, ts: Any = TS, loss: Any = nth.squared_error, **run):
    return nth.gradient_flow(model, data, nth.Run(ts, **run) if run else ts, loss=loss)


def kernel(x: Any, order: int = 2, **options):
    return nth.kernel(NET, x, order, **options)


def hierarchy(order: Any = 2, **options):
    return nth.hierarchy(NET, DATA, order, TS, **options)


def compare(curves: Any = (2,), **run):
    return nth.compare(NET, DATA, curves, nth.Run(TS, **run))


def limit(kind: Any = "fcn", x: Any = DATA.x, depth: Any = 2, **options):
    return nth.limit_kernel(kind, x, depth=depth, **options)


def limited(memory: int, call: Callable[[], Any]):
    with nth.memory_limit(memory):
        return call()


def widths(make_model: Any = None, sizes: Any = (4,), seeds: Any = 2, orders: Any = (), **options):
    maker = (lambda m, key: FCN(3, m, 1, key=key)) if make_model is None else make_model
    run = nth.Run(np.zeros(1), **{name: options.pop(name) for name in RUN if name in options})
    return nth.width_scaling(maker, DATA, sizes, seeds, orders, run, **options)


NO_WORD: Any = 3

#: What a run of a study over sizes is told.
RUN = ("solver", "until", "record", "checkpoint")

BIG = nth.sphere(64, 3, dim=3)
LEFT = r"`until` must be left out for a study over sizes, but is given"
ORDER = r"`order` must be an integer of at least 2, but is "

MISTAKES = [
    Mistake("decreasing ts", lambda: flow(ts=[0.0, 1.0, 0.5]), r"`ts` must increase strictly, but"),
    Mistake("empty ts", lambda: flow(ts=[]), r"`ts` must be a one-dimensional array"),
    Mistake("negative ts", lambda: flow(ts=[-1.0, 0.0]), r"`ts` must start at 0 or later, but"),
    Mistake("NaN in ts", lambda: flow(ts=[0.0, np.nan]), r"`ts` must be finite, but ts\[1\] is"),
    Mistake("ts in a table", lambda: flow(ts=np.ones((2, 2))), r"`ts` must be a one-dimensional"),
    Mistake("ts of words", lambda: flow(ts=["now"]), r"`ts` must be an array of real", True),
    Mistake("order 0", lambda: hierarchy(0), ORDER + "0"),
    Mistake("order 1", lambda: hierarchy(1), ORDER + "1"),
    Mistake("order 2.5", lambda: hierarchy(2.5), ORDER + r"2\.5", True),
    Mistake("order True", lambda: hierarchy(True), ORDER + "True"),
    Mistake("kernel of order 1", lambda: nth.kernel(NET, DATA.x, 1), ORDER + "1"),
    Mistake("no curves", lambda: compare(()), r"`curves` must be a sequence of"),
    Mistake("curves 3", lambda: compare(3), r"`curves` must be a sequence of", True),
    Mistake("orders (2, 1)", lambda: compare((2, 1)), ORDER + "1"),
    Mistake("no array of orders", lambda: compare(np.array([], int)), r"`curves` must be a seq"),
    Mistake("one order in an array", lambda: compare(np.array(2)), r"`curves` must be a seq", True),
    Mistake(
        "orders in floats",
        lambda: compare(np.array([2.0, 3.0])),
        ORDER + r"2\.0",
        True,
    ),
    Mistake("plan of order 1", lambda: nth.plan(NET, DATA, (1,), TS), ORDER + "1"),
    Mistake(
        "certificate of order 0",
        lambda: nth.certificate(NET, DATA, (0,)),
        ORDER + "0",
    ),
    Mistake(
        "certificate in float32",
        lambda: nth.certificate(like(jnp.float32), DATA, (2,)),
        r"`model` must be in float64 to be certified, but is float32",
    ),
    Mistake("no make_model", lambda: widths(3), r"`make_model` must be a function of a", True),
    Mistake("no families", lambda: widths({}), r"`make_model` must be a function of a size"),
    Mistake(
        "families of one name",
        lambda: widths({"a b": FCN, "A-B": FCN}),
        r"`make_model` must have names that differ in letters or digits, but has 'a b', 'A-B'",
    ),
    Mistake("width 0 of many", lambda: widths(sizes=(0, 4)), r"`widths` must be an integer of"),
    Mistake("no widths", lambda: widths(sizes=()), r"`widths` must be a sequence of integers"),
    Mistake(
        "depth 0 of many",
        lambda: nth.depth_scaling(lambda L, key: NET, DATA, (0,), 1, (), np.zeros(1)),
        r"`depths` must be an integer of at least 1, but is 0",
    ),
    Mistake("no seeds", lambda: widths(seeds=0), r"`seeds` must be an integer of at least 1, but"),
    Mistake("seed -1", lambda: widths(seeds=(-1, 2)), r"`seeds` must be an integer of at least 0"),
    Mistake(
        "kernels below the orders",
        lambda: widths(orders=(2, 4), kernels=3),
        r"`kernels` must be an integer of at least 4, but is 3",
    ),
    Mistake(
        "steps that many networks cannot share",
        lambda: widths(solver=nth.solvers.Exponential()),
        r"`solver` must be Auto or Explicit for networks that share their steps, but is Expo",
    ),
    Mistake(
        "tolerance below rounding for many",
        lambda: widths(solver=nth.solvers.Explicit(rtol=1e-16)),
        r"`rtol` must be at least 2\.2e-15 in float64, but is 1\.0e-16",
    ),
    Mistake(
        "chunk 0",
        lambda: widths(sweep=nth.Sweep(chunk=0)),
        r"`chunk` must be an integer of at least 1, but",
    ),
    Mistake(
        "chunk too large for memory",
        lambda: limited(
            110 * 10**6, lambda: widths(sizes=(2000,), seeds=999, sweep=nth.Sweep(999))
        ),
        r"`chunk` must be at most \d+ to fit into memory, but is 999",
    ),
    Mistake(
        "network too large for memory",
        lambda: limited(10**8, lambda: widths(sizes=(10**5,))),
        r"`(data|model|order)` must ",
    ),
    Mistake("kind", lambda: limit("mlp"), r"`kind` must be one of 'fcn', 'resnet', but is 'mlp'"),
    Mistake("which", lambda: limit(which="f"), r"`which` must be one of 'ntk', 'nngp', but is 'f'"),
    Mistake("depth of a limit", lambda: limit(depth=0), r"`depth` must be an integer of at least"),
    Mistake(
        "c_res of a limit", lambda: limit(c_res=0.5), r"`c_res` must be left out for fcn, which"
    ),
    Mistake("limit of one input", lambda: limit(x=DATA.x[0]), r"`x` must have shape \(n, d\) with"),
    Mistake(
        "other inputs of a limit",
        lambda: limit(x_first=np.ones((2, 5))),
        r"`x_first` must hold inputs of 3 numbers each, but holds such of 5\.",
    ),
    Mistake(
        "limit of a stranger",
        lambda: nth.limit_flow(eqx.nn.MLP(3, "scalar", 4, 1, key=KEY), DATA, TS),
        r"`model` must be an FCN or a ResNet of nthsim\.models to have a limit kernel, but is MLP",
    ),
    Mistake(
        "start",
        lambda: nth.limit_flow(NET, DATA, TS, start="one"),
        r"`start` must be one of 'network', 'zero', but is 'one'",
    ),
    Mistake(
        "loss of a perturbation",
        lambda: nth.perturbation(NET, DATA, TS, loss=nth.logistic),
        r"`loss` must be squared_error for perturbation theory, but is logistic\.",
    ),
    Mistake(
        "perturbation beyond memory",
        lambda: limited(2 * 10**8, lambda: nth.perturbation(NET, BIG, TS)),
        r"`data` must hold at most \d+ points, but holds 64: perturbation theory needs .* MB and",
    ),
    Mistake("curves in a word", lambda: compare("limit"), r"`curves` must be a sequence of", True),
    Mistake(
        "a curve in two ways",
        lambda: compare((nth.Order(3, method="dense"), 3)),
        r"`curves` must hold each curve once, but holds order 3 in two ways\.",
    ),
    Mistake("times to stop at in a study over sizes", lambda: widths(until=Until(loss=1.0)), LEFT),
    Mistake(
        "record",
        lambda: flow(record="kernel"),
        r"`record` must be a sequence of \"kernel\", \"spectrum\", ",
    ),
    Mistake(
        "record in a word",
        lambda: flow(record=("K",)),
        r"`record` must hold \"kernel\", \"spectrum\", ",
    ),
    Mistake(
        "record twice", lambda: flow(record=("kernel",) * 2), r"`record` must hold each name once"
    ),
    Mistake(
        "times to record at",
        lambda: flow(record=("kernel",), record_ts=[0.3]),
        r"`record_ts` must be some of `ts`, but holds 0\.3",
    ),
    Mistake(
        "falling times to record at",
        lambda: flow(record=("kernel",), record_ts=[1.0, 0.0]),
        r"`record_ts` must increase strictly, but record_ts\[1\] = 0\.0 follows 1\.0",
    ),
    Mistake("name", lambda: nth.Observable.of("f", len), r"`name` must be none that results have"),
    Mistake(
        "fn",
        lambda: nth.Observable.of("a", cast("Any", 3)),
        r"`fn` must be a function of a network",
        True,
    ),
    Mistake("two words", lambda: nth.Observable.of("a b", len), r"`name` must be a word of let"),
    Mistake(
        "unit", lambda: nth.Observable.of("a", len, unit=cast("Any", 3)), r"`unit` must be a", True
    ),
    Mistake(
        "axes", lambda: nth.Observable.of("a", len, axes=cast("Any", "k")), r"`axes` must map", True
    ),
    Mistake("label", lambda: nth.Run(TS, label="a/b"), r"`label` must be a word of at most"),
    Mistake("class of a curve", lambda: compare((nth.Taylor,)), r"`curves` must hold cu", True),
    Mistake(
        "coordinates",
        lambda: nth.Observable.of("a", len, axes={"mode": []}),
        r"`axes` must have one row of coordinates for mode, but has \[\]",
    ),
    Mistake(
        "own quantity that fails",
        lambda: flow(record=(nth.Observable.of("a", lambda net: net.nothing),)),
        r"`record` must hold functions that map a network to what they say, but a fails: .*nothing",
    ),
    Mistake(
        "own quantity of another shape",
        lambda: flow(record=(nth.Observable.of("a", lambda net: net.readout.weight),)),
        r"`record` must hold functions .* to what they say, but a has shape \(1, \d+\), not \(\)",
    ),
    Mistake(
        "own quantity of a truncation",
        lambda: nth.hierarchy(NET, DATA, 2, nth.Run(TS, record=(nth.Observable.of("a", len),))),
        r"`record` must hold nothing of a network's parameters for a truncation, which has none at",
    ),
    Mistake(
        "loss of bounds",
        lambda: nth.compare(NET, SIGNED, (2,), TS, bounds=True, loss=nth.logistic),
        r"`loss` must be squared_error for bounds, but is logistic\.",
    ),
    Mistake("method", lambda: hierarchy(method="dens"), r"`method` must be one of 'auto', 'dense'"),
    Mistake("width 0", lambda: FCN(3, 0, 1, key=KEY), r"`width` must be an integer of at least 1"),
    Mistake(
        "width in an array",
        lambda: FCN(3, np.ones((99, 2)), 1, key=KEY),  # pyright: ignore[reportArgumentType]
        r"`width` must be an integer of at least 1, but is array",
        True,
    ),
    Mistake("depth 0", lambda: ResNet(3, 4, 0, key=KEY), r"`depth` must be an integer of at least"),
    Mistake(
        "activation",
        lambda: FCN(3, 4, 1, activation="tahn", key=KEY),
        r"`activation` must be a callable or one of .*, but is 'tahn'",
    ),
    Mistake(
        "init", lambda: FCN(3, 4, 1, init="xavier", key=KEY), r"`init` must be one of .*'xavier'"
    ),
    Mistake("in_size", lambda: flow(FCN(5, 4, 1, key=KEY)), r"`model` must accept one input of"),
    Mistake("no callable", lambda: flow(3), r"`model` must be an Equinox module .* but is int"),
    Mistake(
        "model that is a function",
        lambda: flow(lambda x: jnp.sum(x)),
        r"`model` must be an instance of an Equinox module, .* but is of type function",
    ),
    Mistake(
        "model that is a class",
        lambda: flow(eqx.nn.MLP),
        r"`model` must be an instance of an Equinox module, but is the class MLP",
    ),
    Mistake("no parameters", lambda: flow(NoParameters()), r"`model` must have at least one float"),
    Mistake("matrix", lambda: flow(Matrix(jnp.ones(()))), r"`model` must map one input to a scal"),
    Mistake(
        "model that raises",
        lambda: flow(Raising(jnp.ones(()))),
        r"`model` must accept one input of shape \(3,\), but fails on it: first line",
    ),
    Mistake("NaN parameter", lambda: flow(changed(jnp.nan)), r"`model` must hold finite parameter"),
    Mistake(
        "complex model", lambda: flow(like(jnp.complex128)), r"`model` must hold real .* compl"
    ),
    Mistake("mixed precisions", lambda: flow(mixed()), r"`model` must hold real parameters of one"),
    Mistake(
        "float16 with default tolerances",
        lambda: flow(like(jnp.float16)),
        r"`rtol` must be at least .* in float16, but is",
    ),
    Mistake("data", lambda: flow(data=(TS, TS)), r"`data` must be a Dataset, but is tuple", True),
    Mistake("loss", lambda: flow(loss="mse"), r"`loss` must be a function of one output", True),
    Mistake(
        "loss of a vector", lambda: flow(VECTOR, TWO, loss=lambda f, y: f - y), r"`loss` must retur"
    ),
    Mistake(
        "loss of one argument",
        lambda: flow(loss=lambda f: f),
        r"`loss` must accept one output and one target, but fails on them: .*takes 1 positional",
    ),
    Mistake(
        "loss in a tuple",
        lambda: flow(loss=lambda f, y: (f, y)),
        r"`loss` must return a scalar for one sample, but returns tuple",
    ),
    Mistake(
        "logistic of numbers",
        lambda: flow(loss=nth.logistic),
        r"`y` must hold only -1 and \+1 for `logistic`, but holds -?\d\.\d+",
    ),
    Mistake(
        "logistic of other test targets",
        lambda: flow(
            data=nth.Dataset(DATA.x, np.sign(DATA.y), DATA.x_test, [1.0, 0.0]), loss=nth.logistic
        ),
        r"`y_test` must hold only -1 and \+1 for `logistic`, but holds 0",
    ),
    Mistake(
        "logistic of a vector", lambda: flow(VECTOR, TWO, loss=nth.logistic), r"`logistic` mus"
    ),
    Mistake(
        "softmax of a scalar",
        lambda: flow(loss=nth.softmax_cross_entropy),
        r"`y` must hold a row of probabilities per input for `softmax_cross_entropy`, but holds",
    ),
    Mistake("targets", lambda: flow(VECTOR), r"`squared_error` must compare outputs and targets"),
    Mistake(
        "one output in a vector",
        lambda: flow(FCN(3, 4, 1, out_size=1, key=KEY)),
        r"`squared_error` must compare .*, but .* has shape \(\); out_size=\"scalar\" gives",
    ),
    Mistake(
        "one target in a vector",
        lambda: flow(data=nth.Dataset(DATA.x, DATA.y[:, None])),
        r"`squared_error` must compare .*, but .* has shape \(1,\); `y` of shape \(n,\) gives",
    ),
    Mistake("rtol 0", lambda: Auto(rtol=0.0), r"`rtol` must be a positive number, but is 0\.0"),
    Mistake("rtol NaN", lambda: Explicit(rtol=np.nan), r"`rtol` must be a positive number, but is"),
    Mistake("atol < 0", lambda: Auto(atol=-1.0), r"`atol` must be a positive number, but is -1"),
    Mistake("no steps", lambda: Auto(max_steps=0), r"`max_steps` must be an integer of at least 1"),
    Mistake("rtol as text", lambda: Auto(rtol="1e-3"), r"`rtol` must be a positive number, but i"),
    Mistake("rtol True", lambda: Auto(rtol=True), r"`rtol` must be a positive number, but is True"),
    Mistake("atol in a list", lambda: Explicit(atol=[1e-3]), r"`atol` must be a positive number"),
    Mistake("2.5 steps", lambda: Auto(max_steps=2.5), r"`max_steps` must be an integer .* is 2\.5"),
    Mistake(
        "until by name",
        lambda: flow(until="loss"),
        r"`until` must be an Until, such as Until\(loss=1e-4\), but is 'loss'",
        True,
    ),
    Mistake(
        "until with an order to be found",
        lambda: nth.hierarchy(NET, DATA, "auto", nth.Run(TS, until=Until(loss=1e-3))),
        r"`until` must be left out where `order` is \"auto\", but is given",
    ),
    Mistake(
        "checkpoint that is no path",
        lambda: flow(checkpoint=3),
        r"`checkpoint` must be the name of a folder, but is 3",
        True,
    ),
    Mistake(
        "solver by name",
        lambda: flow(solver="tsit5"),
        r"`solver` must be an Auto, Explicit, .* of nthsim\.solvers, .*, but is 'tsit5'",
        True,
    ),
    Mistake(
        "solver of Diffrax",
        lambda: compare(solver=dfx.Tsit5()),
        r"`solver` must be an Auto, Explicit, .* such as Explicit\(rtol=1e-7\), but is Tsit5",
        True,
    ),
    Mistake(
        "solver left empty",
        lambda: nth.Run(TS, solver=None),
        r"`solver` must be an Auto, Explicit, .*, but is NoneType",
        True,
    ),
    Mistake(
        "method without error estimate",
        lambda: Explicit(method=dfx.Euler()),  # pyright: ignore[reportArgumentType]
        r"`method` must be an explicit Runge-Kutta method .* such as Dopri8\(\), but is Euler",
        True,
    ),
    Mistake(
        "implicit method",
        lambda: Explicit(method=dfx.Kvaerno5()),  # pyright: ignore[reportArgumentType]
        r"`method` must be an explicit Runge-Kutta method .* but is Kvaerno5",
        True,
    ),
    Mistake("rtol 1e-30", lambda: flow(solver=Auto(rtol=1e-30)), r"`rtol` must be at least 2\.2e"),
    Mistake(
        "float32 with rtol 1e-10",
        lambda: flow(like(jnp.float32), solver=Auto(rtol=1e-10)),
        r"`rtol` must be at least 1\.2e-06 in float32, but is 1\.0e-10: raise it or work in float",
    ),
    Mistake("kernel of words", lambda: kernel("x"), r"`x` must be an array", True),
    Mistake(
        "kernel of one input",
        lambda: nth.kernel(NET, DATA.x[0], 2),
        r"`x` must have shape \(n, \.\.\.\) with n ≥ 1, but has",
    ),
    Mistake(
        "other first inputs",
        lambda: nth.kernel(NET, DATA.x, 2, x_first=jnp.ones((2, 5))),
        r"`x_first` must hold inputs of shape \(3,\), but holds \(5,\)",
    ),
    Mistake(
        "chunk", lambda: nth.kernel(NET, DATA.x, 2, chunk_bytes=0), r"`chunk_bytes` must be an"
    ),
    Mistake(
        "wrong shapes", lambda: nth.Dataset(TS[:, None], TS[:2]), r"`y` must have shape \(3,\)"
    ),
    Mistake("NaN in x", lambda: nth.Dataset([[np.nan]], [1.0]), r"`x` must be finite, but x\[0, 0"),
    Mistake(
        "n_train", lambda: nth.digits(3, 8, n_train=999), r"`n_train` \+ `n_test` must be at mo"
    ),
    Mistake(
        "one class", lambda: nth.digits(3, n_train=4), r"`classes` must be at least two digits"
    ),
    Mistake(
        "class 11", lambda: nth.digits(3, 11, n_train=4), r"`classes` must be digits from 0 to"
    ),
    Mistake(
        "classes in a list",
        lambda: nth.digits([3, 8], n_train=4),  # pyright: ignore[reportArgumentType]
        r"`classes` must be separate arguments, as in digits\(3, 8, .*, but one is a list",
        True,
    ),
    Mistake(
        "classes in an array",
        lambda: nth.mnist(np.array([3, 8]), n_train=4),  # pyright: ignore[reportArgumentType]
        r"`classes` must be separate arguments, .* but one is a ndarray",
        True,
    ),
    Mistake(
        "no points at all",
        lambda: nth.sphere(0, -1, dim=3),
        r"`n_train` and `n_test` must be integers of at least 1 and 0, but are 0 and -1",
    ),
    Mistake(
        "inputs beyond memory",
        lambda: limited(10**9, lambda: nth.sphere(10**10, dim=3)),
        r"`n_train` \+ `n_test` must be at most 13888888 for dim = 3, but is 10000000000: the ",
    ),
    Mistake(
        "dimension beyond memory",
        lambda: limited(10**9, lambda: nth.sphere(1, dim=10**14)),
        r"`dim` must be at most 41666666, but is 100000000000000: the inputs need .* and 1\.0 GB",
    ),
    Mistake(
        "labels", lambda: nth.sphere(4, dim=3, labels="odd"), r"`labels` must be one of 'linea"
    ),
    Mistake(
        "missing file", lambda: nth.load_data("no/such.npz"), r"`path` must be a readable file"
    ),
    Mistake(
        "missing result",
        lambda: nth.Comparison.load("no/such.nc"),
        r"`path` must be a readable file",
    ),
    Mistake(
        "memory", lambda: nth.plan(NET, DATA, (2,), TS, memory=0), r"`memory` must be an integ"
    ),
    Mistake(
        "broken degree",
        lambda: nth.taylor(NET, DATA, 1.5, TS),  # pyright: ignore[reportArgumentType]
        r"`degree` must be an integer of at least 1, but is 1\.5",
        wrong_type=True,
    ),
    Mistake(
        "one Taylor degree alone",
        lambda: nth.compare(NET, DATA, (2, nth.Taylor(0), nth.Taylor(1)), TS),
        r"`degree` must be an integer of at least 1, but is 0",
    ),
    Mistake(
        "order beyond memory",
        lambda: limited(10**9, lambda: nth.hierarchy(NET, BIG, 7, TS, method="dense")),
        r"`order` must be at most 4 for n = 64 here, but is 7: order 7 needs .* GB and 1\.0 GB are "
        r"available; at order 7, n = 1\d fits",
    ),
    Mistake(
        "orders beyond memory",
        lambda: limited(
            10**9,
            lambda: nth.compare(
                NET,
                BIG,
                (nth.Order(2, method="dense"), nth.Order(12, method="dense")),
                TS,
            ),
        ),
        r"`orders` must be at most 4 for n = 64 here, but is 12: order 12 needs \S+e\+13 GB and",
    ),
    Mistake(
        "kernel beyond memory",
        lambda: limited(2 * 10**8, lambda: nth.kernel(NET, BIG.x, 5)),
        r"`order` must be at most 3 for n = 64 here, but is 5: order 5 needs",
    ),
    Mistake(
        "certificate beyond memory",
        lambda: limited(10**9, lambda: nth.certificate(NET, BIG, (nth.Order(6, method="dense"),))),
        r"`order` must be at most 4 for n = 64 here, but is 6",
    ),
    Mistake(
        "points beyond memory",
        lambda: limited(2 * 10**8, lambda: nth.kernel(NET, jnp.ones((9000, 3)), 2)),
        r"`x` must hold at most 3505 points, but holds 9000: order 2 needs 752 MB and 200 MB are",
    ),
    Mistake(
        "folder that is no path",
        lambda: widths(checkpoint=3),
        r"`checkpoint` must be the name of a folder, but is 3",
        True,
    ),
    Mistake(
        "a word for a flag",
        lambda: nth.load_data("a.csv", labels=cast("Any", "no")),
        r"`labels` must be True or False, but is 'no'",
        True,
    ),
    Mistake(
        "a number for a flag",
        lambda: nth.compare(NET, DATA, (2,), TS, audit=cast("Any", 1)),
        r"`audit` must be True or False, but is 1",
        True,
    ),
    Mistake(
        "a word for a column",
        lambda: nth.Dataset.labelled(np.ones((2, 1)), [0, 1], one_hot=cast("Any", "no")),
        r"`one_hot` must be True or False",
        True,
    ),
    Mistake(
        "loss by a word",
        lambda: nth.compare(NET, DATA, (2,), TS, loss=cast("Any", "mse")),
        r"`loss` must be a function of one output and one target, but is 'mse'",
        True,
    ),
    Mistake(
        "regulariser by its strength",
        lambda: nth.compare(NET, DATA, (2,), TS, regulariser=cast("Any", 0.1)),
        r"`regulariser` must be a function of the model, such as WeightDecay\(0.1\), but is 0.1",
        True,
    ),
    Mistake(
        "order by a word",
        lambda: hierarchy("3"),
        r"`order` must be an integer of at least 2 or \"auto\", but is '3'",
    ),
    Mistake(
        "place twice",
        lambda: nth.Observable.of("a", len, axes={"u": [1, 1]}),
        r"`axes` must have each coordinate of u once, but has \[1, 1\]",
    ),
    Mistake(
        "curve by a word",
        lambda: compare(("limit",)),
        r"`curves` must hold orders and curves such as LimitKernel\(\), but",
        True,
    ),
    Mistake(
        "digits by words",
        lambda: nth.digits(cast("Any", "3"), 8, n_train=3),
        r"`classes` must be digits from 0 to 9, but one is '3'",
        True,
    ),
    Mistake(
        "one observable",
        lambda: nth.Run(TS, record=cast("Any", nth.Observable.of("a", len))),
        r"`record` must be a sequence of",
        True,
    ),
    Mistake(
        "path None",
        lambda: nth.Trajectory.load(cast("Any", None)),
        r"`path` must be the name of a file",
        True,
    ),
    Mistake(
        "path in two words",
        lambda: nth.Trajectory.load("a\0b"),
        r"`path` must be the name of a file",
    ),
    Mistake(
        "data of path None",
        lambda: nth.load_data(cast("Any", None)),
        r"`path` must be the name of a file",
        True,
    ),
    Mistake(
        "label of a page",
        lambda: nth.Run(TS, label="a" * 101),
        r"`label` must be a word of at most 100",
    ),
    Mistake(
        "times from a word",
        lambda: nth.log_times(cast("Any", "a"), 1.0, 3),
        r"`t0` and `t1` must be positive and rise, but are 'a' and 1",
        True,
    ),
    Mistake(
        "rerun of no study",
        lambda: nth.rerun(cast("Any", 3)),
        r"`study` must be a Comparison, but is 3",
        True,
    ),
    Mistake(
        "maker that fails",
        lambda: widths(lambda m, key: {}[m]),
        r"`make_model` must make a network of a width and a key, but fails on 4: KeyError",
    ),
    Mistake("no sweep", lambda: widths(sweep=3), r"`sweep` must be a Sweep, but is 3", True),
    Mistake(
        "seed beyond JAX",
        lambda: widths(seeds=(1, 2**63)),
        r"`seeds` must be integers below 2\*\*63, but one is",
    ),
    Mistake(
        "observable called as a column",
        lambda: nth.Observable.of("error_loss", len),
        r"`name` must be none that",
    ),
    Mistake(
        "unit in two lines",
        lambda: nth.Observable.of("a", len, unit="a\nb"),
        r"`unit` must be a word",
    ),
    Mistake(
        "network beyond memory",
        lambda: limited(10**6, flow),
        r"`model` must be smaller to fit into memory, or that be larger, but exact flow needs",
    ),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_mistake_in_python_gets_one_sentence(mistake, request):
    if mistake.wrong_type and request.config.getoption("--jaxtyping-packages"):
        pytest.skip("beartype refuses wrong types before nthsim can; run `make test-wheel`")
    with pytest.raises(ValueError, match=f"^{mistake.sentence}") as caught:
        mistake.call()
    sentence = str(caught.value)
    assert re.match(r"^`\w+` .*must .*, but .*\.?$", sentence)
    assert "\n" not in sentence


# Words after `nthsim`, where {dir} is a folder that `folder` has filled, and the line that answers.
COMMAND_MISTAKES = {
    "no command": (
        "",
        r"`command` must be one of 'compare', .*, but is missing; see `nthsim --help`\.",
    ),
    "misspelt command": (
        "compar --width 3",
        r"`command` must be one of 'compare', .*, but is 'compar' \(did you mean compare\?\); see",
    ),
    "unknown command": ("train", r"`command` must be one of 'compare', .*, but is 'train'; see"),
    "misspelt flag": (
        "compare --widht 3",
        r"`--widht` must be a flag of `nthsim compare`, but is none \(did you mean --width\?\);",
    ),
    "one dash": ("flow -width 3", r"`-width` must be a flag .* is none \(did you mean --width\?\)"),
    "foreign flag": (
        "kernels --orders 2 --t1 3",
        r"`--t1` must be a flag of `nthsim kernels`, but",
    ),
    "no number": (
        "compare --width abc",
        r"`--width` must be an integer, but is 'abc'; see `nthsim compare --help`\.",
    ),
    "no time": ("compare --t1 soon", r"`--t1` must be a number, but is 'soon'; see"),
    "no choice": (
        "flow --model cnn",
        r"`--model` must be one of 'fcn', 'resnet', but is 'cnn'; see",
    ),
    "value missing": (
        "flow --width",
        r"`--width` must be followed by an integer, but is by nothing",
    ),
    "sizes missing": (
        "scaling --widths --seeds 2",
        r"`--widths` must be followed by integers such as 2 3 4, but is by nothing",
    ),
    "value of a switch": (
        "flow --log-times yes",
        r"`--log-times` must have no value, but is followed by 'yes'",
    ),
    "word too many": (
        "flow --width 3 4",
        r"`nthsim flow` must get only flags with their values, but gets '4' too; see",
    ),
    "fractional order": (
        "compare --orders 2.5",
        r"`--orders` must be integers such as 2 3 4, but is '2\.5'; see",
    ),
    "orders with commas": ("plan --orders 2,3", r"`--orders` must be integers .*, but is '2,3'"),
    "order 1": ("compare --orders 1", r"`--orders` must be an integer of at least 2, but is 1\."),
    "no order": ("compare --orders", r"`--orders` must be a sequence of"),
    "kernel of order 1": ("kernels --orders 1 2", r"`--orders` must be an integer of at least 2"),
    "width 0": ("flow --width 0", r"`--width` must be an integer of at least 1, but is 0\."),
    "depth 0": ("plan --depth 0", r"`--depth` must be an integer of at least 1, but is 0\."),
    "c_res of fcn": ("plan --c-res 0.5", r"`--c-res` must be left out for fcn, .* but is 0\.5\."),
    "negative c_res": (
        "plan --model resnet --c-res -1",
        r"`--c-res` must be a finite non-negative",
    ),
    "c_sigma in words": (
        "plan --c-sigma some",
        r"`--c-sigma` must be a number or auto, but is 'some'",
    ),
    "negative c_sigma": ("flow --c-sigma -1", r"`--c-sigma` must be a finite positive number, but"),
    "no weights": (
        "flow --weight-scale 0",
        r"`--weight-scale` must be a finite positive number",
    ),
    "logistic of a line": (
        "flow --data sphere:3 --loss logistic",
        r"`y` must hold only -1 and \+1",
    ),
    "negative seed": ("flow --seed -1", r"`--seed` must be an integer of at least 0, but is -1\."),
    "rtol 0": ("flow --rtol 0", r"`--rtol` must be a positive number, but is 0\.0\."),
    "rtol NaN": ("compare --rtol nan", r"`--rtol` must be a positive number, but is nan\."),
    "too small for float32": (
        "flow --precision float32 --rtol 1e-10",
        r"`--rtol` must be at least 1",
    ),
    "no steps": ("flow --max-steps 0", r"`--max-steps` must be an integer of at least 1, but is 0"),
    "negative t1": ("flow --t1 -1", r"`--t1` must be a positive number, but is -1\.0\."),
    "infinite t1": ("flow --t1 inf", r"`--t1` must be a positive number, but is inf\."),
    "endless seed": (f"flow --seed {10**20}", r"`--seed` must be below 2\*\*32, but is 1000"),
    "endless times": (
        f"flow --num-ts {10**9}",
        r"`--num-ts` must be at most 1000000, but is 1000000000\.",
    ),
    "one save time": (
        "flow --num-ts 1",
        r"`--num-ts` must be an integer of at least 2, but is 1\.",
    ),
    "unknown data": ("flow --data cifar", r"`--data` must be digits, .*, but is 'cifar'\."),
    "class -3": ("flow --data digits:3,-3", r"`--data` must be digits, .*, but is 'digits:3,-3'\."),
    "class 11": ("flow --data digits:3,11", r"`--data` must be digits from 0 to 9, but one is 11"),
    "one class": ("flow --data digits:3", r"`--data` must be at least two digits"),
    "dimension 0": (
        "flow --data sphere:0",
        r"`--data sphere:DIM` must be an integer of at least 1, but is 0\.",
    ),
    "too many points": ("flow --n-train 5000", r"`--n-train` \+ `--n-test` must be at most 357"),
    "no points": ("flow --n-train 0", r"`--n-train` must be an integer of at least 1, but is 0\."),
    "ten classes, nine points": (
        "flow --data digits --n-train 9",
        r"`--n-train` must be at least 10",
    ),
    "softmax of two classes": (
        "flow --loss softmax_cross_entropy",
        r"`softmax_cross_entropy` must",
    ),
    "logistic of ten": ("flow --data digits --loss logistic", r"`logistic` must get one output"),
    "missing data": (
        "flow --data {dir}/none.npz",
        r"`--data` must be a readable file, but .*none\.npz",
    ),
    "corrupt data": ("flow --data {dir}/corrupt.npz", r"`--data` must be an \.npz archive, but"),
    "CSV without numbers": ("flow --data {dir}/words.csv", r"`--data` must hold"),
    "CSV with semicolons": (
        "flow --data {dir}/semicolons.csv",
        r"`--data` must hold columns separated by commas, but those of .*\.csv are separated by s",
    ),
    "negative numbers of points": (
        "flow --n-train 0 --n-test -1",
        r"`--n-train` and `--n-test` must be integers of at least 1 and 0, but are 0 and -1\.",
    ),
    "endless points": (
        f"flow --data sphere:3 --memory 1 --n-train {10**10}",
        r"`--n-train` \+ `--n-test` must be at most 13888888 for dim = 3, but is 10000000016: the",
    ),
    "endless dimension": (
        f"plan --memory 1 --data sphere:{10**14}",
        r"`--data sphere:DIM` must be at most 41666666, but is 100000000000000: the inputs need",
    ),
    "endless width": (
        f"compare --memory 1 --data sphere:3 --width {10**10}",
        r"`--width` must be at most 7903, but is 10000000000: its weights need 1\.6e\+12 GB and",
    ),
    "plan of an endless width": (
        f"plan --data sphere:3 --width {10**20}",
        r"`--width` must be at most 7905692, but is 100000000000000000000: its weights need",
    ),
    "endless depth": (f"plan --depth {10**6}", r"`--depth` must be at most 1000, but is 1000000\."),
    "no memory": (
        "compare --memory 0",
        r"`--memory` must be an amount such as 8, 8GB or 500MB, but",
    ),
    "memory in words": ("plan --memory lots", r"`--memory` must be an amount .*, but is 'lots'\."),
    "little memory": (
        "compare --memory 1MB",
        r"`--memory` must be at least 101 MB, which every run takes, but is 1 MB\.",
    ),
    "too high an order": (
        "compare --memory 1 --orders 2 9 --method dense",
        r"`--orders` must be at most \d for n = 16",
    ),
    "missing TOML": ("flow --config {dir}/none.toml", r"`--config` must be a readable file, but"),
    "broken TOML": (
        "flow --config {dir}/broken.toml",
        r"`--config` must be a TOML file, but .* is not",
    ),
    "binary TOML": ("flow --config {dir}/corrupt.npz", r"`--config` must be a TOML file, but"),
    "misspelt key": (
        "flow --config {dir}/misspelt.toml",
        r"`--config` must hold only names of settings, .* 'n-trian' \(did you mean n_train\?\)\.",
    ),
    "unknown key": (
        "flow --config {dir}/unknown.toml",
        r"`--config` must hold only 'activation', 'atol', .*, 'widths', but .* holds 'quux'\.",
    ),
    "wrong value": (
        "flow --config {dir}/value.toml",
        r"`--config` must hold valid .*: `--width` must be an integer, but is 'many'; see",
    ),
    "folder as TOML": (
        "flow --config {dir}",
        r"`--config` must be a readable file, but .*directory",
    ),
    "out is a file": ("flow --out {dir}/words.csv", r"`--out` must be a folder to write to, but"),
    "out in a file": (
        "compare --out {dir}/words.csv/o",
        r"`--out` must be a folder to write to, but",
    ),
    "folder in the place of a file in out": (
        "kernels --data sphere:3 --width 4 --orders 2 --out {dir}/taken",
        r"`--out` must be the name of a file, but .*kernels\.npz is a folder\.",
    ),
    "loss 0 to stop at": ("flow --until-loss 0", r"`--until-loss` must be a positive number, but"),
    "nothing to show": (
        "show",
        r"`FILE` must be a result of nthsim compare, flow or scaling, but is missing; see",
    ),
    "folder of nothing to show": (
        "show {dir}/empty",
        r"`FILE` must be a result of nthsim, but the folder .*empty holds none\.",
    ),
    "folder with half a result": (
        "show {dir}",
        r"`FILE` must be an intact netCDF-4 file, but .*half\.nc is cut short, damaged or changed",
    ),
    "widths and depths": (
        "scaling --widths 3 4 --depths 1 2",
        r"`--widths` must be left out where `--depths` are given, but is 3 4\.",
    ),
    "width 0 among widths": (
        "scaling --widths 0 4",
        r"`--widths` must be an integer of at least 1",
    ),
    "no seeds": ("scaling --seeds 0", r"`--seeds` must be an integer of at least 1, but is 0\."),
    "beside itself": (
        "scaling --model fcn --beside fcn",
        r"`--beside` must be another network than `--model`, but both are fcn\.",
    ),
    "cluster nowhere": (
        "scaling --widths 3 --n-train 2 --orders 2 --cluster nowhere",
        r"`--cluster` must be (the address of a scheduler|left out without Dask)",
    ),
    "unknown curve": (
        "compare --curves limit gp",
        r"`--curves` must be words such as 'taylor-1', .*, 'noisy-0\.1:8', but one is 'gp'\.",
    ),
    "degree 0": (
        "compare --curves taylor-0",
        r"`--curves` must be an integer of at least 1, but is",
    ),
    "degree of a curve": (
        "plan --curves taylor",
        r"`--curves` must be words such as 'taylor-1', .*, but one is 'taylor'\.",
    ),
    "descent of no rate": (
        "compare --curves descent-sgd",
        r"`--curves` must name an optimiser after descent-, .*, but one is 'descent-sgd'\.",
    ),
    "noise of no batch": (
        "compare --curves noisy-0.1",
        r"`--curves` must name a rate and the points in a batch .*, but one is 'noisy-0\.1'\.",
    ),
    "noise of an empty batch": (
        "compare --curves noisy-0.1:0",
        r"`--curves` must be an integer of at least 1, but is 0\.",
    ),
    "two results to show": ("show --out o a.nc b.nc", r"`nthsim show` must get only one FILE, but"),
    "missing result": ("show {dir}/none.nc", r"`FILE` must be a readable file, but .*none\.nc"),
    "foreign result": (
        "show {dir}/corrupt.npz",
        r"`FILE` must be a netCDF-4 file, but .* is of another format\.",
    ),
    "half a result": (
        "show {dir}/half.nc",
        r"`FILE` must be an intact netCDF-4 file, but .* is cut short, damaged or changed\.",
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "corrupt.npz").write_bytes(b"PK\x03\x04\xff\xfe not a zip")
    (folder / "words.csv").write_text("x,y\none,two\n")
    (folder / "semicolons.csv").write_text("a;y\n1,5;2\n3;4,5\n")
    (folder / "broken.toml").write_text("width = = 3\n")
    (folder / "misspelt.toml").write_text("n-trian = 3\n")
    (folder / "unknown.toml").write_text("quux = 3\n")
    (folder / "value.toml").write_text('width = "many"\n')
    (folder / "empty").mkdir()
    (folder / "taken" / "kernels.npz").mkdir(parents=True)
    whole = folder / "whole.nc"
    nth.gradient_flow(NET, DATA, TS, progress=False).save(whole)
    (folder / "half.nc").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    return folder


@pytest.mark.parametrize("mistake", COMMAND_MISTAKES)
def test_mistake_on_the_command_line_gets_one_line_and_status_2(mistake, folder, capsys):
    words, line = COMMAND_MISTAKES[mistake]
    try:
        status = main(words.format(dir=folder).split())
    finally:
        jax.config.update("jax_enable_x64", True)  # the command may have worked in float32
    said = capsys.readouterr()
    assert status == 2
    assert said.out == ""
    assert re.fullmatch(rf"nthsim: {line}.*\n", said.err)


def test_any_plain_number_serves_as_a_setting():
    solver = Auto(rtol=np.float32(0.5), atol=jnp.array(0.25), max_steps=np.int64(7))
    assert (solver.rtol, solver.atol, solver.max_steps) == (0.5, 0.25, 7)
    assert [type(value) for value in (solver.rtol, solver.atol, solver.max_steps)] == [
        float,
        float,
        int,
    ]


@pytest.mark.parametrize(
    "orders", [[3, 2, 3], range(2, 4), np.array([2, 3]), jnp.array([3, 2]), (2, 3)]
)
def test_orders_come_in_any_sequence_of_integers(orders):
    assert checked_integers("orders", orders, 2) == (2, 3)
    if not isinstance(orders, jax.Array):
        assert nth.plan(NET, DATA, orders, TS).curves == (nth.Order(2), nth.Order(3))
