"""How far infinite width, and each order of the hierarchy, is from a network: on test points.

Trains a network at two widths, the hierarchy at orders 2 to 4 and the kernel of infinite width on
real handwritten digits, prints the test losses, and draws their gaps to the network's own:

    python demos/limit_gap.py --out results/limit_gap
"""

import argparse
from pathlib import Path

import jax
import jax.random as jr
import numpy as np

import nthsim as nth
from nthsim.dynamics.errors import errors
from nthsim.models import FCN
from nthsim.results.figure import Line, Panel, draw, save


def panels(width: int, study: nth.Comparison) -> list[Panel]:
    """The gap of f, and that of the loss, on the test points of one study."""
    exact = study.exact
    assert exact.test_loss is not None
    gaps, losses = [], []
    for look, (name, curve) in enumerate(study.curves.items(), start=1):
        error = errors(curve, exact)
        assert error.test_rms is not None
        assert error.test_loss is not None
        gaps.append(Line(name, error.ts[1:], error.test_rms[1:], look))
        losses.append(Line(name, error.ts[1:], error.test_loss[1:], look))
    return [
        Panel(f"gap in $f$, width {width}", "rms over test points", tuple(gaps)),
        Panel(f"gap in the test loss, width {width}", "absolute difference", tuple(losses)),
    ]


def main() -> None:
    """Compare at each width, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/limit_gap"))
    parser.add_argument("--n-train", type=int, default=10, help="training digits (default 10)")
    parser.add_argument("--n-test", type=int, default=50, help="test digits (default 50)")
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 512])
    settings = parser.parse_args()

    jax.config.update("jax_enable_x64", True)
    nth.guard_process()
    data = nth.digits(3, 8, n_train=settings.n_train, n_test=settings.n_test)
    ts = np.linspace(0.0, 20.0, 41)
    shown = []
    for width in settings.widths:
        net = FCN(64, width, 2, activation="erf", c_sigma="auto", key=jr.key(0))
        curves = (2, 3, 4, nth.LimitKernel())
        study = nth.compare(net, data, curves, nth.Run(ts, record=()), certify=False)
        print(f"{study}\n")
        shown += panels(width, study)
    settings.out.mkdir(parents=True, exist_ok=True)
    title = "Distance from the network that is trained: frozen and moving kernels, and their limit"
    save(draw(shown, title=title), settings.out / "limit_gap.png")
    print(f"The figure is in {settings.out}/.")


if __name__ == "__main__":
    main()
