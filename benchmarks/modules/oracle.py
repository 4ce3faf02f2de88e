"""Kernels, exact flow and order 3 of a module, by derivatives of our own on its parameters.

Nothing here is nthsim's: the parameters are one vector, the inputs are taken one after another, and
both flows are solved by the classical Runge-Kutta method with many small steps, in NumPy.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

#: Steps of each half of a flow, at first and at most, and how little twice as many may change, over
#: what moves.
STEPS, MOST_STEPS, SETTLED = 50, 6400, 1e-5

#: What finite differences of the eighth order step by, in parts of the largest parameter, and
#: their weights; error about 1e-10 in float64.
STEP, WEIGHTS = 1e-2, (4 / 5, -1 / 5, 4 / 105, -1 / 280)

Vector = jax.Array


class Truth(NamedTuple):
    """What is right, with samples and outputs joined: N of them.

    `flow` and `third` are the outputs (2, N) at half of the horizon and at all of it, `trained` the
    parameters at the end, `derivatives` the way that K^(3) was found.
    """

    targets: np.ndarray
    horizon: float
    f: np.ndarray
    kernels: dict[int, np.ndarray]
    flow: np.ndarray
    trained: np.ndarray
    third: np.ndarray
    derivatives: str


def split(model: Any) -> tuple[Any, Any]:
    """What trains, and the rest: the state of a layer does not."""
    is_state = lambda node: isinstance(node, eqx.nn.State | eqx.nn.StateIndex)  # noqa: E731

    def trains(node: Any) -> Any:
        return jax.tree.map(lambda a: not is_state(node) and eqx.is_inexact_array(a), node)

    return eqx.partition(model, jax.tree.map(trains, model, is_leaf=is_state))


def parameters(model: Any) -> np.ndarray:
    """What trains, as one vector."""
    return np.asarray(ravel_pytree(split(model)[0])[0])


def truth(model: Any, x: jax.Array) -> Truth:
    """Compute all that is compared with."""
    trained, rest = split(model)
    theta, unravel = ravel_pytree(trained)
    if jnp.issubdtype(x.dtype, jnp.floating):
        x = x.astype(theta.dtype)

    def f(at: Vector) -> Vector:
        whole = eqx.combine(unravel(at), rest)
        return jax.lax.map(whole, x).reshape(-1)

    jacobian = _first_that_works((jax.jit(jax.jacrev(f)), jax.jit(jax.jacfwd(f))), theta)
    J = jacobian(theta)
    f0, K2 = np.asarray(jax.jit(f)(theta)), np.asarray(J @ J.T)
    K3, derivatives = _third_kernel(lambda at: jacobian(at) @ jacobian(at).T, theta, J)
    targets = f0 + 0.3 * np.random.default_rng(7).normal(size=f0.shape)
    n = len(x)
    horizon = float(n / np.linalg.eigvalsh(K2)[-1])
    field = jax.jit(lambda at: -jacobian(at).T @ (f(at) - targets) / n)
    kept = lambda at: jnp.asarray(at, theta.dtype)  # noqa: E731
    path = _flow(lambda at: np.asarray(field(kept(at))), np.asarray(theta, float), horizon)
    flow = np.array([f(kept(at)) for at in path])
    third = _third_order(f0, K2, K3, targets, horizon, n)
    return Truth(targets, horizon, f0, {2: K2, 3: K3}, flow, path[-1], third, derivatives)


def _first_that_works(functions: tuple[Callable, ...], at: Vector) -> Callable:
    *others, last = functions
    for function in others:
        try:
            function(at)
        except Exception:  # JAX has no such derivative of what the module is made of
            continue
        return function
    return last


def _third_kernel(
    kernel: Callable[[Vector], jax.Array], theta: Vector, J: jax.Array
) -> tuple[np.ndarray, str]:
    """K^(3), the derivative of K^(2) along each gradient; forward if JAX can, else backward."""
    along = lambda g: jax.jvp(kernel, (theta,), (g,))[1]  # noqa: E731
    ways = {
        "forward": lambda: jax.jit(jax.vmap(along, out_axes=-1))(J),
        "backward": lambda: jax.jit(jax.jacrev(kernel))(theta) @ J.T,
    }
    for name, way in ways.items():
        try:
            return np.asarray(way()), name
        except Exception:  # a function with a derivative of its own, a loop
            continue
    differences = [_difference(kernel, theta, g) for g in J]
    return np.stack(differences, axis=-1), "differences"


def _difference(kernel: Callable[[Vector], jax.Array], theta: Vector, g: Vector) -> np.ndarray:
    h = STEP * jnp.abs(theta).max() / jnp.abs(g).max()
    pairs = enumerate(WEIGHTS, start=1)
    total = sum(w * (kernel(theta + i * h * g) - kernel(theta - i * h * g)) for i, w in pairs)
    return np.asarray(total / h)


def _flow(field: Callable, start: np.ndarray, horizon: float) -> list[np.ndarray]:
    """The states at half of the horizon and at all of it, in as many steps as it takes."""
    steps, path = STEPS, _stepped(field, start, horizon, STEPS)
    while steps < MOST_STEPS:
        steps, before = 2 * steps, path[-1]
        path = _stepped(field, start, horizon, steps)
        if np.abs(path[-1] - before).max() <= SETTLED * np.abs(path[-1] - start).max():
            return path
    raise ArithmeticError(f"{steps} steps are too few for this flow")


def _stepped(field: Callable, start: np.ndarray, horizon: float, steps: int) -> list[np.ndarray]:
    """The same by the classical Runge-Kutta method, in so many steps for each half."""
    at, h, halves = start, horizon / (2 * steps), []
    for _ in range(2):
        for _ in range(steps):
            a = field(at)
            b = field(at + h / 2 * a)
            c = field(at + h / 2 * b)
            at = at + h / 6 * (a + 2 * b + 2 * c + field(at + h * c))
        halves.append(at)
    return halves


def _third_order(
    f0: np.ndarray, K2: np.ndarray, K3: np.ndarray, targets: np.ndarray, horizon: float, n: int
) -> np.ndarray:
    """Outputs (2, N) of the hierarchy with K^(3) frozen, in NumPy."""
    N = len(f0)

    def field(state: np.ndarray) -> np.ndarray:
        f, K = state[:N], state[N:].reshape(N, N)
        residual = (f - targets) / n
        return -np.concatenate([K @ residual, (K3 @ residual).ravel()])

    path = _flow(field, np.concatenate([f0, K2.ravel()]), horizon)
    return np.array([state[:N] for state in path])
