"""Structured kernels against textbook code and against the arithmetic they cannot do without.

Textbook code contracts Jacobians for $K^{(2)}$ and nests jvp for higher orders. All runs in
float64; `--quick` shrinks the sizes to see that everything works.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PyTree
from timing import growth, matmul_peak, race, settings, write

from nthsim.kernels.block_kernel import Slots
from nthsim.kernels.method import block_kernel
from nthsim.models import FCN
from nthsim.network.split import split
from nthsim.solvers.xla import guard_process

IN_SIZE = 64

#: Order, samples n, width m, depth H.
ROWS = ((2, 350, 512, 2), (3, 32, 256, 3), (4, 12, 128, 2))
FLOOR = (3, 100, 1024, 3)
QUICK_ROWS, QUICK_FLOOR = ((2, 20, 16, 2), (3, 5, 16, 3), (4, 3, 16, 2)), (3, 10, 64, 3)

#: Growth of K^(3) around (n, m, H).
CENTRE, FACTORS = (40, 256, 4), (1, 2, 4)
QUICK_CENTRE = (4, 16, 2)


def problem(n: int, m: int, depth: int) -> tuple[FCN, Float[Array, "n d"]]:
    """A tanh network and inputs."""
    model_key, x_key = jr.split(jr.key(0))
    return FCN(IN_SIZE, m, depth, key=model_key), jr.normal(x_key, (n, IN_SIZE))


def naive(model: PyTree, x: Float[Array, "n d"], order: int) -> Callable[[], Array]:
    """The kernel as it is written down: Jacobians contracted, or jvp nested over all samples."""
    network, theta = split(model)

    def f(theta: PyTree, one: Array) -> Array:
        return network.single(theta, one)

    def contracted(theta: PyTree) -> Array:
        jacobian = jax.vmap(jax.grad(f), (None, 0))(theta, x)
        flat = jnp.concatenate([j.reshape(len(x), -1) for j in jax.tree.leaves(jacobian)], axis=1)
        return flat @ flat.T

    def along_all(g: Callable[[PyTree], Array]) -> Callable[[PyTree], Array]:
        def derivative(theta: PyTree) -> Array:
            along = lambda b: jax.jvp(g, (theta,), (jax.grad(f)(theta, b),))[1]  # noqa: E731
            return jnp.moveaxis(jax.vmap(along)(x), 0, -1)

        return derivative

    g = lambda theta: jax.vmap(f, (None, 0))(theta, x)  # noqa: E731
    for _ in range(order - 1):
        g = along_all(g)
    compiled = jax.jit(contracted if order == 2 else g)
    return lambda: compiled(theta)


def structured(model: PyTree, x: Float[Array, "n d"], order: int) -> Callable[[], Array]:
    """Ours."""
    network, theta = split(model)
    n = len(x)
    kernel = block_kernel(network, theta, Slots(x, (0, n), (0, n), 1), order, method="structured")
    return lambda: kernel(theta)


def least_flops(order: int, n: int, m: int, depth: int) -> int:
    r"""Flops of matrix products in $K^{(r)}$ that cannot be saved.

    For each setting of slots 1 and 3..r, a signal or its mixed tangent goes through each hidden
    matrix once forward and once backward; what moved is then multiplied with what did not, inputs
    and signals of every layer, for each way to share the directions among the two, where one half
    gives the other by symmetry. Products with the first matrix and by single vectors are left out.
    """
    signals = n ** (order - 1) * (depth - 1) * 2 * (2 * m**2)
    ways = 2 ** max(0, order - 3)
    products = ways * n**order * 2 * depth * m
    return signals + (2 * products if order > 2 else products)


def compare(order: int, n: int, m: int, depth: int, peak: float) -> dict:
    """Time both methods after they agree, and set ours beside products at the machine's peak."""
    model, x = problem(n, m, depth)
    methods = {"structured": structured(model, x, order), "naive": naive(model, x, order)}
    times, error = race(methods)
    assert error < 1e-12, f"K^({order}) disagrees by {error}"
    ours = times["structured"]["best"]
    row = {"order": order, "n": n, "m": m, "depth": depth, "error": error} | times
    floor = least_flops(order, n, m, depth) / peak
    return row | {"ratio": times["naive"]["best"] / ours, "floors": ours / floor}


def above_floor(order: int, n: int, m: int, depth: int, before: float) -> dict:
    """Time K^(3) beside matrix products that reach the machine's peak."""
    flops = least_flops(order, n, m, depth)
    model, x = problem(n, m, depth)
    time = race({"structured": structured(model, x, order)})[0]["structured"]
    peak = max(before, matmul_peak())
    floor = flops / peak
    row = {"order": order, "n": n, "m": m, "depth": depth, "structured": time}
    return row | {"peak": peak, "floor": floor, "ratio": time["best"] / floor}


def growths(centre: tuple[int, int, int]) -> dict:
    """Exponents of the time of K^(3) in n, m and depth, each varied alone."""
    exponents = {}
    for i, name in enumerate(("n", "m", "depth")):
        sizes = [centre[i] * factor for factor in FACTORS]
        times = []
        for size in sizes:
            n, m, depth = (*centre[:i], size, *centre[i + 1 :])
            method = structured(*problem(n, m, depth), 3)
            times.append(race({"structured": method})[0]["structured"]["best"])
        exponents[name] = {"sizes": sizes, "seconds": times, "exponent": growth(sizes, times)}
    return exponents


def main() -> None:
    """Measure, print a table, and write it."""
    arguments = settings(__doc__).parse_args()
    jax.config.update("jax_enable_x64", True)
    guard_process()
    quick = arguments.quick

    print(
        f"{'':>5} {'n':>4} {'m':>5} {'H':>2} {'ours':>10} {'first':>8} {'naive':>10} {'ratio':>7} "
        f"{'floors':>7}"
    )
    peak = matmul_peak()
    rows = []
    for row in QUICK_ROWS if quick else ROWS:
        result = compare(*row, peak)
        rows.append(result)
        ours, theirs = result["structured"], result["naive"]
        print(
            f"K^({row[0]}) {row[1]:>4} {row[2]:>5} {row[3]:>2} {ours['best'] * 1e3:>7.1f} ms "
            f"{ours['first']:>6.1f} s {theirs['best'] * 1e3:>7.0f} ms {result['ratio']:>7.1f} "
            f"{result['floors']:>7.2f}"
        )
    floor = above_floor(*(QUICK_FLOOR if quick else FLOOR), peak)
    print(
        f"K^(3) n={floor['n']} m={floor['m']} H={floor['depth']}: "
        f"{floor['structured']['best']:.2f} s, {floor['ratio']:.2f} times the floor "
        f"{floor['floor']:.2f} s at {floor['peak'] / 1e9:.0f} GFLOP/s"
    )
    grown = growths(QUICK_CENTRE if quick else CENTRE)
    for name, one in grown.items():
        print(f"K^(3) grows like {name}^{one['exponent']:.2f} over {one['sizes']}")
    write(arguments.out / "kernels.json", {"rows": rows, "floor": floor, "growth": grown})


if __name__ == "__main__":
    main()
