"""How the errors of the hierarchy fall with the width of a network with one hidden layer.

Kernels at t = 0, errors of orders 2 to 5 and the drift of the tangent kernel, over many seeds, with
the exponents that theory predicts. Prints a table and writes a figure and a results file:

    python demos/width_scaling.py --out results/width_scaling
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp

import nthsim as nth
from nthsim.models import FCN


def main() -> None:
    """Measure all widths, print, draw, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/width_scaling"))
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128, 256, 512, 1024])
    parser.add_argument("--seeds", type=int, default=64, help="networks of each width (default 64)")
    parser.add_argument("--orders", type=int, nargs="+", default=[2, 3, 4, 5])
    settings = parser.parse_args()

    jax.config.update("jax_enable_x64", True)
    nth.guard_process()
    # Orthonormal inputs, as the theory of Huang and Yau asks for.
    data = nth.Dataset(jnp.eye(4)[:3], jnp.array([1.0, -1.0, 1.0]))

    def network(width: int, key: jax.Array) -> FCN:
        return FCN(4, width, 1, activation="erf", weight_scale=1.5, key=key)

    ts = jnp.linspace(0.0, 6.0, 7)
    study = nth.width_scaling(network, data, settings.widths, settings.seeds, settings.orders, ts)

    print(study)
    settings.out.mkdir(parents=True, exist_ok=True)
    study.plot(settings.out / "width_scaling.png")
    study.save(settings.out / "width_scaling.nc")
    print(f"\nFigure and results are in {settings.out}/.")


if __name__ == "__main__":
    main()
