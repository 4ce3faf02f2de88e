"""The sharpness of a large network, counted in gradients of its loss.

A tanh network of three million parameters, a thousand points. Beside it, its value by SciPy's
ARPACK to rounding, from products with the Hessian of a plain loss.
"""

import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy.sparse.linalg import LinearOperator, eigsh
from timing import settings, write

import nthsim as nth
from nthsim.dynamics.pose import pose
from nthsim.models import FCN
from nthsim.results.moment import Moment

#: What two ways to the same number may differ by, relative to it.
NEAR = 1e-8


def main() -> None:
    """Print seconds, gradients and the relative difference of the values."""
    args = settings(__doc__).parse_args()
    jax.config.update("jax_enable_x64", True)
    nth.guard_process()
    n, m = (20, 30) if args.quick else (1000, 1700)
    keys = jr.split(jr.key(0), 2)
    x = jr.normal(keys[0], (n, 64))
    net, data = FCN(64, m, 2, key=keys[1]), nth.Dataset(x, jnp.sin(x[:, 0]))
    start, static = eqx.partition(net, eqx.is_inexact_array)
    row, back = ravel_pytree(start)

    def loss(row: Any) -> jax.Array:
        f = jax.vmap(eqx.combine(back(row), static))(data.x)
        return jnp.mean(jax.vmap(nth.squared_error)(f, data.y))

    gradient = jax.jit(jax.grad(loss))
    product = jax.jit(lambda row, v: jax.jvp(jax.grad(loss), (row,), (v,))[1])
    problem, sharpness = pose(net, data, nth.squared_error), nth.Sharpness()

    def ours() -> float:
        moment = Moment.of_parameters(problem, problem.theta)
        return float(sharpness.evaluate(moment)["sharpness"])

    def timed(call: Any) -> tuple[float, Any]:
        call()
        clock = time.perf_counter()
        found = call()
        return time.perf_counter() - clock, found

    each = min(timed(lambda: gradient(row).block_until_ready())[0] for _ in range(3))
    whole, found = timed(ours)
    matrix = LinearOperator((row.size,) * 2, matvec=lambda v: product(row, v.ravel()), dtype=float)  # pyright: ignore
    value = eigsh(matrix, 1, which="LA", v0=np.ones(row.size), return_eigenvectors=False)[0]  # pyright: ignore
    error = abs(found / value - 1)
    assert error < NEAR, f"sharpness differs from ARPACK's by {error:.1e} of it"
    print(f"P = {row.size:,}, n = {n}, float64: sharpness {value:.9g}, relative error {error:.0e}")
    count = whole / each
    print(f"one gradient {each * 1e3:.1f} ms, sharpness {whole:.2f} s = {count:.1f} gradients")
    write(args.out / "sharpness.json", {"gradients": count, "error": error, "seconds": whole})


if __name__ == "__main__":
    main()
