"""Hierarchies where no tensor would fit: seconds and peak memory of whole runs.

    python benchmarks/large.py [--quick] [--case NAME] [--out FOLDER]

Each case runs in a process of its own, whose peak resident memory the system tells at its end, and
is held against the prediction that was made before.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.random as jr
import numpy as np
from timing import settings, write

import nthsim as nth
from nthsim.budget.size import hierarchy_bytes
from nthsim.dynamics.pose import pose
from nthsim.dynamics.run import problem_size
from nthsim.models import ResNet
from nthsim.solvers import Auto

#: Order, data, their number, precision and last time; the network is a ResNet of this shape.
CASES = {
    "digits": (4, nth.digits, 1500, "float64", 4.0),
    "mnist": (3, nth.mnist, 5000, "float32", 4.0),
}
WIDTH, DEPTH = 1024, 4
SOLVER = Auto(rtol=1e-3)

#: The most memory that a case may take, in bytes.
BOUND = 6e9


def measured(name: str, quick: bool) -> dict:
    """Run one case here."""
    order, load, n, precision, t1 = CASES[name]
    n, width = (60, 32) if quick else (n, WIDTH)
    jax.config.update("jax_enable_x64", precision == "float64")
    nth.guard_process()
    data = load(n_train=n, n_test=0)
    size = data.x.shape[1:]
    flat = nth.Dataset(data.x.reshape(n, -1), data.y)
    net = ResNet(flat.x.shape[1], width, DEPTH, out_size=10, key=jr.key(0))
    ts = np.linspace(0.0, t1, 3)
    how = nth.Run(ts, solver=SOLVER)
    problem = problem_size(pose(net, flat, nth.squared_error), how)
    before, clock = memory("VmRSS"), time.perf_counter()
    run = nth.hierarchy(net, flat, order, how, method="series")
    took, peak = time.perf_counter() - clock, memory("VmHWM")
    last = np.sqrt(np.mean(run.contributions[-1] ** 2, axis=(1, 2)))
    return {
        "order": order,
        "data": f"{n} images of {size}",
        "network": f"ResNet {width} x {DEPTH}, {problem.parameters} parameters, {precision}",
        "seconds": took,
        "steps": run.stats.steps,
        "sides": run.stats.evaluations,
        "loss": run.loss.tolist(),
        "contributions": last.tolist(),
        "peak": peak,
        "grown": peak - before,
        "predicted": hierarchy_bytes(problem, order, "series"),
        "dense": hierarchy_bytes(problem, order, "dense"),
    }


def memory(name: str) -> int:
    """What the system says of this process's memory, in bytes."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[name].split()[0]) * 1024


def main() -> None:
    """Run each case in a new process, print it, and write all."""
    parser = settings(__doc__)
    parser.add_argument("--case", choices=CASES, help="run this one in this process")
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measured(arguments.case, arguments.quick)))
        return
    rows = {}
    for name in CASES:
        again = [sys.executable, __file__, "--case", name] + ["--quick"] * arguments.quick
        done = subprocess.run(again, check=True, capture_output=True, text=True)
        rows[name] = row = json.loads(done.stdout.splitlines()[-1])
        print(
            f"order {row['order']} on {row['data']}, {row['network']}:\n"
            f"  {row['seconds'] / 60:.1f} minutes, {row['sides']} right-hand sides; peak "
            f"{row['peak'] / 1e9:.2f} GB, of it {row['grown'] / 1e9:.2f} GB for the run "
            f"(predicted {row['predicted'] / 1e9:.2f}), where tensors would need "
            f"{row['dense'] / 1e12:,.0f} TB\n"
            f"  loss {row['loss'][0]:.4g} to {row['loss'][-1]:.4g}; size of each contribution at "
            f"the end: {', '.join(f'{c:.2g}' for c in row['contributions'])}"
        )
        if not arguments.quick:
            assert row["peak"] < BOUND, f"{name} took {row['peak'] / 1e9:.2f} GB"
    write(arguments.out / "large.json", rows)


if __name__ == "__main__":
    main()
