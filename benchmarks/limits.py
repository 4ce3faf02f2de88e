"""Infinite width and 1/m against networks: kernels by Monte Carlo, and perturbation theory.

Prints the limit's NTK beside the mean over networks of width 4096, with standard errors; the time
that `limit_kernel` takes; and the errors that perturbation theory leaves of the frozen kernel's.
Checks the values of the limit that are known from elsewhere. `--quick` shrinks everything.
"""

import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from timing import settings, write

import nthsim as nth
from nthsim.models import FCN, ResNet

#: Two points on the circle with the inner product 0.6.
X = np.array([[1.0, 0.0], [0.6, 0.8]])

#: NTK(x, x) and NTK(x, x') by 120-point quadrature.
KNOWN: tuple[tuple[str, dict[str, Any], float, float], ...] = (
    ("fcn", {"activation": "erf", "depth": 1}, 1.03396909, 0.53982341),
    ("fcn", {"activation": "erf", "depth": 2}, 1.09860621, 0.54531538),
    ("fcn", {"activation": "relu", "depth": 1}, 1.0, 0.55022361),
    ("fcn", {"activation": "relu", "depth": 2}, 0.75, 0.38610408),
    ("resnet", {"activation": "erf", "depth": 2, "c_sigma": 1.0}, 1.30862064, 0.67615225),
    ("resnet", {"activation": "erf", "depth": 3, "c_sigma": 1.0}, 1.28749433, 0.66484658),
)

ACTIVATIONS = ("erf", "tanh", "relu", "softplus")
DEPTH = 3

#: Networks of each kind, and how many of them.
WIDTH, DRAWS = 4096, 16
QUICK_WIDTH, QUICK_DRAWS = 64, 8

#: Widths and seeds of perturbation theory.
WIDTHS, SEEDS = (64, 256, 1024), 8


def check_known() -> float:
    """The largest relative difference from the known values, which have eight digits."""
    worst = 0.0
    for kind, options, same, other in KNOWN:
        kernel = np.asarray(nth.limit_kernel(kind, X, **options))
        worst = max(worst, *np.abs(kernel[0] / [same, other] - 1))
    assert worst < 1e-7, worst
    return float(worst)


def sampled(network: type[FCN] | type[ResNet], activation: str, width: int, draws: int) -> dict:
    """The limit, and mean and standard error over networks, for NTK(x, x) and NTK(x, x')."""
    points = [jnp.asarray(x) for x in X]

    def draw(key: jax.Array) -> jax.Array:
        net = network(2, width, DEPTH, activation=activation, c_sigma="auto", key=key)
        grads = [jax.tree.leaves(eqx.filter_grad(lambda net, x=x: net(x))(net)) for x in points]
        return jnp.stack([sum(map(jnp.vdot, grads[0], g), start=jnp.zeros(())) for g in grads])

    keys = jr.split(jr.key(0), draws)
    found = np.asarray(jax.jit(lambda keys: jax.lax.map(draw, keys))(keys))
    kind = network.__name__.lower()
    limit = nth.limit_kernel(kind, X, depth=DEPTH, activation=activation, c_sigma="auto")
    limit = np.asarray(limit)[0]
    mean, error = found.mean(axis=0), found.std(axis=0, ddof=1) / np.sqrt(draws)
    row = {"limit": limit, "mean": mean, "error": error, "z": (mean - limit) / error}
    lists = {name: value.tolist() for name, value in row.items()}
    return {"kind": kind, "activation": activation, "width": width, "draws": draws} | lists


def timed(n: int) -> dict[str, float]:
    """Seconds that `limit_kernel` takes for n points, once it has compiled what it needs."""
    x = np.random.default_rng(0).standard_normal((n, 64))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    seconds = {}
    for activation in ACTIVATIONS:
        for _ in range(2):
            start = time.perf_counter()
            nth.limit_kernel("fcn", x, depth=DEPTH, activation=activation).block_until_ready()
            seconds[activation] = time.perf_counter() - start
    return seconds


def left(width: int, seeds: int) -> dict[str, float]:
    """Median errors at t = 6 of kernel and f, by the frozen kernel and to first order in 1/m."""
    data, ts, rows = nth.sphere(3, 0, dim=4), [0.0, 6.0], []
    for seed in range(seeds):
        net = FCN(4, width, 1, activation="erf", c_sigma=1.5, key=jr.key(seed))
        exact = nth.gradient_flow(net, data, nth.Run(ts, record=("kernel",)))
        frozen = nth.hierarchy(net, data, 2, nth.Run(ts, record=("kernel",)), method="dense")
        first = nth.perturbation(net, data, nth.Run(ts, record=("kernel",)))
        assert exact.kernel is not None
        row = []
        for run in (frozen, first):
            assert run.kernel is not None
            off = np.linalg.norm(run.kernel[-1] - exact.kernel[-1])
            row.append(off / np.linalg.norm(exact.kernel[-1]))
        rows.append(row + [np.abs(run.f[-1] - exact.f[-1]).max() for run in (frozen, first)])
    names = ("kernel, frozen", "kernel, first order", "f, frozen", "f, first order")
    return dict(zip(names, np.median(rows, axis=0).tolist(), strict=True))


def main() -> None:
    """Measure, print tables, and write them."""
    arguments = settings(__doc__).parse_args()
    jax.config.update("jax_enable_x64", True)
    nth.guard_process()
    quick = arguments.quick
    worst = check_known()
    print(f"values known from elsewhere: off by {worst:.1e} at most, relative")

    width, draws = (QUICK_WIDTH, QUICK_DRAWS) if quick else (WIDTH, DRAWS)
    print(f"\nNTK at depth {DEPTH}, c_sigma auto: limit, and {draws} networks of width {width}")
    print(f"{'':>6} {'':>9} {'pair':>5} {'limit':>10} {'mean':>10} {'s.e.':>8} {'z':>6}")
    rows = []
    for network in (FCN, ResNet):
        for activation in ACTIVATIONS:
            row = sampled(network, activation, width, draws)
            rows.append(row)
            for i, pair in enumerate(("same", "other")):
                numbers = [row[name][i] for name in ("limit", "mean", "error", "z")]
                print(
                    f"{row['kind']:>6} {activation:>9} {pair:>5} {numbers[0]:>10.6f} "
                    f"{numbers[1]:>10.6f} {numbers[2]:>8.1e} {numbers[3]:>6.2f}"
                )

    n = 50 if quick else 1000
    seconds = timed(n)
    shown = ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items())
    print(f"\nlimit_kernel of {n} points at depth {DEPTH}: {shown}")

    seeds = 2 if quick else SEEDS
    print(f"\nerrors at t = 6, medians of {seeds} seeds (H = 1, erf, n = 3)")
    table = {}
    for m in WIDTHS[:2] if quick else WIDTHS:
        table[m] = left(m, seeds)
        print(f"m = {m:>4}: " + ", ".join(f"{k} {v:.1e}" for k, v in table[m].items()))
    record = {"known": worst, "sampled": rows, "seconds": seconds, "perturbation": table}
    write(arguments.out / "limits.json", record)


if __name__ == "__main__":
    main()
