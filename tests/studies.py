"""Small comparisons that several test files look at, each computed once."""

import dataclasses
import functools

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array
from oracles import Product

import nthsim as nth
from nthsim.models import FCN
from nthsim.solvers import Auto, Explicit

TS = np.linspace(0.0, 2.0, 6)


def absolute_quartic(f: Array, y: Array) -> Array:
    """A loss that nthsim does not know."""
    return jnp.sum((f - y) ** 4)


def points(outputs: int | None = None, *, tests: int = 2) -> nth.Dataset:
    """Three training points on the sphere, and test points."""
    rng = np.random.default_rng(0)
    tail = () if outputs is None else (outputs,)
    x, y = rng.standard_normal((3 + tests, 4)), rng.standard_normal((3 + tests, *tail))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return nth.Dataset(x[:3], y[:3], x[3:], y[3:]) if tests else nth.Dataset(x, y)


def same(one: object, other: object) -> bool:
    """Whether two trees agree in every bit; `eqx.tree_equal` would tell NaN from NaN."""
    if jax.tree.structure(one) != jax.tree.structure(other):
        return False
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(_bits(a) == _bits(b) for a, b in pairs)


def _bits(leaf: object) -> object:
    if isinstance(leaf, jax.Array | np.ndarray):
        array = np.asarray(leaf)
        return (type(leaf), array.dtype, array.shape, array.tobytes())
    return leaf


@functools.cache
def scalar() -> nth.Comparison:
    """A FCN with test points, orders 2 and 3, and a certificate made up."""
    net = FCN(4, 8, 1, key=jr.key(0))
    study = nth.compare(
        net, points(), (2, 3), nth.Run(TS, solver=Auto(rtol=1e-5)), certify=False, progress=False
    )
    made_up = nth.Certificate(
        orders=(2, 3),
        ts=np.geomspace(1e-3, 1e-1, 4),
        errors=np.array([[1e-6, 2e-5, 5e-4, 1e-2], [np.nan, 1e-9, 2e-7, 1e-4]]),
        slopes=np.array([2.0123, np.nan]),
        windows=np.array([[1e-3, 1e-1], [np.nan, np.nan]]),
    )
    asked = dataclasses.replace(study.asked, certify=True)
    return dataclasses.replace(study, asked=asked, certificate=made_up)


@functools.cache
def predicted() -> nth.Comparison:
    """A FCN beside both theories, with bounds and without a certificate."""
    net = FCN(4, 8, 1, activation="erf", key=jr.key(2))
    return nth.compare(
        net,
        points(),
        (2, nth.Perturbation(), nth.LimitKernel()),
        nth.Run(TS, solver=Auto(rtol=1e-5)),
        bounds=True,
        certify=False,
        progress=False,
    )


@functools.cache
def vector() -> nth.Comparison:
    """A module of Equinox with two outputs, a loss and a solver that are not the defaults."""
    net = eqx.nn.MLP(4, 2, 5, 1, activation=jax.nn.softplus, key=jr.key(1))
    return nth.compare(
        net,
        points(2, tests=0),
        (2,),
        nth.Run(TS, solver=Explicit(rtol=1e-5, atol=1e-9, max_steps=500, method=dfx.Tsit5())),
        loss=absolute_quartic,
        certify=False,
        progress=False,
    )


@functools.cache
def blow_up() -> nth.Comparison:
    """The product network at y = 0.3, whose order 3 ends at t = 1.7129."""
    data = nth.Dataset(np.ones((1, 1)), np.array([0.3]))
    net = Product(jnp.ones(3))
    ts = np.linspace(0.0, 3.0, 16)
    return nth.compare(
        net, data, (3,), nth.Run(ts, solver=Auto(rtol=1e-5)), certify=False, progress=False
    )
