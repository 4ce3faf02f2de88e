"""Training to convergence: explicit, implicit and exponential steps, and what others offer.

    python benchmarks/stiff.py [--quick] [--out FOLDER] [--parts PART ...]

Everyone integrates the same flow of a tanh FCN on real digits (of MNIST where 8x8 digits do not
suffice) from t = 0 to the time at which the loss has fallen by a factor. The error is the root mean
square over training points of f at the end, against a tight solve; a row counts only if it is below
ACCURACY. Seconds are without compilation; work is in gradients of the loss, timed in the same run.
torchdiffeq runs in its own process and environment, made by the first run; SciPy's implicit methods
need a Jacobian of all parameters by all parameters, so they run where that is small.
"""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import diffrax as dfx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy.integrate import solve_ivp
from timing import growth, settings, turn, write

import nthsim as nth
from nthsim.dynamics.gradient_flow import exact
from nthsim.dynamics.pose import pose
from nthsim.dynamics.problem import Problem
from nthsim.dynamics.trajectory import Trajectory
from nthsim.models import FCN
from nthsim.solvers import Explicit, Exponential, Implicit, Stabilised, Until
from nthsim.solvers.solver import AbstractSolver

#: The most that f may be off at the end for a row to count.
ACCURACY = 1e-3

#: A solve is given up, and a lower bound, after so many times the first solver's seconds, or after
#: so many seconds.
TIMES, PATIENCE = 60.0, 240.0

PARTS = ("flows", "small", "condition", "truncations", "large")

TSIT5, DOPRI8 = dfx.Tsit5(), dfx.Dopri8()

#: Each with a tolerance that meets ACCURACY; explicit steps are as short as stability asks anyway.
SOLVERS: dict[str, AbstractSolver] = {
    "Exponential": Exponential(rtol=1e-2),
    "Tsit5": Explicit(rtol=1e-4, method=TSIT5, max_steps=10**7),
    "Dopri8": Explicit(rtol=1e-4, method=DOPRI8, max_steps=10**7),
    "Implicit": Implicit(rtol=1e-4),
    "Stabilised": Stabilised(rtol=1e-3),
}

#: Newton-GMRES and the eighth-order pair lose by so much that large cases omit them.
FOR_LARGE = ("Exponential", "Stabilised", "Tsit5")


def posed(n: int, width: int, depth: int = 2) -> Problem:
    """A tanh FCN and n real digits, threes and eights."""
    data = nth.digits(3, 8, n_train=n) if n <= 350 else nth.mnist(3, 8, n_train=n)
    net = FCN(data.x.shape[1], width, depth, key=jr.key(0))
    return pose(net, data, nth.squared_error)


def solved(
    problem: Problem, solver: AbstractSolver, t: float, until: Until = Until()
) -> Trajectory:
    """One solve to time t."""
    run = nth.Run([0.0, t], solver=solver, until=until, record=())
    return exact(problem, run, progress=False)


def gradient_seconds(problem: Problem) -> float:
    """The time of one gradient of the loss."""

    @jax.jit
    def gradient(theta, x, y):
        return jax.grad(lambda at: jnp.mean((problem.network(at, x) - y) ** 2) / 2)(theta)

    call = lambda: jax.block_until_ready(gradient(problem.theta, problem.x, problem.residual.y))  # noqa: E731
    call()
    return min(turn(call) for _ in range(5))


def row(problem: Problem, name: str, run: Trajectory, f: np.ndarray, unit: float) -> dict[str, Any]:
    """What a solve took, and how far its end is from f."""
    whole = run.stop.reason == "horizon"
    error = float(np.sqrt(np.mean((run.f[-1] - f) ** 2))) if whole else float("nan")
    seconds = run.stats.seconds
    found = {"method": name, "seconds": seconds, "steps": run.stats.steps, "whole": whole}
    return found | {"error": error, "gradients": seconds / unit, "counts": error < ACCURACY}


def target(problem: Problem, ratio: float) -> tuple[float, np.ndarray]:
    """When the loss has fallen to this part of its start, and f then, by a tight solve."""
    start = float(problem.residual.risk(problem.outputs()))
    until = Until(loss=ratio * start)
    t = solved(problem, Exponential(rtol=1e-4), 1e12, until).stop.t
    return t, solved(problem, Exponential(rtol=1e-6), t).f[-1]


def compared(problem: Problem, ratio: float, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """All solvers from the start to one loss, each after a short run that compiles."""
    unit = gradient_seconds(problem)
    t, f = target(problem, ratio)
    rows, patience = [], PATIENCE
    for name in names:
        solved(problem, SOLVERS[name], 1e-3 * t, Until(seconds=20.0))
        run = solved(problem, SOLVERS[name], t, Until(seconds=patience))
        patience = min(patience, 5 + TIMES * run.stats.seconds) if not rows else patience
        rows.append({"t": t, **row(problem, name, run, f, unit)})
        show(rows[-1])
    return rows


def show(r: dict[str, Any]) -> None:
    """One line of a table."""
    verdict = "" if r["counts"] else ("  not accurate" if r["whole"] else "  given up")
    print(
        f"  {r['method']:<22} {r['seconds']:8.2f} s  {r['steps']:>7} steps  "
        f"{r['gradients']:9.0f} gradients  error {r['error']:.1e}{verdict}",
        flush=True,
    )


def by_scipy(problem: Problem, ratio: float) -> list[dict[str, Any]]:
    """SciPy's solvers on the same field, parameters in one vector."""
    unit = gradient_seconds(problem)
    t, f = target(problem, ratio)
    theta, unravel = ravel_pytree(problem.theta)
    loss = lambda v: jnp.mean((problem.network(unravel(v), problem.x) - problem.residual.y) ** 2)  # noqa: E731
    field = jax.jit(jax.grad(lambda v: -loss(v) / 2))
    jacobian = jax.jit(jax.jacfwd(field))
    rows = []
    for method in ("Radau", "BDF", "LSODA", "RK45"):
        start = time.perf_counter()
        done = solve_ivp(
            lambda t, v: np.asarray(field(v)),
            (0, t),
            np.asarray(theta),
            method,
            rtol=1e-4,
            atol=1e-7,
            t_eval=[t],
            **({} if method == "RK45" else {"jac": lambda t, v: np.asarray(jacobian(v))}),
        )
        seconds = time.perf_counter() - start
        end = problem.network(unravel(jnp.asarray(done.y[:, -1])), problem.x)
        error = float(jnp.sqrt(jnp.mean((end - f) ** 2)))
        found = {"method": f"SciPy {method}", "seconds": seconds, "steps": int(done.nfev)}
        found |= {"error": error, "whole": True, "gradients": seconds / unit}
        rows.append(found | {"counts": error < ACCURACY, "t": t})
        show(rows[-1])
    return rows


def by_torchdiffeq(problem: Problem, ratio: float, folder: Path) -> dict[str, Any]:
    """Torchdiffeq's dopri5 on the same weights, inputs and cores."""
    from foreign import environment

    unit = gradient_seconds(problem)
    t, f = target(problem, ratio)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "torchdiffeq.npz"
    weights = {f"W{i}": np.asarray(w) for i, w in enumerate(jax.tree.leaves(problem.theta))}
    np.savez(path, x=problem.x, y=problem.residual.y, t=t, **weights)
    python, script = environment("torch"), Path(__file__).parent / "foreign_torchdiffeq.py"
    said = subprocess.run([python, script, path], check=True, stdout=subprocess.PIPE, text=True)
    seconds, evaluations = said.stdout.split()
    end = np.load(path.with_suffix(".f.npy"))
    error = float(np.sqrt(np.mean((end - f) ** 2)))
    found = {
        "method": "torchdiffeq dopri5",
        "seconds": float(seconds),
        "steps": int(evaluations) // 6,
    }
    found |= {"error": error, "whole": True, "gradients": float(seconds) / unit}
    show(found | {"counts": error < ACCURACY})
    return found | {"counts": error < ACCURACY, "t": t}


def truncations(n: int, width: int, p: int, method: str, t: float) -> dict[str, Any]:
    """One truncation by exponential and by explicit steps, to the same time."""
    problem = posed(n, width)
    net, data = problem.network.model(problem.theta), nth.Dataset(problem.x, problem.residual.y)
    found: dict[str, Any] = {"n": n, "width": width, "p": p, "method": method, "t": t}
    for name in ("Exponential", "Tsit5"):
        for seconds in (20.0, PATIENCE):  # the first compiles
            run = nth.hierarchy(
                net,
                data,
                p,
                nth.Run([t], solver=SOLVERS[name], until=Until(seconds=seconds), throw=False),
                method=method,
            )
        found |= {f"{name} seconds": run.stats.seconds, f"{name} steps": run.stats.steps}
        found |= {f"{name} to t": run.stop.t, f"{name} f": run.f[-1]}
    one, other = found.pop("Exponential f"), found.pop("Tsit5 f")
    whole = found["Tsit5 to t"] == found["Exponential to t"] == t
    found["apart"] = float(np.sqrt(np.mean((one - other) ** 2))) if whole else None
    found["ratio"] = found["Tsit5 seconds"] / found["Exponential seconds"]
    return found


def conditioned(n: int, width: int, angle: float) -> tuple[Problem, float]:
    """Pairs of inputs at an angle, which makes the tangent kernel as ill-conditioned as wanted."""
    x_key, d_key, y_key, net_key = jr.split(jr.key(3), 4)
    x, d = jr.normal(x_key, (n // 2, 16)), jr.normal(d_key, (n // 2, 16))
    x /= jnp.linalg.norm(x, axis=1, keepdims=True)
    d -= jnp.sum(d * x, axis=1, keepdims=True) * x
    d /= jnp.linalg.norm(d, axis=1, keepdims=True)
    inputs = jnp.concatenate([x, jnp.cos(angle) * x + jnp.sin(angle) * d])
    data = nth.Dataset(inputs, inputs @ jr.normal(y_key, (16,)))
    problem = pose(FCN(16, width, 2, key=net_key), data, nth.squared_error)
    rates = np.linalg.eigvalsh(np.asarray(problem.kernel(2)(problem.theta)))
    return problem, float(rates[-1] / rates[0])


def main() -> None:
    """Measure, print tables, and write them."""
    parser = settings(__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    nth.guard_process()
    quick, out, parts = arguments.quick, arguments.out, arguments.parts
    record: dict[str, Any] = {}
    for n in ((20,) if quick else (100, 350)) if "flows" in parts else ():
        record |= flows(n, out, quick=quick)
    if "small" in parts:
        record["small"] = smalls(quick=quick)
    if "condition" in parts:
        record["condition"] = conditions(quick=quick)
    if "truncations" in parts:
        record["truncations"] = all_truncations(quick=quick)
    if "large" in parts and not quick:
        record |= flows(1000, out, quick=quick)
    write(out / "stiff.json", record)


def flows(n: int, out: Path, *, quick: bool) -> dict[str, Any]:
    """Exact flow to several losses."""
    width, found = 32 if quick else 512, {}
    problem = posed(n, width)
    for ratio in (1e-2,) if quick else (1e-2, 1e-4, 1e-8):
        print(f"\nn = {n}, m = {width}, depth 2, loss to {ratio:g} of its start:", flush=True)
        small = n * (ratio < 1e-4) < 350 and n < 1000
        names = tuple(SOLVERS) if small else FOR_LARGE
        found[f"n={n} ratio={ratio:g}"] = compared(problem, ratio, names)
        if n == 350 and ratio == 1e-4:
            found["torchdiffeq"] = by_torchdiffeq(problem, ratio, out)
    return found


def smalls(*, quick: bool) -> list[dict[str, Any]]:
    """Where SciPy's solvers fit."""
    small, ratio = posed(20, 16), 1e-2 if quick else 1e-4
    print(f"\nn = 20, m = 16, where SciPy's Jacobians fit, loss to {ratio:g} of its start:")
    return [*compared(small, ratio, tuple(SOLVERS)), *by_scipy(small, ratio)]


def conditions(*, quick: bool) -> list[dict[str, Any]]:
    """Steps against the condition number."""
    print("\nsteps by the condition number of K^(2), to t = 3 n / its smallest eigenvalue:")
    cases = []
    for angle in (1.0, 1e-1) if quick else (0.3, 1e-1, 3e-2, 1e-2, 3e-3):
        problem, condition = conditioned(20, 64 if quick else 512, angle)
        rates = np.linalg.eigvalsh(np.asarray(problem.kernel(2)(problem.theta)))
        run = solved(problem, Exponential(rtol=1e-3), 3 * len(problem.x) / float(rates[0]))
        cases.append({"condition": condition, "steps": run.stats.steps})
        print(f"  condition {condition:9.2e}: {run.stats.steps} steps", flush=True)
    exponent = growth([c["condition"] for c in cases], [c["steps"] for c in cases])
    print(f"  steps grow like condition^{exponent:.2f}")
    return cases


def all_truncations(*, quick: bool) -> list[dict[str, Any]]:
    """Dense and series, orders 3 and 4."""
    print("\ntruncations to the time at which exact flow has the loss at a part of its start:")
    sizes = [(20, 32, 3, "dense", 1e-2), (20, 32, 3, "series", 1e-2)]
    if not quick:
        sizes = [(100, 512, 3, "dense", 1e-8), (40, 512, 4, "dense", 1e-8)]
        # At n = 350 order 3 blows up before exact flow is there.
        sizes += [(100, 512, 3, "series", 1e-8), (100, 512, 4, "series", 1e-8)]
    rows = []
    for n, m, p, method, ratio in sizes:
        t, _ = target(posed(n, m), ratio)
        r = truncations(n, m, p, method, t)
        rows.append(r)
        print(f"  p = {p} {method}, n = {n}, m = {m}, to {ratio:g}: {r['ratio']:.1f} times sooner")
        for name in ("Exponential", "Tsit5"):
            print(f"    {name}: {r[f'{name} seconds']:.2f} s in {r[f'{name} steps']} steps")
        late = f"given up at t = {r['Tsit5 to t']:.4g} of {t:.4g}: a lower bound"
        print(f"    apart by {r['apart']:.1e}" if r["apart"] is not None else f"    Tsit5 {late}")
    return rows


if __name__ == "__main__":
    sys.exit(main())
