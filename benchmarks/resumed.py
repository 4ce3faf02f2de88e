"""Twenty runs that are killed at random moments, and go on from their checkpoints.

    python benchmarks/resumed.py [--quick] [--out FOLDER]

Exact flow by explicit and by exponential steps, and a series hierarchy, each in a process of its
own that gets SIGKILL up to three times, at moments drawn with a fixed seed, and is started again.
Printed is by how much the outputs at the end differ from those of a run that nobody disturbed, and
how many steps either took in all. Compiled calls and the time between checkpoints are made short,
so that many moments lie between two of them.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.random as jr
import numpy as np
from timing import settings, write

import nthsim as nth
from nthsim.dynamics import checkpoint
from nthsim.dynamics.trajectory import Trajectory
from nthsim.models import FCN
from nthsim.solvers import Explicit, Exponential, run

KINDS = {"explicit flow": 7, "exponential flow": 7, "exponential series": 6}

#: Kills of one run, and the most that its end may differ from that of an undisturbed one.
KILLS, AGREEMENT = 3, 1e-8


def solved(kind: str, folder: Path | None) -> Trajectory:
    """One run, kept in a folder if there is one."""
    data = nth.digits(3, 8, n_train=40)
    net = FCN(64, 64, 2, key=jr.key(0))
    ts = np.linspace(0.0, 400.0, 9)
    if kind == "exponential series":
        how = nth.Run(ts, solver=Exponential(rtol=1e-6), checkpoint=folder)
        return nth.hierarchy(net, data, 3, how, method="series")
    solver = Explicit(rtol=1e-11) if kind == "explicit flow" else Exponential(rtol=1e-9)
    return nth.gradient_flow(net, data, nth.Run(ts, solver=solver, checkpoint=folder))


def alone(kind: str, folder: str) -> None:
    """In a process of its own: compute, and print the end as JSON."""
    jax.config.update("jax_enable_x64", True)
    nth.guard_process()
    run.CALL_SECONDS, checkpoint.LEAST_SECONDS, checkpoint.PART = 2e-2, 0.0, 1.0
    flow = solved(kind, Path(folder) if folder else None)
    print(json.dumps({"f": flow.f[-1].tolist(), "steps": flow.stats.steps}))


def ended(words: list[str]) -> dict[str, Any]:
    """What a process that nobody disturbs prints."""
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def killed(words: list[str], moments: random.Random, seconds: float) -> tuple[int, dict[str, Any]]:
    """Kill a process up to `KILLS` times, then let it end; the kills and what it printed."""
    kills = 0
    while kills < KILLS:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        try:
            said, _ = process.communicate(timeout=moments.uniform(0.3, 1.0) * seconds)
            return kills, json.loads(said)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
    return kills, ended(words)


def main() -> None:
    """Run each kind in peace, then several times disturbed."""
    parser = settings(__doc__)
    parser.add_argument("--alone", nargs=2, help="only run: what, and in which folder")
    arguments = parser.parse_args()
    if arguments.alone:
        alone(*arguments.alone)
        return
    moments, rows = random.Random(1), []
    with tempfile.TemporaryDirectory() as name:
        # What one process compiled the next one reads; else most of the time would be compilation.
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(name) / "compiled")
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        for kind, count in KINDS.items():
            words = [sys.executable, __file__, "--alone", kind]
            peace = ended([*words, ""])
            clock = time.perf_counter()
            ended([*words, ""])
            seconds = time.perf_counter() - clock
            for i in range(1 if arguments.quick else count):
                folder = Path(name) / f"{kind} {i}"
                kills, end = killed([*words, str(folder)], moments, seconds)
                apart = float(np.abs(np.subtract(end["f"], peace["f"])).max())
                steps = {"steps": end["steps"], "undisturbed": peace["steps"]}
                rows.append({"kind": kind, "kills": kills, "difference": apart, **steps})
                print(rows[-1], flush=True)
    good = sum(row["difference"] < AGREEMENT for row in rows)
    kills = sum(row["kills"] for row in rows)
    print(f"{good} of {len(rows)} runs ended where they should, after {kills} kills")
    write(arguments.out / "resumed.json", {"runs": rows})


if __name__ == "__main__":
    main()
