"""Exact training of a small ResNet on handwritten digits, beside its hierarchy at orders 2, 3, 4.

Prints a table and writes a figure and a results file:

    python demos/compare_orders.py --out results/compare_orders
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr

import nthsim as nth
from nthsim.models import ResNet


def main() -> None:
    """Compare the orders, print, draw, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/compare_orders"))
    parser.add_argument("--n-train", type=int, default=20, help="training digits (default 20)")
    parser.add_argument("--n-test", type=int, default=40, help="test digits (default 40)")
    parser.add_argument("--width", type=int, default=128, help="width (default 128)")
    settings = parser.parse_args()

    jax.config.update("jax_enable_x64", True)
    nth.guard_process()
    data = nth.digits(3, 8, n_train=settings.n_train, n_test=settings.n_test)
    net = ResNet(in_size=64, width=settings.width, depth=3, key=jr.key(0))
    study = nth.compare(net, data, (2, 3, 4), jnp.linspace(0.0, 15.0, 61))

    print(study)
    settings.out.mkdir(parents=True, exist_ok=True)
    study.plot(settings.out / "orders.png")
    study.save(settings.out / "orders.nc")
    print(f"\nFigure and results are in {settings.out}/.")


if __name__ == "__main__":
    main()
