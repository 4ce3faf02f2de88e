"""Hierarchies without tensors: what a right-hand side costs, how that grows, and against dense.

    python benchmarks/series.py [--quick] [--out FOLDER]

Work is in gradients of the loss, timed in turns with what is compared. Series and dense truncations
are first shown to agree on all kinds of networks.
"""

import itertools
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from timing import growth, matmul_peak, race, settings, write

import nthsim as nth
from nthsim.budget.choice import choose
from nthsim.budget.work import gradient_flops, series_side_flops
from nthsim.dynamics.pose import pose
from nthsim.dynamics.problem import Problem
from nthsim.dynamics.run import problem_size
from nthsim.dynamics.start import Start
from nthsim.dynamics.truncations import series_hierarchy
from nthsim.models import FCN
from nthsim.solvers import Explicit

#: The most gradients that a right-hand side may cost, by order.
BOUNDS = {2: 1.6, 3: 3.0, 4: 7.0, 5: 12.0, 6: 17.0}


def posed(n: int, width: int, depth: int, *, in_size: int = 64) -> Problem:
    """A tanh FCN and n random points on the sphere, to be fitted with random signs."""
    x_key, y_key, net_key = jr.split(jr.key(0), 3)
    x = jr.normal(x_key, (n, in_size))
    x /= jnp.linalg.norm(x, axis=1, keepdims=True)
    data = nth.Dataset(x, jnp.sign(jr.normal(y_key, (n,))))
    return pose(FCN(in_size, width, depth, key=net_key), data, nth.squared_error)


def side(problem: Problem, order: int):
    """A compiled right-hand side of the series at a state that has moved, and its scratch bytes."""
    system = series_hierarchy(Start(problem, progress=False).expandable(order), order)
    keys = iter(jr.split(jr.key(1), 100))
    move = lambda a: 1e-2 * jr.normal(next(keys), a.shape, a.dtype)  # noqa: E731
    state = jax.tree.map(move, system.initial())
    arrays, rest = eqx.partition((system, state), eqx.is_array)

    @jax.jit
    def field(arrays):
        system, state = eqx.combine(arrays, rest)
        return system.field(state)

    compiled = field.lower(arrays).compile()
    scratch = compiled.memory_analysis().temp_size_in_bytes
    return (lambda: compiled(arrays)), scratch


def gradient(problem: Problem):
    """The compiled gradient of the loss."""

    @jax.jit
    def compute(theta, x, y):
        loss = lambda at: jnp.mean((problem.network(at, x) - y) ** 2) / 2  # noqa: E731
        return jax.grad(loss)(theta)

    return lambda: compute(problem.theta, problem.x, problem.residual.y)


def first(call) -> jax.Array:
    """One array of a result, to wait for."""
    return jax.tree.leaves(call())[0]


def in_gradients(problem: Problem, orders: list[int]) -> dict[int, float]:
    """Right-hand sides of these orders, all timed in turn with the gradient."""
    calls = {str(p): side(problem, p)[0] for p in orders} | {"gradient": gradient(problem)}
    waits = {name: lambda call=call: first(call) for name, call in calls.items()}
    times, _ = race(waits)
    unit = times["gradient"]["best"]
    return {p: times[str(p)]["best"] / unit for p in orders}


def agreement(orders: list[int]) -> float:
    """The largest difference between the two methods, of anything, on all kinds of networks."""
    worst = 0.0
    ts = np.linspace(0.0, 1.0, 4)
    how = nth.Run(ts, solver=Explicit(rtol=1e-9), record=("kernel",))
    for (name, model), p in itertools.product(networks().items(), orders):
        outputs = (3,) if "outputs" in name else ()
        data = nth.Dataset(*points(5, outputs, 0), *points(2, outputs, 1))
        loss = nth.softmax_cross_entropy if outputs else nth.squared_error
        problem = pose(model, data, loss)
        dense, series = (truncated(problem, p, method, how) for method in ("dense", "series"))
        for field in ("f", "f_test", "loss", "kernel", "kernel_test"):
            a, b = (np.asarray(getattr(run, field)) for run in (dense, series))
            apart = float(np.abs(a - b).max() / (1 + np.abs(a).max()))
            assert apart < 1e-7, f"{name}, order {p}: {field} differs by {apart}"
            worst = max(worst, apart)
    return worst


def truncated(problem: Problem, order: int, method: str, how: nth.Run) -> nth.Trajectory:
    """One truncation, from nothing."""
    curve = nth.Order(order, method=method).settled(problem_size(problem, how))
    return curve.trajectory(how, Start(problem, progress=False), progress=False)


def points(n: int, outputs: tuple[int, ...], seed: int) -> tuple[jax.Array, jax.Array]:
    """Inputs of four numbers, and targets."""
    x_key, y_key = jr.split(jr.key(seed))
    return jr.normal(x_key, (n, 4)), jr.normal(y_key, (n, *outputs))


def networks() -> dict[str, eqx.Module]:
    """One of each kind; the networks of the tests."""
    import sys

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from networks import NETWORKS

    return NETWORKS


def growths(order: int, centre: tuple[int, int, int]) -> dict:
    """Exponents of the right-hand side's time in n and P, and its scratch memory by n."""
    found = {}
    for i, name in ((0, "n"), (1, "m")):
        sizes, seconds, scratch, parameters = [], [], [], []
        for factor in (1, 2, 4, 8) if i == 0 else (1, 2, 4):
            n, m, depth = (c * factor if i == j else c for j, c in enumerate(centre))
            problem = posed(n, m, depth)
            call, memory = side(problem, order)
            times, _ = race({"series": lambda call=call: first(call)})
            sizes.append((n, m)[i])
            seconds.append(times["series"]["best"])
            scratch.append(memory)
            parameters.append(problem_size(problem).parameters)
        axis = sizes if i == 0 else parameters
        found[name] = {"sizes": axis, "seconds": seconds, "scratch": scratch}
        found[name]["exponent"] = growth(axis, seconds)
    return found


def grid(quick: bool) -> list[dict]:
    """Whole runs by either method over sizes, with the kernels that dense needs.

    Each is run twice, as the first compiles.
    """
    rows = []
    cells = [(8, 32), (16, 64)] if quick else [(16, 64), (16, 512), (64, 64), (64, 512)]
    for (n, m), p in itertools.product(cells, (2, 3) if quick else (2, 3, 4)):
        problem = posed(n, m, 2)
        how = nth.Run(np.linspace(0.0, 2.0, 3), solver=Explicit(rtol=1e-6), record=())
        row = {"n": n, "m": m, "p": p}
        for method in ("dense", "series"):
            clocks = []
            for _ in range(2):
                clock = time.perf_counter()
                run = truncated(problem, p, method, how)
                clocks.append(time.perf_counter() - clock)
            row |= {f"{method} first": clocks[0], method: clocks[1], f"{method} f": run.f}
        apart = float(np.abs(row.pop("dense f") - row.pop("series f")).max())
        assert apart < 1e-4, f"n = {n}, m = {m}, order {p}: f differs by {apart}"
        rows.append(row | {"chosen": choose(problem_size(problem), p, "auto").method})
    return rows


def main() -> None:
    """Measure, print tables, and write them."""
    arguments = settings(__doc__).parse_args()
    jax.config.update("jax_enable_x64", True)
    nth.guard_process()
    quick = arguments.quick

    worst = agreement([2, 3] if quick else [2, 3, 4, 5])
    print(f"series and dense agree on {len(networks())} kinds of networks: {worst:.1e} at most")

    n, m, depth = (20, 16, 2) if quick else (350, 512, 3)
    problem = posed(n, m, depth)
    size, peak = problem_size(problem), matmul_peak()
    costs = in_gradients(problem, list(range(2, 5 if quick else 9)))
    print(f"\nright-hand side of the series in gradients, n = {n}, m = {m}, depth {depth}:")
    for p, cost in costs.items():
        bound = f"at most {BOUNDS[p]:g} wanted" if p in BOUNDS else ""
        products = series_side_flops(size, p) / gradient_flops(size)
        print(f"  p = {p}: {cost:5.2f}  ({products:.2f} by products of matrices)  {bound}")
    floor = gradient_flops(size) / peak
    print(f"  one gradient at the machine's peak, {peak / 1e9:.0f} GFLOP/s: {floor * 1e3:.1f} ms")

    grown = growths(4, (20, 32, 2) if quick else (250, 256, 3))
    for name, label in (("n", "n"), ("m", "P")):
        row = grown[name]
        print(f"\np = 4 grows like {label}^{row['exponent']:.2f} over {row['sizes']}")
        print("  scratch memory, MB: " + ", ".join(f"{b / 1e6:.0f}" for b in row["scratch"]))

    rows = grid(quick)
    print("\nwhole runs to t = 2, seconds with (and without) compilation:")
    for r in rows:
        print(
            f"  n {r['n']:>3} m {r['m']:>4} p {r['p']}: dense {r['dense first']:7.2f} "
            f"({r['dense']:7.3f})  series {r['series first']:7.2f} ({r['series']:7.3f})  "
            f"auto takes {r['chosen']}"
        )
    record = {"agreement": worst, "in gradients": costs, "peak": peak, "growth": grown}
    write(arguments.out / "series.json", record | {"grid": rows})


if __name__ == "__main__":
    main()
