"""What the parametrisation decides: whether a wide network moves its kernel, or freezes it.

One hidden layer in ntk, standard and mup parametrisation over widths: kernels at t = 0, the drift
of the tangent kernel and the errors of orders 2 and 3, over many seeds, with the exponents that
theory predicts; and how the kernel of one wide network turns to the targets. Prints a table and
writes a figure and a results file:

    python demos/what_moves.py --out results/what_moves
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import nthsim as nth
from nthsim.models import FCN


def network(parametrisation: str, width: int, key: jax.Array) -> tuple[FCN, Any]:
    """A network and its rates; standard ones over the width, without which its time would scale."""
    scale = {"activation": "erf", "weight_scale": 1.5, "parametrisation": parametrisation}
    net = FCN(4, width, 1, **scale, key=key)
    unit = width if parametrisation == "standard" else 1
    return net, jax.tree.map(lambda rate: rate / unit, net.rates())


def main() -> None:
    """Measure all widths of each, print, draw, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/what_moves"))
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128, 256, 512, 1024])
    parser.add_argument("--seeds", type=int, default=64, help="networks of each width (default 64)")
    settings = parser.parse_args()

    jax.config.update("jax_enable_x64", True)
    nth.guard_process()
    data = nth.Dataset(jnp.eye(4)[:3], jnp.array([1.0, -1.0, 1.0]))
    families = {
        name: lambda width, key, name=name: network(name, width, key)
        for name in ("ntk", "standard", "mup")
    }
    ts = jnp.linspace(0.0, 6.0, 7)
    study = nth.width_scaling(families, data, settings.widths, settings.seeds, (2, 3), ts)

    print(study, end="\n\n")
    for name in families:
        net, rates = network(name, settings.widths[-1], jax.random.key(0))
        flow = nth.gradient_flow(net, data, nth.Run(ts, record=("alignment",)), rates=rates)
        first, *_, last = flow.records["alignment"]
        print(f"{name:>8}: alignment of kernel and targets {first:.3f} at t = 0, {last:.3f} at 6")
    settings.out.mkdir(parents=True, exist_ok=True)
    study.plot(settings.out / "what_moves.png")
    study.save(settings.out / "what_moves.nc")
    print(f"\nFigure and results are in {settings.out}/.")


if __name__ == "__main__":
    main()
