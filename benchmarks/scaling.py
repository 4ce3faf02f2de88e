"""Scaling with width and depth against theory, and what computing seeds together gains.

Exponents of kernels and truncation errors for one hidden layer; means and variances of kernels on a
single input against their expansions in 1/m; kernels over depth; a study over seeds against one
comparison after another. All in float64; `--quick` shrinks everything to see that it works.
"""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from timing import settings, write

import nthsim as nth
from nthsim.models import FCN, ResNet

#: Orthonormal inputs, as the theory asks for; the end of training, and times to look at.
DATA_3 = (np.eye(4)[:3], np.array([1.0, -1.0, 1.0]))
TS = np.linspace(0.0, 6.0, 7)
ORDERS = (2, 3, 4, 5)

#: Entries of a network's variance on a single unit input: c_sigma, then Var K2 / (E K2)^2 and
#: E[K3 f], both times m, for H hidden layers; E K2 is H + 1 exactly.
MOMENTS: dict[str, tuple[float, Callable[[int], float], Callable[[int], float]]] = {
    "relu": (
        2.0,
        lambda H: H * (11 * H + 7) / (3 * (H + 1)),
        lambda H: 4 / 3 * H * (H + 1) * (H + 2),
    ),
    "identity": (
        1.0,
        lambda H: 2 / 3 * H * (2 * H + 1) / (H + 1),
        lambda H: 2 / 3 * H * (H + 1) * (H + 2),
    ),
}

#: Measured elsewhere with 400 seeds, m = 64 and two hidden layers of relu: E K2, the relative
#: deviation of K2 times sqrt(m), m rms K3 / (E K2)^1.5 and m E K4 / (E K2)^2.
RELU_2 = {"FCN": (3.04, 2.35, 6.57, 11.1), "ResNet": (2.67, 1.73, 3.65, 4.89)}


def erf_network(width: int, key: jax.Array) -> FCN:
    """One hidden layer."""
    return FCN(4, width, 1, activation="erf", weight_scale=1.5, key=key)


def widths(*, quick: bool) -> dict:
    """The exponents of theory beside those of many seeds."""
    sizes, seeds = ((8, 16), 5) if quick else ((64, 128, 256, 512, 1024), 192)
    study = nth.width_scaling(erf_network, nth.Dataset(*DATA_3), sizes, seeds, ORDERS, TS)
    print(f"{study}\n")
    found = {}
    for name, quantity in study.quantities().items():
        fit = quantity.exponent()
        found[name] = {"exponent": fit.value, "interval": [fit.low, fit.high]}
        found[name] |= {"predicted": quantity.predicted, "middles": quantity.middles().tolist()}
    cells = study.seconds.ravel().tolist()
    return {"widths": sizes, "seeds": seeds, "quantities": found, "seconds": cells}


def moments(*, quick: bool) -> list[dict]:
    """Means and variances on a single unit input, within so many standard errors of theory."""
    width, seeds, depths = (16, 50, (1, 2)) if quick else (256, 2048, (1, 2, 3, 4))
    data = nth.Dataset(np.ones((1, 1)), np.zeros(1))
    rows = []
    print(f"single unit input, m = {width}, {seeds} seeds: measured, theory to order 1/m, z")
    for activation, (c_sigma, variance, third) in MOMENTS.items():
        shape = {"activation": activation, "c_sigma": c_sigma}
        maker = lambda H, key, shape=shape: FCN(1, width, H, **shape, key=key)  # noqa: E731
        start = time.perf_counter()
        study = nth.depth_scaling(maker, data, depths, seeds, (), (0.0,))
        for i, H in enumerate(depths):
            K2, K3f = (study.kernel_mean[0, i, :, at] for at in (0, 1))
            relative = ((K2 - (H + 1)) / (H + 1)) ** 2
            for name, values, theory in (
                ("E K2", K2, H + 1.0),
                ("m Var K2 / (E K2)^2", width * relative, variance(H)),
                ("m E[K3 f]", width * K3f, third(H)),
            ):
                mean, error = values.mean(), values.std(ddof=1) / np.sqrt(seeds)
                z = (mean - theory) / error
                rows.append({"activation": activation, "H": H, "name": name, "mean": mean})
                rows[-1] |= {"error": error, "theory": theory, "z": z}
                shown = f"{mean:9.4f} ± {error:.4f}  {theory:9.4f}  z = {z:+.2f}"
                print(f"  {activation:8} H = {H}  {name:20} {shown}")
        print(f"  {time.perf_counter() - start:.1f} s")
    return rows


def depths(*, quick: bool) -> dict:
    """Kernels of FCN and ResNet over depth, and relu at depth 2 beside known numbers."""
    sizes, width, seeds = ((2, 4), 8, 10) if quick else ((2, 4, 8, 16), 64, 192)
    data = nth.Dataset(np.ones((1, 1)), np.zeros(1))
    found = {}
    for activation, chosen in (("relu", sizes[:1]), ("erf", sizes)):
        shape = {"activation": activation, "c_sigma": "auto"}
        families = {
            "FCN": lambda L, key, shape=shape: FCN(1, width, L, **shape, key=key),
            "ResNet": lambda L, key, shape=shape: ResNet(1, width, L, **shape, key=key),
        }
        study = nth.depth_scaling(families, data, chosen, seeds, (), (0.0,), kernels=4)
        print(f"\n{activation}, m = {width}, {seeds} seeds, single unit input")
        for at, family in enumerate(families):
            for i, L in enumerate(chosen):
                K2, K4 = (study.kernel_mean[at, i, :, j] for j in (0, 2))
                K3 = np.sqrt(np.mean(study.kernel_rms[at, i, :, 1] ** 2))
                row = [K2.mean(), K2.std() / K2.mean() * np.sqrt(width)]
                row += [width * K3 / K2.mean() ** 1.5, width * K4.mean() / K2.mean() ** 2]
                known = f"  known {RELU_2[family]}" if activation == "relu" else ""
                shown = "  ".join(f"{number:9.3g}" for number in row)
                print(f"  {family:6} L = {L:2}  E K2, relstd, K3, E K4: {shown}{known}")
                found[f"{activation} {family} {L}"] = row
            for r in (2, 3, 4) if len(chosen) > 1 else ():
                grown = study.growth(f"rms K^({r})", family)
                print(f"  {family:6} rms K^({r}) grows {grown.value:.3g} times from L = {sizes[0]}")
                found[f"growth {family} {r}"] = [grown.value, grown.low, grown.high]
    return found


def race(*, quick: bool) -> dict:
    """Seeds together against one after another: the same numbers, and the time they take."""
    width, seeds = (8, 4) if quick else (64, 40)
    data = nth.Dataset(*DATA_3)

    def study(chunk: int) -> np.ndarray:
        found = nth.width_scaling(
            erf_network, data, (width,), seeds, ORDERS, TS, sweep=nth.Sweep(chunk=chunk)
        )
        assert found.error_f is not None
        return found.error_f[0, 0]

    def compared() -> np.ndarray:
        runs = []
        for seed in range(seeds):
            net = erf_network(width, jr.key(seed))
            run = nth.compare(
                net,
                data,
                (*(nth.Order(p, method="dense") for p in ORDERS),),
                TS,
                certify=False,
                progress=False,
            )
            runs.append([run.errors(p).train_rms for p in ORDERS])
        return np.array(runs)

    methods = {
        "together": lambda: study(seeds),
        "chunks of one seed": lambda: study(1),
        "compare, seed by seed": compared,
    }
    times, results = {}, {}
    for name, method in methods.items():
        clocks = []
        for _ in range(3):
            start = time.perf_counter()
            results[name] = method()
            clocks.append(time.perf_counter() - start)
        times[name] = {"first": clocks[0], "best": min(clocks[1:])}
    print(f"\n{seeds} seeds, m = {width}, orders {ORDERS}: seconds with and without compilation")
    base = times["together"]
    for name, took in times.items():
        # Errors of some 1e-3, each dynamics solved to some 1e-7 of f.
        np.testing.assert_allclose(results[name], results["together"], rtol=1e-2, atol=1e-6)
        ratios = f"{took['first'] / base['first']:.1f} and {took['best'] / base['best']:.1f} times"
        print(f"  {name:22} {took['first']:7.2f} {took['best']:7.3f}  {ratios}")
    return times


def main() -> None:
    """Measure, print and write everything."""
    chosen = settings(__doc__).parse_args()
    jax.config.update("jax_enable_x64", True)
    nth.guard_process()
    jnp.zeros(1).block_until_ready()  # the start of JAX is nobody's
    parts = (race, widths, moments, depths)
    record = {part.__name__: part(quick=chosen.quick) for part in parts}
    write(chosen.out / "scaling.json", record)


if __name__ == "__main__":
    main()
