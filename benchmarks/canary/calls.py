"""Calls of nthsim's public functions, each with the numbers that it must come to."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import nthsim
from canary.reference import Reference


class Subject(NamedTuple):
    """What a call is made on: a model, its data and loss, and what they must come to."""

    model: Any
    data: nthsim.Dataset
    loss: Callable[..., jax.Array]
    solver: Any
    reference: Reference
    make: Callable[[int, jax.Array], Any] | None = None


class Found(NamedTuple):
    """Numbers of nthsim and what they must be; `start` is what they moved from, if they did.

    `told` says that steps missed their tolerance at kinks, as the result says itself.
    """

    name: str
    got: Any
    right: Any
    start: Any = None
    told: bool = False


def flow(subject: Subject, kind: str, p: int, method: str) -> list[Found]:
    """Exact flow, a Taylor model of degree p or the hierarchy of order p."""
    tau = subject.reference.horizon()
    options = {"loss": subject.loss, "progress": False}
    times = nthsim.Run([0.0, tau], solver=subject.solver)
    if kind == "flow":
        run = nthsim.gradient_flow(subject.model, subject.data, times, **options)
    elif kind == "taylor":
        run = nthsim.taylor(subject.model, subject.data, p, times, **options)
    else:
        options["method"] = method
        run = nthsim.hierarchy(subject.model, subject.data, p, times, **options)
    found = ran(subject, run, kind, p, tau)
    if kind == "flow":
        _, state = subject.reference.trained("flow", p, tau)
        theta = np.concatenate([np.ravel(a) for a in subject.reference.theta])
        trained = [np.ravel(a) for a in arrays(run.model)]
        told = run.stats.forced > 0
        found.append(Found("parameters", np.concatenate(trained), theta + state, theta, told))
    return found


def ran(subject: Subject, run: nthsim.Trajectory, kind: str, p: int, tau: float) -> list[Found]:
    """What a trajectory recorded at 0 and at tau."""
    reference = subject.reference
    f0, f1 = reference.outputs(), reference.trained(kind, p, tau)[0]
    name = f"{kind} {p}" if p else kind
    found = [
        Found(f"{name}: f(0)", _all(run, 0), f0),
        Found(f"{name}: f", _all(run, 1), f1, f0, run.stats.forced > 0),
    ]
    return found + _losses(name, reference, run, f0, f1)


def kernel(subject: Subject, r: int, method: str, *, first: bool) -> list[Found]:
    """K^(r) on the training points, or with test points in the first slot."""
    n, data = subject.reference.n, subject.data
    x_first = data.x_test if first else None
    got = np.asarray(
        nthsim.kernel(subject.model, data.x, r, x_first=x_first, method=method, progress=False)
    )
    right = subject.reference.kernels(r)[r - 2]
    N = right.shape[0] // len(subject.reference.x) * n
    rows = slice(N, None) if first else slice(N)
    right = right[(rows, *(slice(N),) * (r - 1))]
    return [Found(f"K^({r})", got.reshape(right.shape), right)]


def compare(subject: Subject) -> list[Found]:
    """Exact flow, orders 2 and 3 and a Taylor model in one study, with tangent kernels."""
    reference, tau = subject.reference, subject.reference.horizon()
    options = {"loss": subject.loss, "certify": False, "progress": False}
    times = nthsim.Run([0.0, tau], solver=subject.solver)
    study = nthsim.compare(subject.model, subject.data, (2, 3, nthsim.Taylor(2)), times, **options)
    found = ran(subject, study.exact, "flow", 0, tau)
    for p in (2, 3):
        found += ran(subject, study.curve(p), "order", p, tau)
    found += ran(subject, study.curve(nthsim.Taylor(2)), "taylor", 2, tau)
    _, state = reference.trained("flow", 0, tau)
    start, end = reference.kernels(2)[0], reference.kernels(2, state)[0]
    N = start.shape[0] // len(reference.x) * reference.n
    got = np.asarray(study.exact.kernel).reshape(2, N, N)
    found.append(Found("K^(2) at 0", got[0], start[:N, :N]))
    told = study.exact.stats.forced > 0
    found.append(Found("K^(2) after", got[1], end[:N, :N], start[:N, :N] if told else None, told))
    return found


def perturbation(subject: Subject) -> list[Found]:
    """The first order in the third and the fourth kernel, as equations of its own."""
    reference, tau = subject.reference, subject.reference.horizon()
    run = nthsim.perturbation(subject.model, subject.data, [0.0, tau], progress=False)
    f0 = reference.outputs()
    return [
        Found("perturbation: f(0)", _all(run, 0), f0),
        Found("perturbation: f", _all(run, 1), reference.perturbed(tau), f0),
    ]


def limit(subject: Subject, depth: int) -> list[Found]:
    """Training with the kernel of infinite width of a relu network."""
    reference = subject.reference
    tau = reference.horizon()
    times = nthsim.Run([0.0, tau], solver=subject.solver)
    options = {"loss": subject.loss, "progress": False}
    run = nthsim.limit_flow(subject.model, subject.data, times, **options)
    f0 = reference.outputs()
    f1 = reference.frozen(reference.arc_cosine(depth), tau)
    found = [Found("limit: f(0)", _all(run, 0), f0), Found("limit: f", _all(run, 1), f1, f0)]
    return found + _losses("limit", reference, run, f0, f1)


def certificate(subject: Subject) -> list[Found]:
    """The errors of orders 2 and 3 at the latest of its times up to a tenth of the last."""
    got = nthsim.certificate(subject.model, subject.data, (2, 3), loss=subject.loss, progress=False)
    at = int(np.searchsorted(got.ts, 0.1 * got.ts[-1]))
    reference, t = subject.reference, float(got.ts[at])
    exact = reference.trained("flow", 0, t)[0][: reference.n]
    scale = np.sqrt(np.mean((exact - reference.outputs()[: reference.n]) ** 2))
    found = []
    for row, p in zip(got.errors, (2, 3), strict=True):
        missed = reference.trained("order", p, t)[0][: reference.n] - exact
        right = np.sqrt(np.mean(missed**2))
        pair = [row[at], scale], [right, scale]  # relative to how far f moved
        found.append(Found(f"certificate, order {p}", *pair, [0.0, 0.0]))
    return found


def scaling(subject: Subject, axis: str, size: int) -> list[Found]:
    """Kernels and drift of networks of one size and two seeds."""
    assert subject.make is not None
    reference = subject.reference
    tau = reference.horizon()
    study = nthsim.width_scaling if axis == "width" else nthsim.depth_scaling
    times = nthsim.Run([0.0, tau], solver=subject.solver)
    options = {"kernels": 3, "loss": subject.loss, "progress": False}
    run = study(subject.make, subject.data, [size], 2, (2,), times, **options)
    found = []
    for seed in range(2):
        theta = arrays(subject.make(size, jax.random.key(seed)))
        mine = reference._replace(theta=theta)
        N, f0 = run.initial_f.shape[-1], mine.outputs()[: reference.n].ravel()
        second, third = mine.kernels(3)
        second, third = second[:N, :N], third[:N, :N, :N]
        after = mine.kernels(2, mine.trained("flow", 0, tau)[1])[0][:N, :N]
        sizes = [np.sqrt(np.mean(second**2)), np.sqrt(np.mean(third**2))]
        drift = np.linalg.norm(after - second) / np.linalg.norm(second)
        found += [
            Found(f"seed {seed}: f", run.initial_f[0, 0, seed], f0),
            Found(f"seed {seed}: K^(2)", run.initial_kernels[0, 0, seed], second),
            Found(f"seed {seed}: rms", run.kernel_rms[0, 0, seed], sizes),
            Found(f"seed {seed}: drift", [run.drift[0, 0, seed, -1], 1.0], [drift, 1.0]),
        ]
    return found


def bare(subject: Subject) -> list[Found]:
    """No nthsim, but `jax.jit` as it is: outputs, a gradient, a polynomial of degree 2."""
    data, n = subject.data, subject.reference.n
    reference = subject.reference._replace(x=subject.reference.x[:n])
    theta, rest = eqx.partition(subject.model, eqx.is_array)
    f, pull = reference.evaluated([reference.theta], 0)
    slope = reference.flat(pull(reference.seed(f)))
    move = reference.shaped(-20 * reference.horizon() * slope)
    v = jax.tree.unflatten(jax.tree.structure(theta), [jnp.asarray(a, data.x.dtype) for a in move])
    move = [np.asarray(a, np.float64) for a in jax.tree.leaves(v)]

    def outputs(theta: Any, x: jax.Array) -> jax.Array:
        return jax.vmap(eqx.combine(theta, rest))(x)

    def risk(theta: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.mean(jax.vmap(subject.loss)(outputs(theta, x), y))

    def polynomial(theta: Any, v: Any, x: jax.Array) -> jax.Array:
        push = lambda at: jax.jvp(lambda at: outputs(at, x), (at,), (v,))[1]  # noqa: E731
        first, second = jax.jvp(push, (theta,), (v,))
        return outputs(theta, x) + first + second / 2

    gradient = np.concatenate(
        [np.ravel(a) for a in jax.tree.leaves(jax.jit(jax.grad(risk))(theta, data.x, data.y))]
    )
    moved = reference.evaluated([reference.theta, move], 2)[0]
    return [
        Found("jax.jit: f", np.asarray(jax.jit(outputs)(theta, data.x)), f),
        Found("jax.jit: gradient", gradient, slope),
        Found("jax.jit: polynomial", np.asarray(jax.jit(polynomial)(theta, v, data.x)), moved, f),
    ]


def arrays(model: Any) -> list[np.ndarray]:
    """The parameters of a model, in double precision."""
    leaves = jax.tree.leaves(model)
    return [np.asarray(a, np.float64) for a in leaves if isinstance(a, jax.Array)]


def _all(run: nthsim.Trajectory, at: int) -> np.ndarray:
    """Outputs on training points and then on test points."""
    return run.f[at] if run.f_test is None else np.concatenate([run.f[at], run.f_test[at]])


def _losses(name: str, reference: Reference, run: nthsim.Trajectory, *f: np.ndarray):
    right = [reference.mean_loss(each) for each in f]
    told = run.stats.forced > 0
    return [Found(f"{name}: loss", run.loss, right, right[:1] if told else None, told)]
