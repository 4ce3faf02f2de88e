"""How far the tangent kernel moves in training, from Gaussian and from orthogonal weights.

Both move by 1/width, at a comparable rate (Huang, Du & Xu 2020, arXiv 2004.05867). Prints a table
and writes a figure and a results file:

    python demos/orthogonal_init.py --out results/orthogonal_init
"""

import argparse
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp

import nthsim as nth
from nthsim.models import FCN


def main() -> None:
    """Measure both kinds at all widths, print, draw, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/orthogonal_init"))
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--seeds", type=int, default=40, help="networks of each width (default 40)")
    settings = parser.parse_args()

    jax.config.update("jax_enable_x64", True)
    nth.guard_process()
    data = nth.Dataset(jnp.eye(4)[:3], jnp.array([1.0, -1.0, 1.0]))

    def network(width: int, key: jax.Array, init: str) -> FCN:
        return FCN(4, width, 3, activation="tanh", c_sigma="auto", init=init, key=key)

    families = {init: partial(network, init=init) for init in ("gaussian", "orthogonal")}
    ts = jnp.linspace(0.0, 5.0, 6)
    # Without orders nothing but exact flow is integrated.
    study = nth.width_scaling(families, data, settings.widths, settings.seeds, (), ts)

    print(study)
    settings.out.mkdir(parents=True, exist_ok=True)
    study.plot(settings.out / "orthogonal_init.png")
    study.save(settings.out / "orthogonal_init.nc")
    print(f"\nFigure and results are in {settings.out}/.")


if __name__ == "__main__":
    main()
