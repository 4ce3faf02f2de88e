"""Fair timings: candidates take turns, compilation is reported apart, arithmetic sets the floor."""

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
from turns import turn

Candidate = Callable[[], jax.Array]


def settings(doc: str | None) -> argparse.ArgumentParser:
    """The flags that every benchmark has."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--quick", action="store_true", help="tiny cases: does it run at all?")
    return parser


def race(
    candidates: dict[str, Candidate], *, repeats: int = 7, budget: float = 60.0
) -> tuple[dict[str, dict[str, float]], float]:
    """Time candidates in turn, so that what else the machine does falls on all of them alike.

    The first call of each compiles and is reported as `first`, and its result is compared: the
    second value returned is the largest difference between any result and the last, over the last
    one's largest entry. `best` is the fastest later call; in each of up to `repeats` turns, which
    end after `budget` seconds, a candidate is called for a tenth of a second and once at least.
    """
    times, results = {}, []
    for name, call in candidates.items():
        start = time.perf_counter()
        results.append(jax.block_until_ready(call()))
        times[name] = {"first": time.perf_counter() - start, "best": float("inf")}
    last, scale = results[-1], jnp.abs(results[-1]).max()
    error = max(float(jnp.abs(one - last).max() / scale) for one in results)
    del results, last
    start = time.perf_counter()
    for done in range(repeats):
        if done and time.perf_counter() - start > budget:
            break
        for name, call in candidates.items():
            took = turn(lambda call=call: jax.block_until_ready(call()))
            times[name]["best"] = min(times[name]["best"], took)
    return times, error


def matmul_peak(dtype: Any = jnp.float64, size: int = 2048, repeats: int = 7) -> float:
    """The most flops per second that a product of two square matrices reaches here."""
    a = jr.normal(jr.key(0), (size, size), dtype)
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    best = min(turn(lambda: product(a).block_until_ready()) for _ in range(repeats))
    return 2 * size**3 / best


def growth(sizes: list[int], times: list[float]) -> float:
    """The exponent of the power law through these points, by least squares on logarithms."""
    x, y = jnp.log(jnp.array(sizes, float)), jnp.log(jnp.array(times))
    return float(jnp.polyfit(x, y, 1)[0])


def write(path: Path, record: dict) -> None:
    """Write a record and where it was measured as JSON."""
    where = {"jax": jax.__version__, "machine": platform.machine(), "devices": str(jax.devices())}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**record, **where}, indent=2) + "\n")
