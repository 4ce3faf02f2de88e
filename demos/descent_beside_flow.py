"""Whether flow describes descent: steps at three rates beside gradient flow, with the sharpness.

Gradient descent at 0.1, 0.5 and 1.9 times 2 / sharpness, the rate beyond which a quadratic loss
would diverge, beside exact flow, the modified flow that descent at the second rate follows more
closely (Barrett & Dherin 2020), and order 3 of the hierarchy. Prints a table and writes a figure
and a results file:

    python demos/descent_beside_flow.py --out results/descent_beside_flow
"""

import argparse
from pathlib import Path

import jax
import jax.random as jr
import numpy as np
import optax

import nthsim as nth
from nthsim.models import FCN

#: Rates over 2 / sharpness.
PARTS = (0.1, 0.5, 1.9)


def main() -> None:
    """Train, compare, print, draw, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/descent_beside_flow"))
    parser.add_argument("--width", type=int, default=128, help="units in each hidden layer")
    parser.add_argument("--n-train", type=int, default=20, help="training digits")
    settings = parser.parse_args()

    jax.config.update("jax_enable_x64", True)
    nth.guard_process()
    data = nth.digits(3, 8, n_train=settings.n_train, n_test=0)
    net = FCN(64, settings.width, 2, key=jr.key(0))

    start = nth.gradient_flow(net, data, nth.Run([0.0], record=("sharpness",)))
    edge = 2 / float(start.records["sharpness"][0])
    print(f"2 / sharpness at t = 0: {edge:.3g}\n")
    rates = {f"descent at {part:g} edge": part * edge for part in PARTS}
    steps = [nth.Descent(optax.sgd(rate), rate, name=name) for name, rate in rates.items()]
    curves = (3, nth.Modified(PARTS[1] * edge), *steps)
    run = nth.Run(np.linspace(0.0, 40 * edge, 81), record=("kernel", "sharpness"))
    study = nth.compare(net, data, curves, run)

    print(study)
    settings.out.mkdir(parents=True, exist_ok=True)
    study.plot(settings.out / "descent_beside_flow.png")
    study.save(settings.out / "descent_beside_flow.nc")
    print(f"\nFigure and results are in {settings.out}/.")


if __name__ == "__main__":
    main()
