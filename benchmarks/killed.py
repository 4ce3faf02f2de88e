"""A sweep that is killed ten times, and what is left of it.

    python benchmarks/killed.py [--quick] [--out FOLDER]

A study over widths runs in a process of its own, which gets SIGKILL at ten moments that are drawn
with a fixed seed, and is started again each time; then it may end. The same on a Dask cluster of
two worker processes, where workers are killed. Printed is how often cells were begun, how often one
was begun that stood in the folder (never, or the script fails), how often one was computed twice
(killed between its last number and its file), and by how much the numbers differ from those of a
sweep that nobody disturbed.
"""

import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from timing import settings, write

import nthsim as nth
from nthsim.models import FCN
from nthsim.results.netcdf import read
from nthsim.results.record import Record
from nthsim.scaling import sweep
from nthsim.scaling.cells import Cell, Study
from nthsim.solvers import Auto

KILLS = 10

#: Seconds after its start before which a sweep is killed: enough to import JAX and for some cells.
LATEST = 8.0


def network(width: int, key: jax.Array) -> FCN:
    """A tanh network of depth 2 on real digits."""
    return FCN(64, width, 2, key=key)


class Told(eqx.Module):
    """A study that notes in a file when it begins with a cell and when it has computed it.

    `folder` is where the sweep keeps its cells.
    """

    study: Study
    folder: str
    log: str

    def subject(self) -> dict[str, Any]:
        """That of the study."""
        return self.study.subject()

    def mark(self, cell: Cell) -> str:
        """That of the study."""
        return self.study.mark(cell)

    def compute(self, cell: Cell) -> Record:
        """As the study does."""
        kept = Path(self.folder, f"{cell.name}.nc").exists()
        self.note(cell, "repeated" if kept else "begun")
        record = self.study.compute(cell)
        self.note(cell, "computed")
        return record

    def note(self, cell: Cell, what: str) -> None:
        """One line, at once."""
        with open(self.log, "a") as file:
            file.write(f"{what} {cell.name}\n")

    def counts(self) -> dict[str, Counter[str]]:
        """How often each cell was begun, begun although it was kept, and computed."""
        lines = [line.split() for line in Path(self.log).read_text().splitlines()]
        notes = ("begun", "repeated", "computed")
        return {what: Counter(name for said, name in lines if said == what) for what in notes}


def told(folder: Path, log: Path, quick: bool) -> Told:
    """Four widths, 24 chunks of four seeds."""
    study = Study(
        axis="width",
        families={"FCN": network},
        sizes=(8, 16) if quick else (8, 16, 32, 64),
        seeds=tuple(range(8 if quick else 96)),
        data=nth.digits(3, 8, n_train=8),
        orders=(2, 3),
        kernels=3,
        ts=np.linspace(0.0, 5.0, 6),
        loss=nth.squared_error,
        solver=Auto(rtol=1e-6),
        chunk=4,
    )
    return Told(study, str(folder), str(log))


def killed_process(folder: Path, log: Path, quick: bool) -> int:
    """Kill the sweep again and again, then let it end; returns the number of kills."""
    moments, kills = random.Random(0), 0
    words = [sys.executable, __file__, "--sweep", str(folder), str(log)]
    words += ["--quick"] if quick else []
    while kills < KILLS:
        sweep = subprocess.Popen(words)
        try:
            sweep.wait(timeout=moments.uniform(0.0, LATEST))
            break  # it was quicker than its killer
        except subprocess.TimeoutExpired:
            sweep.kill()
            sweep.wait()
            kills += 1
    subprocess.run(words, check=True)
    return kills


def killed_workers(folder: Path, log: Path, quick: bool) -> int:
    """Kill workers of a cluster while it computes the cells; returns the number of kills."""
    from distributed import LocalCluster

    moments, done, kills = random.Random(1), threading.Event(), []
    study = told(folder, log, quick)
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster:

        def kill() -> None:
            while len(kills) < 3 and not done.wait(moments.uniform(5.0, 10.0)):
                worker = moments.choice(list(cluster.workers.values()))
                if worker.pid is not None:
                    os.kill(worker.pid, 9)
                    kills.append(worker.pid)

        killer = threading.Thread(target=kill)
        killer.start()
        sweep.computed(study, study.study.cells(), folder=folder, cluster=cluster.scheduler_address)
        done.set()
        killer.join()
    return len(kills)


def difference(folder: Path, other: Path) -> float:
    """The largest difference between any two numbers of two folders of the same files."""
    names = [{path.name for path in one.iterdir()} for one in (folder, other)]
    if names[0] != names[1]:
        raise SystemExit(f"{folder} and {other} hold different files: {names[0] ^ names[1]}")
    most = 0.0
    for name in sorted(name for name in names[0] if name.endswith(".nc")):
        cells = [read(one / name, "Cell")[1]["cell"].arrays for one in (folder, other)]
        for key in cells[0].keys() | cells[1].keys():
            array, wanted = cells[0][key], cells[1][key]
            if not np.array_equal(np.isnan(array), np.isnan(wanted)):
                raise SystemExit(f"{name} of {folder} and {other} blow up at different places")
            most = max(most, float(np.nan_to_num(np.abs(array - wanted)).max(initial=0.0)))
    return most


def main() -> None:
    """Disturb two sweeps, leave one in peace, and compare."""
    parser = settings(__doc__)
    parser.add_argument("--sweep", nargs=2, type=Path, help="only sweep: a folder, and a log")
    arguments = parser.parse_args()
    quick = arguments.quick
    jax.config.update("jax_enable_x64", True)
    nth.guard_process()
    if arguments.sweep:
        study = told(*arguments.sweep, quick)
        sweep.computed(study, study.study.cells(), folder=arguments.sweep[0], progress=False)
        return
    with tempfile.TemporaryDirectory() as name:
        there = Path(name)
        # What one process compiled the next one reads; else most of the time would be compilation.
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(there / "compiled")
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        start = time.perf_counter()
        peace = there / "peace"
        words = [sys.executable, __file__, "--sweep", str(peace), str(there / "peace.log")]
        subprocess.run([*words, *(["--quick"] if quick else [])], check=True)
        print(f"undisturbed: {time.perf_counter() - start:.0f} s", flush=True)
        found: dict[str, Any] = {}
        for title, disturbed in (("process", killed_process), ("worker", killed_workers)):
            log = there / f"{title}.log"
            kills = disturbed(there / title, log, quick)
            counts = told(there / title, log, quick).counts()
            begun, repeated, computed = counts["begun"], counts["repeated"], counts["computed"]
            if repeated:
                raise SystemExit(f"these were kept and yet begun: {sorted(repeated)}")
            found[title] = {
                "kills": kills,
                "cells": len(begun),
                "begun again": sum(begun.values()) - len(begun),
                "begun though kept": sum(repeated.values()),
                "computed twice": sum(count > 1 for count in computed.values()),
                "never computed": len(begun.keys() - computed.keys()),
                "largest difference": difference(there / title, peace),
            }
            print(f"{title} killed: {found[title]}", flush=True)
    write(arguments.out / "killed.json", found)


if __name__ == "__main__":
    main()
