"""The first order in 1/width, beside the frozen kernel: what is left of each falls with the width.

Trains networks of several widths and seeds exactly and in perturbation theory, prints the median
errors, and draws them over width:

    python demos/perturbation.py --out results/perturbation
"""

import argparse
from pathlib import Path

import jax
import jax.random as jr
import numpy as np
from matplotlib.figure import Figure

import nthsim as nth
from nthsim.dynamics.errors import errors as distances
from nthsim.models import FCN
from nthsim.results.legend import LOOKS
from nthsim.results.terminal import scientific, table

NAMES = ("frozen kernel", "first order in 1/m")


def errors(net: FCN, data: nth.Dataset, t1: float) -> np.ndarray:
    """Errors at the end of f (rms) and of the kernel (relative), by the frozen and first order."""
    run = nth.Run([0.0, t1], record=("kernel",))
    exact = nth.gradient_flow(net, data, run)
    frozen = nth.hierarchy(net, data, 2, run, method="dense")
    first = nth.perturbation(net, data, run)
    assert exact.kernel is not None
    found = [distances(one, exact, exact.kernel[0]) for one in (frozen, first)]
    kernels = [e.kernel[-1] for e in found if e.kernel is not None]
    return np.array([[e.train_rms[-1] for e in found], kernels])


def main() -> None:
    """Train at each width and seed, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/perturbation"))
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 128, 256, 512, 1024])
    parser.add_argument("--seeds", type=int, default=16, help="networks a width (default 16)")
    settings = parser.parse_args()

    jax.config.update("jax_enable_x64", True)
    nth.guard_process()
    data = nth.sphere(3, 0, dim=4)
    medians = []
    for m in settings.widths:
        draw = lambda s, m=m: FCN(4, m, 1, activation="erf", c_sigma=1.5, key=jr.key(s))  # noqa: E731
        found = [errors(draw(s), data, 6.0) for s in range(settings.seeds)]
        medians.append(np.median(found, axis=0))
    medians, m = np.array(medians), np.array(settings.widths)
    rows = [["width", "f: frozen", "first order", "kernel: frozen", "first order"]]
    rows += [[str(w), *map(scientific, row.ravel())] for w, row in zip(m, medians, strict=True)]
    print(f"Median errors at t = 6 over {settings.seeds} seeds\n\n{table(rows)}")

    figure = Figure(figsize=(8.8, 3.6), layout="constrained")
    title = f"3 points on a sphere, erf networks of one hidden layer: medians of {settings.seeds}"
    figure.suptitle(title, fontsize=10)
    labels = ("error of $f$ at $t = 6$, rms", "error of $K^{(2)}$ at $t = 6$, relative to $t = 0$")
    for i, (ax, label) in enumerate(zip(figure.subplots(1, 2), labels, strict=True)):
        for j, name in enumerate(NAMES):
            colour, marker = LOOKS[1 + j]
            values = medians[:, i, j]
            ax.loglog(m, values, color=colour, marker=marker, label=name)
            guide = values[-1] * (m[-1] / m) ** (1 + j)
            ax.loglog(m, guide, ":", color=colour, label=f"slope $-{1 + j}$")
        ax.set_xlabel("width $m$")
        ax.set_ylabel(label)
        ax.set_xticks(m, map(str, m))
        ax.minorticks_off()
        ax.grid(color="0.9", linewidth=0.6)
        ax.legend(frameon=False, fontsize=9)
    settings.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(settings.out / "perturbation.png", dpi=150)
    print(f"\nThe figure is in {settings.out}/.")


if __name__ == "__main__":
    main()
