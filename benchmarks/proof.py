"""What the proof costs by which a network is taken apart, beside the runs that it is a part of.

The proof is made once for a network and shapes, and computes nothing. Each network is new to it
here, and to the runs beside it, which compile first, as a user's first call does.
"""

import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from timing import settings, write

import nthsim as nth
from nthsim.models import FCN, ResNet
from nthsim.network.calls import calls_of
from nthsim.network.split import split

#: Samples, inputs.
SIZE, QUICK_SIZE = (200, 64), (5, 4)


def networks(d: int, width: int) -> dict[str, Any]:
    """Five networks, by name."""
    keys = jr.split(jr.key(0), 8)
    tanh, flat = eqx.nn.Lambda(jnp.tanh), eqx.nn.Lambda(jnp.ravel)
    image = eqx.nn.Lambda(lambda x: x.reshape(1, 2, -1))
    conv = eqx.nn.Conv2d(1, 3, 2, key=keys[0])
    readout = eqx.nn.Linear(3 * (d // 2 - 1), "scalar", key=keys[1])
    return {
        "FCN, depth 2": FCN(d, width, 2, key=keys[2]),
        "ResNet, depth 4": ResNet(d, width, 4, key=keys[3]),
        "ResNet, depth 12": ResNet(d, width, 12, key=keys[4]),
        "MLP with biases": eqx.nn.MLP(d, "scalar", width, 3, activation=jnp.tanh, key=keys[5]),
        "convolutional": eqx.nn.Sequential([image, conv, tanh, flat, readout]),
    }


def seconds(call: Callable[[], Any]) -> float:
    """The wall time of one call."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def main() -> None:
    """Print and keep the times in seconds."""
    arguments = settings(__doc__).parse_args()
    jax.config.update("jax_enable_x64", True)
    nth.guard_process()
    n, d = QUICK_SIZE if arguments.quick else SIZE
    data, record = nth.sphere(n, 0, dim=d), {}
    for name, model in networks(d, 8 if arguments.quick else 256).items():
        network, theta = split(model)
        proof = seconds(lambda network=network, theta=theta: calls_of(network, theta, data.x[0]))
        kernel = lambda m=model: nth.kernel(m, data.x, 2, method="structured", progress=False)  # noqa: E731
        flow = lambda m=model: nth.gradient_flow(m, data, [0.0, 5.0], progress=False).f  # noqa: E731
        first, again, flown = seconds(kernel), seconds(kernel), seconds(flow)
        record[name] = {"proof": proof, "K2 first": first, "K2 again": again, "flow": flown}
        print(name.ljust(18), *(f"{key} {value:.3f} s" for key, value in record[name].items()))
    write(arguments.out / "proof.json", record)


if __name__ == "__main__":
    main()
