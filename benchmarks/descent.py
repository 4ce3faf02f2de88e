"""Descent beside a plain loop over a compiled step of Optax: the same bits, and the time of each.

A tanh network of a million parameters, a thousand points, Adam in full batches. Both have compiled
before; the time of descent is that of the whole call.
"""

import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from timing import settings, write

import nthsim as nth
from nthsim.models import FCN

RATE = 1e-3


def loop(net: FCN, data: nth.Dataset, optimiser: Any) -> Callable[[int], list[jax.Array]]:
    """What takes so many steps and returns the arrays there."""
    start, static = eqx.partition(net, eqx.is_inexact_array)

    def loss(theta: Any) -> jax.Array:
        f = jax.vmap(eqx.combine(theta, static))(data.x)
        return jnp.mean(jax.vmap(nth.squared_error)(f, data.y))

    @jax.jit
    def step(theta: Any, memory: Any) -> tuple[Any, Any]:
        with jax.default_matmul_precision("highest"):
            update, memory = optimiser.update(jax.grad(loss)(theta), memory, theta)
        return optax.apply_updates(theta, update), memory

    def go(steps: int) -> list[jax.Array]:
        theta, memory = start, optimiser.init(start)
        for _ in range(steps):
            theta, memory = step(theta, memory)
        return jax.block_until_ready(jax.tree.leaves(theta))

    return go


def descent(net: FCN, data: nth.Dataset, optimiser: Any) -> Callable[[int], list[jax.Array]]:
    """The same by nthsim."""

    def go(steps: int) -> list[jax.Array]:
        run = nth.descent(net, data, optimiser, [steps * RATE], rate=RATE, progress=False)
        return jax.tree.leaves(eqx.filter(run.model, eqx.is_inexact_array))

    return go


def main() -> None:
    """Print seconds per step of both sides and their ratio, in turns."""
    parser = settings(__doc__)
    parser.add_argument("--steps", type=int, default=100, help="in each turn (default 100)")
    parser.add_argument("--turns", type=int, default=3, help="(default 3)")
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    nth.guard_process()
    n, m = (20, 30) if args.quick else (1000, 967)
    keys = jr.split(jr.key(0), 3)
    x = jr.normal(keys[0], (n, 64))
    data = nth.Dataset(x, jnp.sin(x[:, 0]))
    net, optimiser = FCN(64, m, 2, key=keys[1]), optax.adam(RATE)
    sides = {"plain loop": loop, "descent": descent}
    goes = {name: make(net, data, optimiser) for name, make in sides.items()}
    seconds = dict.fromkeys(goes, np.inf)
    for go in goes.values():
        go(1)
    for _ in range(args.turns):
        ends = []
        for name, go in goes.items():
            clock = time.perf_counter()
            ends.append(go(args.steps))
            seconds[name] = min(seconds[name], time.perf_counter() - clock)
        assert all(map(np.array_equal, *ends)), "descent and the plain loop differ"
    ratio = seconds["descent"] / seconds["plain loop"]
    parameters = sum(leaf.size for leaf in ends[0])
    print(f"P = {parameters:,}, n = {n}, {args.steps} steps of Adam, float64, the same bits")
    for name, value in seconds.items():
        print(f"{name:12s} {value / args.steps * 1e3:8.2f} ms a step")
    print(f"descent / plain loop: {ratio:.3f}")
    write(args.out / "descent.json", {"ratio": ratio, "seconds": seconds, "steps": args.steps})


if __name__ == "__main__":
    main()
