"""The same comparison again and again: seconds of each call and memory, functions made anew."""

import functools
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import psutil
from timing import settings, write

import nthsim as nth

#: Calls of each kind.
CALLS = 20


def scaled(k: float) -> Callable[[jax.Array], jax.Array]:
    """A closure over a number."""
    return lambda z: jnp.tanh(k * z)


KINDS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "one function": (lambda: jnp.tanh, lambda: nth.squared_error),
    "a new lambda each time": (lambda: lambda z: jnp.tanh(z), lambda: nth.squared_error),
    "a new closure": (lambda: scaled(1.5), lambda: nth.squared_error),
    "a new functools.partial": (
        lambda: functools.partial(jax.nn.leaky_relu, negative_slope=0.1),
        lambda: nth.squared_error,
    ),
    "a new loss": (lambda: jnp.tanh, lambda: lambda f, y: (f - y) ** 4),
}


def main() -> None:
    """Print of each kind the first call, the median of the later ones, and how memory grew."""
    args = settings(__doc__).parse_args()
    jax.config.update("jax_enable_x64", True)
    calls = 3 if args.quick else CALLS
    data = nth.Dataset(np.random.default_rng(0).normal(size=(4, 3)), [0.1, 1.0, -1.0, 2.0])
    found = {}
    for name, (activation, loss) in KINDS.items():
        seconds, memory = [], []
        for seed in range(calls):
            start = time.perf_counter()
            net = eqx.nn.MLP(3, "scalar", 8, 1, activation=activation(), key=jr.key(seed))
            nth.compare(net, data, (2, 3), [0.0, 0.5], loss=loss(), progress=False)
            seconds.append(time.perf_counter() - start)
            memory.append(psutil.Process().memory_info().rss / 2**20)
        later, grown = float(np.median(seconds[1:])), memory[-1] - memory[0]
        found[name] = {"first": seconds[0], "later": later, "grown MiB": grown}
        print(f"{name:26s} first {seconds[0]:6.2f} s, later {later:5.2f} s, {grown:+6.1f} MiB")
    write(args.out / "repeated.json", found)


if __name__ == "__main__":
    main()
