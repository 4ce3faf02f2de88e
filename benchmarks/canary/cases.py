"""Cases by their numbers: what is drawn, called and judged."""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from scipy.special import logsumexp

import nthsim
from canary import calls, forms, networks
from canary.calls import Found, Subject
from canary.functions import ACTIVATIONS
from canary.reference import Loss, Reference
from nthsim.models import FCN
from nthsim.solvers import Auto, Explicit, Exponential, Implicit

#: By which value and movement may differ; movement, also by a fraction of the value's rounding.
#: float64: solvers are held to 1e-10 a step, sums of 50,000 rows round to some 1e-12. float32:
#: the same at 1e-5 and some 1e-5.
TOLERANCES = {"float64": (1e-9, 1e-6, 1e-4), "float32": (2e-4, 1e-2, 1e-2)}

#: How much more that may be where steps missed their tolerance at kinks, and were counted.
KINKS = 1e3

SIDES = (1, 2, 3, 4, 5, 7, 8, 16, 20, 31, 40)
FEW, SOME = (1, 2, 3, 5), (2, 7, 17, 33, 64)
MANY = (129, 300, 300, 1001, 4097, 16385, 20000, 20000, 33000, 40000, 50000)

#: Rows, features and widths at which XLA was seen to go wrong.
SUSPECT = ((300, 20, 16), (20000, 3, 3), (20000, 6, 3), (33000, 3, 3), (300, 36, 16))

#: How often which call, of hundred.
CALLS = {
    **{"flow": 26, "taylor 1": 4, "taylor 2": 14, "order 2": 6, "order 3": 6, "order 4": 2},
    **{"series 2": 6, "series 3": 5, "series 4": 2, "K 2": 8, "K 3": 6, "K 4": 3},
    **{"compare": 3, "perturbation": 2, "limit": 3, "certificate": 1, "width": 2, "depth": 1},
}


def _cross_entropy(f: np.ndarray, y: np.ndarray) -> np.ndarray:
    p = y - y.mean(axis=-1, keepdims=True) + 1 / y.shape[-1]
    return -np.sum(p * (f - logsumexp(f, axis=-1, keepdims=True)), axis=-1)


def _cross_slope(f: np.ndarray, y: np.ndarray) -> np.ndarray:
    p = y - y.mean(axis=-1, keepdims=True) + 1 / y.shape[-1]
    q = np.exp(f - logsumexp(f, axis=-1, keepdims=True))
    return q * p.sum(axis=-1, keepdims=True) - p


def _summed(a: np.ndarray) -> np.ndarray:
    return a.reshape(len(a), -1).sum(axis=1)


def huber(f: jax.Array, y: jax.Array) -> jax.Array:
    """A loss as a user may write it."""
    return jnp.sum(jnp.sqrt(1 + (f - y) ** 2) - 1)


LOSSES: dict[str, tuple[Callable[..., jax.Array], Loss]] = {
    "squared": (
        nthsim.squared_error,
        Loss(lambda f, y: _summed(0.5 * (f - y) ** 2), lambda f, y: f - y),
    ),
    "logistic": (
        nthsim.logistic,
        Loss(lambda f, y: np.logaddexp(0, -y * f), lambda f, y: -y / (1 + np.exp(y * f))),
    ),
    "cross-entropy": (nthsim.softmax_cross_entropy, Loss(_cross_entropy, _cross_slope)),
    "user's": (
        huber,
        Loss(
            lambda f, y: _summed(np.sqrt(1 + (f - y) ** 2) - 1),
            lambda f, y: (f - y) / np.sqrt(1 + (f - y) ** 2),
        ),
    ),
}


def run(number: int, *, unprotected: bool = False) -> dict[str, Any]:
    """Draw a case, call nthsim, and judge what it returns."""
    record = about(number)
    call, dtype = record["call"], record["precision"]
    rng = np.random.default_rng([number, 1])
    jax.config.update("jax_enable_x64", dtype == "float64")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            subject, facts = drawn(number, rng, call, dtype)
            record |= facts
            found = calls.bare(subject) if unprotected else called(subject, facts, rng)
    except nthsim.SolveError as error:
        verdict = "not finite" if error.trajectory.stop.reason == "non-finite" else "raised"
        return record | {"verdict": verdict, "reason": str(error)}
    except Exception as error:
        return record | {"verdict": "raised", "reason": f"{type(error).__name__}: {error}"[:300]}
    return record | judged(found, dtype)


def about(number: int) -> dict[str, Any]:
    """The call and the precision of a case."""
    rng = np.random.default_rng(number)
    call = str(rng.choice(list(CALLS), p=np.array(list(CALLS.values())) / sum(CALLS.values())))
    dtype = "float64" if call == "certificate" or rng.random() < 0.55 else "float32"
    return {"case": number, "call": call, "precision": dtype, "jax": jax.__version__}


def drawn(
    number: int, rng: np.random.Generator, call: str, dtype: str
) -> tuple[Subject, dict[str, Any]]:
    """The network, the data, the loss and the solver."""
    exact = call in ("limit", "width", "depth")
    kinds = ("fcn",) if exact else ("fcn", "resnet", "mlp", "conv", "normed", *forms.FORMS * 2)
    kind = str(rng.choice(kinds))
    name = "relu" if call == "limit" else str(rng.choice(list(ACTIVATIONS)))
    vector = kind not in forms.FORMS and not exact and bool(rng.random() < 0.3)
    k = int(rng.choice((2, 3))) if vector or kind == "|Wx|² vector" else "scalar"
    n, d, m, tests = _sizes(rng, call, kind, k)
    key, make = jr.key(number), None
    if kind in forms.FORMS:
        model, twin = forms.form(kind, name, (d, m, 2 if k == "scalar" else k), rng, dtype)
    elif kind == "conv":
        model, twin = networks.convolutional(name, (d, m, k), key)
    elif kind == "normed":
        model, twin = networks.normed(name, (d, m, k), key)
    elif exact:
        model, twin, make = _fcn(call, name, d, m, key)
    else:
        model, twin = networks.plain(kind, name, (d, m, k), rng, key)
    x = (rng.normal(size=(n + tests, d)) / (np.sqrt(d) if exact else 1)).astype(dtype)
    some = [name for name in LOSSES if (name == "cross-entropy") <= (k != "scalar")]
    some = [name for name in some if (name == "logistic") <= (k == "scalar")]
    loss = "squared" if call == "perturbation" else str(rng.choice(some))
    shape = (n,) if k == "scalar" else (n, k)
    y = np.sign(rng.normal(size=shape)) if loss == "logistic" else rng.normal(size=shape)
    y = np.exp(y) / np.exp(y).sum(axis=-1, keepdims=True) if loss == "cross-entropy" else y
    y = y.astype(dtype)
    function, mine = LOSSES[loss]
    theta, points = calls.arrays(model), x.astype(np.float64)
    reference = Reference(twin, theta, points, y.astype(np.float64), mine)
    data = nthsim.Dataset(x[:n], y, x[n:] if tests else None)
    tight = 1e-10 if dtype == "float64" else 1e-5
    choices = (Auto, Auto, Explicit, *((Exponential, Implicit) if n < 40 else ()))
    if call in ("width", "depth"):
        choices = (Auto,)
    solver = choices[rng.integers(len(choices))](rtol=tight)
    facts = {"call": call, "network": kind, "activation": name, "n": n, "d": d, "m": m, "k": k}
    facts |= {"tests": tests, "loss": loss, "solver": type(solver).__name__}
    return Subject(model, data, function, solver, reference, make), facts


def called(subject: Subject, facts: dict[str, Any], rng: np.random.Generator) -> list[Found]:
    """The one call of a case."""
    kind, _, p = facts["call"].partition(" ")
    if kind in ("flow", "taylor"):
        return calls.flow(subject, kind, int(p or 0), "auto")
    if kind in ("order", "series"):
        method = "dense" if kind == "order" else "series"
        return calls.flow(subject, "order", int(p), method)
    if kind == "K":
        layered = facts["network"] in ("fcn", "resnet", "mlp", "conv")
        methods = ("auto", "nested", *(("structured",) * 2 if layered else ()))
        method = str(rng.choice(methods))
        return calls.kernel(subject, int(p), method, first=facts["tests"] > 0)
    if kind == "limit":
        return calls.limit(subject, len(subject.model.layers))
    if kind in ("width", "depth"):
        size = facts["m"] if kind == "width" else len(subject.model.layers)
        return calls.scaling(subject, kind, size)
    return {"compare": calls.compare, "perturbation": calls.perturbation}.get(
        kind, calls.certificate
    )(subject)


def judged(found: list[Found], dtype: str) -> dict[str, Any]:
    """The worst of what was found, over what it may differ by."""
    near, moved, floor = TOLERANCES[dtype]
    worst: dict[str, Any] = {"verdict": "right", "error": 0.0, "of": "", "over": 0.0}
    for one in found:
        got, right = (np.asarray(a, np.float64) for a in (one.got, one.right))
        if got.shape != right.shape:
            return {"verdict": "WRONG", "error": np.inf, "of": f"{one.name}: {got.shape}"}
        if not np.isfinite(right).all():
            return {"verdict": "no reference", "of": one.name}
        if not np.isfinite(got).all():
            return {"verdict": "not finite", "error": np.inf, "of": one.name}
        scale, allowed = np.abs(right).max(), near
        if one.start is not None:
            scale, allowed = np.abs(right - one.start).max() + floor * scale, moved
            allowed *= KINKS if one.told else 1
        error = float(np.abs(got - right).max() / (scale + 1e-30))
        if error / allowed >= worst["over"]:
            worst |= {"error": error, "of": one.name, "over": error / allowed}
    worst["verdict"] = "right" if worst["over"] <= 1 else "WRONG"
    return worst


def _fcn(call: str, name: str, d: int, m: int, key: jax.Array):
    """Networks of one family, as a function of width or of depth."""
    depth = 2 if call == "depth" else 1

    def make(size: int, key: jax.Array) -> FCN:
        wide, deep = (size, depth) if call == "width" else (m, size)
        return FCN(d, wide, deep, activation=ACTIVATIONS[name][0], key=key)

    model = FCN(d, m, depth, activation=ACTIVATIONS[name][0], key=key)
    return model, networks.layered("fcn", name, (d, m, "scalar"), depth), make


def _sizes(rng: np.random.Generator, call: str, kind: str, k: int | str) -> tuple[int, ...]:
    """Rows, features, width and test points; the larger, the fewer of the others."""
    d, m = (int(rng.choice(SIDES)) for _ in range(2))
    d = max(d, 2) if kind in ("attention", "az·1x") else max(d, 4) if kind == "conv" else d
    m = max(m, 2)
    tests = int(rng.choice((0, 0, 2, 3)))
    if call in ("K 3", "order 3", "compare", "perturbation", "certificate", "width", "depth"):
        return int(rng.choice(FEW)), min(d, 8), min(m, 8), tests
    if call in ("K 4", "order 4"):
        return int(rng.choice((1, 2, 3))), min(d, 5), min(m, 5), min(tests, 2)
    if call in ("K 2", "order 2", "limit"):
        return int(rng.choice((*SOME, 129, 300))), d, m, tests
    if rng.random() < 0.15:
        return int(rng.choice((*FEW, *SOME))), d, m, tests
    n = int(rng.choice(MANY))
    if rng.random() < 0.4:
        n, d, m = SUSPECT[rng.integers(len(SUSPECT))]
        d = max(d, 4) if kind == "conv" else d
    while n * d * m > 2_000_000 and max(d, m) > 3:
        d, m = (max(d // 2, 4), m) if d > m else (d, max(m // 2, 2))
    return n, d, m, tests
