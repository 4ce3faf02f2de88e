"""Kernels of a fully connected network grow exponentially with depth, those of a ResNet stay flat.

The kernels at t = 0 of many networks of one width; erf, normalised so that signals keep their size.
Prints a table and writes a figure and a results file:

    python demos/depth_contrast.py --out results/depth_contrast
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp

import nthsim as nth
from nthsim.models import FCN, ResNet


def main() -> None:
    """Measure all depths of both kinds, print, draw, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/depth_contrast"))
    parser.add_argument("--depths", type=int, nargs="+", default=[2, 4, 8, 16])
    parser.add_argument("--seeds", type=int, default=40, help="networks of each depth (default 40)")
    parser.add_argument("--width", type=int, default=64, help="width (default 64)")
    settings = parser.parse_args()

    jax.config.update("jax_enable_x64", True)
    nth.guard_process()
    data = nth.Dataset(jnp.eye(4)[:2], jnp.array([1.0, -1.0]))
    m = settings.width
    families = {
        "FCN": lambda L, key: FCN(4, m, L, activation="erf", c_sigma="auto", key=key),
        "ResNet": lambda L, key: ResNet(4, m, L, activation="erf", c_sigma="auto", key=key),
    }
    # Nothing is trained: the only time is 0, and there are no orders.
    ts = jnp.zeros(1)
    study = nth.depth_scaling(families, data, settings.depths, settings.seeds, (), ts, kernels=4)

    print(study)
    settings.out.mkdir(parents=True, exist_ok=True)
    study.plot(settings.out / "depth_contrast.png")
    study.save(settings.out / "depth_contrast.nc")
    print(f"\nFigure and results are in {settings.out}/.")


if __name__ == "__main__":
    main()
