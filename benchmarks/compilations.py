"""Compiles two formulas that XLA gets wrong again and again, through six public functions.

A wrong program may come out of one compilation in several, so each call is compiled anew as often
as `--times` says, by XLA's own defaults, in both precisions by turns, and compared with NumPy,
where nothing is compiled. `PYTHONPATH=. PYTHON benchmarks/compilations.py` tries the JAX of another
environment. Status 1 if a number was wrong.
"""

import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from timing import settings, write

import nthsim as nth
from nthsim.solvers.xla import MiscompilationWarning

#: Rows, inputs and width: many rows for what is linear in them, few for what is quadratic.
MANY, FEW, QUICK = (40_000, 3, 3), (300, 20, 16), (30, 4, 3)

#: What a number may be off by, over the largest: before training, and after it.
ALLOWED = {"float32": (1e-3, 1e-3), "float64": (1e-11, 1e-4)}


class Squared(eqx.Module):
    """|W x|²; jax 0.10.2 alone gets its square wrong at tens of thousands of x."""

    W: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        """Evaluate at one input."""
        return jnp.sum((self.W @ x) ** 2)


class Summed(eqx.Module):
    """z · (A x) with a matrix A of ones; jax 0.10.2 to 0.12.0.1 get it wrong."""

    W: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        """Evaluate at one input."""
        return jnp.sum(self.W * (jnp.ones((len(self.W), len(x)), x.dtype) @ x))


class Twin(NamedTuple):
    """A formula in NumPy: f at many x, Σ r ∇f, K^(2), and how order 3 moves that against r."""

    f: Callable[..., np.ndarray]
    pulled: Callable[..., np.ndarray]
    kernel: Callable[..., np.ndarray]
    turned: Callable[..., np.ndarray]


def _squared_turned(W: np.ndarray, x: np.ndarray, r: np.ndarray) -> np.ndarray:
    half = (x @ (2 * W @ (x.T * r) @ x).T) @ (W @ x.T)
    return 4 * (x @ x.T) * (half + half.T)


TWINS = {
    Squared: Twin(
        lambda W, x: np.sum((x @ W.T) ** 2, axis=1),
        lambda W, x, r: 2 * W @ (x.T * r) @ x,
        lambda W, x, z: 4 * ((x @ W.T) @ (z @ W.T).T) * (x @ z.T),
        _squared_turned,
    ),
    Summed: Twin(
        lambda W, x: np.sum(W) * np.sum(x, axis=1),
        lambda W, x, r: np.full(len(W), np.sum(r * np.sum(x, axis=1))),
        lambda W, x, z: len(W) * np.outer(np.sum(x, axis=1), np.sum(z, axis=1)),
        lambda W, x, r: np.zeros((len(x), len(x))),
    ),
}


class Case(NamedTuple):
    """A formula, its data in one precision, and a time in which it learns much."""

    twin: Twin
    W: np.ndarray
    x: np.ndarray
    y: np.ndarray
    tau: float
    model: Any
    data: nth.Dataset

    @property
    def ts(self) -> list[float]:
        """The start and the end."""
        return [0.0, self.tau]

    def trained(self) -> np.ndarray:
        """Outputs after exact flow."""
        residual = lambda W: (self.twin.f(W, self.x) - self.y) / len(self.x)  # noqa: E731
        velocity = lambda W: -self.twin.pulled(W, self.x, residual(W))  # noqa: E731
        return self.twin.f(_runge_kutta(velocity, self.W, self.tau), self.x)

    def truncated(self, p: int) -> np.ndarray:
        """Outputs after the hierarchy of order 2 or 3."""
        n, start = len(self.x), self.twin.f(self.W, self.x)
        kernel = self.twin.kernel(self.W, self.x, self.x)

        def velocity(state: np.ndarray) -> np.ndarray:
            r = (state[0] - self.y) / n
            turned = self.twin.turned(self.W, self.x, r) if p == 3 else np.zeros((n, n))
            return -np.concatenate([(state[1:] @ r)[None], turned])

        return _runge_kutta(velocity, np.concatenate([start[None], kernel]), self.tau)[0]


def case(formula: type, sizes: tuple[int, int, int], seed: int, dtype: str) -> Case:
    """Random numbers, the same for both sides."""
    n, d, m = sizes
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, d)), rng.normal(size=n)
    W = rng.normal(size=(m, d) if formula is Squared else (m,)) / np.sqrt(d)
    x, y, W = (a.astype(dtype).astype(float) for a in (x, y, W))
    some = x[: FEW[0]]
    tau = 0.3 * len(some) / np.linalg.norm(TWINS[formula].kernel(W, some, some), 2)
    data = nth.Dataset(x.astype(dtype), y.astype(dtype))
    return Case(TWINS[formula], W, x, y, tau, formula(jnp.asarray(W, dtype)), data)


def _runge_kutta(velocity: Callable[..., Any], state: np.ndarray, tau: float, steps: int = 40):
    h = tau / steps
    for _ in range(steps):
        a = velocity(state)
        b = velocity(state + h / 2 * a)
        c = velocity(state + h / 2 * b)
        state = state + h / 6 * (a + 2 * b + 2 * c + velocity(state + h * c))
    return state


#: A number found, the right one, and whether it stands at the start.
Found = tuple[Any, Any, bool]


def gradient_flow(at: Case) -> list[Found]:
    """Exact flow."""
    run = nth.gradient_flow(at.model, at.data, at.ts, progress=False)
    return [(run.f[0], at.twin.f(at.W, at.x), True), (run.f[1], at.trained(), False)]


def kernel(at: Case) -> list[Found]:
    """K^(2), all points in its first slot."""
    few = at.x[:15]
    found = nth.kernel(at.model, at.data.x[:15], 2, x_first=at.data.x, progress=False)
    return [(found, at.twin.kernel(at.W, at.x, few), True)]


def hierarchy(at: Case) -> list[Found]:
    """Order 3 as a series."""
    run = nth.hierarchy(at.model, at.data, 3, at.ts, method="series", progress=False)
    return [(run.f[0], at.twin.f(at.W, at.x), True), (run.f[1], at.truncated(3), False)]


def taylor(at: Case) -> list[Found]:
    """The polynomial of degree 2, which both formulas are."""
    run = nth.taylor(at.model, at.data, 2, at.ts, progress=False)
    return [(run.f[0], at.twin.f(at.W, at.x), True), (run.f[1], at.trained(), False)]


def compare(at: Case) -> list[Found]:
    """Exact flow beside order 2."""
    study = nth.compare(at.model, at.data, (2,), at.ts, certify=False, progress=False)
    found, right = study.curve(2).f, at.truncated(2)
    kernel = at.twin.kernel(at.W, at.x, at.x)
    start = at.twin.f(at.W, at.x)
    return [(study.exact.f[1], at.trained(), False), (found[1], right, False),
            (found[0], start, True), (study.exact.kernel[0], kernel, True)]  # fmt: skip


def width_scaling(at: Case) -> list[Found]:
    """One network's outputs and kernel, which its size and seed stand for."""
    run = nth.width_scaling(
        lambda m, key: at.model, at.data, [1], 1, (2,), at.ts, kernels=2, progress=False
    )
    kernel = at.twin.kernel(at.W, at.x, at.x)[: run.initial_f.shape[-1]]
    kernel = kernel[:, : len(kernel)]
    return [(run.initial_f[0, 0, 0], at.twin.f(at.W, at.x)[: len(kernel)], True),
            (run.initial_kernels[0, 0, 0], kernel, True)]  # fmt: skip


CALLS = {gradient_flow: MANY, kernel: MANY} | dict.fromkeys(
    (hierarchy, taylor, compare, width_scaling), FEW
)


def off(found: list[Found], dtype: str) -> float:
    """The largest error, over what is allowed."""
    worst = 0.0
    for got, right, start in found:
        allowed = ALLOWED[dtype][0 if start else 1] * np.abs(right).max()
        error = np.abs(np.asarray(got, float) - right).max() / allowed
        worst = max(worst, float(error) if np.isfinite(error) else np.inf)
    return worst


def repeated(formula: type, call: Callable[[Case], list[Found]], sizes: Any, times: int) -> dict:
    """How many compilations came out wrong, and the largest error over what is allowed."""
    wrong, worst, before = 0, 0.0, len(COMPILED)
    for i in range(times):
        jax.clear_caches()
        dtype = ("float64", "float32")[i % 2]
        error = off(call(case(formula, sizes, i, dtype)), dtype)
        wrong, worst = wrong + (error > 1), max(worst, error)
    return {"wrong": wrong, "of": times, "programs": len(COMPILED) - before, "worst": worst}


#: The programs compiled until now.
COMPILED = []


def main() -> int:
    """Print and keep how many of the results of each call were wrong."""
    parser = settings(__doc__)
    parser.add_argument("--times", type=int, default=200, help="compilations of each formula, call")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: COMPILED.append(event) if "backend_compile" in event else None
    )
    warnings.simplefilter("ignore", MiscompilationWarning)
    record, version, times = {}, jax.__version__, 2 if arguments.quick else arguments.times
    for formula in (Squared, Summed):
        for call, sizes in CALLS.items():
            name = f"{formula.__name__} {call.__name__}"
            record[name] = repeated(formula, call, QUICK if arguments.quick else sizes, times)
            print(f"jax {version} {name:24} {record[name]}", flush=True)
    write(arguments.out / f"compilations-{version}.json", record)
    return int(any(row["wrong"] for row in record.values()))


if __name__ == "__main__":
    sys.exit(main())
