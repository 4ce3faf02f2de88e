"""The code as it stands beside that of an earlier commit, in turns, after showing that both agree.

    python benchmarks/beside.py COMMIT [--quick] [--out FOLDER]

Each side is a process of its own with its own sources and the same libraries. A ratio above one
says that the code is faster now: the median over turns, each of which times both.
"""

import os
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import numpy as np
from timing import settings, write

ROOT = Path(__file__).resolve().parent.parent

SIDE = """
import sys
sys.path[:0] = [{source!r}, {benchmarks!r}]
import beside
from turns import serve
serve(beside.candidates({quick}), {folder!r})
"""

#: Seconds after which no further turn begins, once there were three.
BUDGET = 30

#: What results may differ by, over the largest entry.
AGREE = 1e-8


def candidates(quick: bool) -> dict:
    """Kernels, a series, exact flows and programs as a whole, of whichever nthsim is imported."""
    import jax
    import jax.random as jr

    import nthsim as nth
    from nthsim.models import FCN, ResNet
    from nthsim.solvers import Explicit

    jax.config.update("jax_enable_x64", True)
    d, m, n = (4, 8, 5) if quick else (64, 256, 200)
    net, data = FCN(d, m, 2, key=jr.key(0)), nth.sphere(n, 0, dim=d)
    deep = ResNet(d, m // 4, 4, key=jr.key(1))
    few = nth.sphere(max(n // 4, 3), 0, dim=d)
    steps, quiet = Explicit(rtol=1e-4), {"progress": False}
    stiff = nth.Dataset(few.x * 5, few.y)

    def kernel(model, x, r):
        return lambda: nth.kernel(model, x, r, progress=False)

    def solved(function, *arguments, ts, **options):
        # Earlier commits have no `Run`.
        solver = {"solver": steps}
        run, more = (nth.Run(ts, **solver), {}) if hasattr(nth, "Run") else (ts, solver)
        return lambda: function(*arguments, run, **more, **options, **quiet).f

    source = Path(nth.__file__).parent.parent
    scripts = tomllib.loads((source / "pyproject.toml").read_text())["project"]["scripts"]
    module, function = scripts["nthsim"].split(":")
    command = f"import sys; from {module} import {function}; sys.exit({function}())"
    environment = os.environ | {"PYTHONPATH": str(source)}

    def program(code, *words):
        line = [sys.executable, "-c", code, *words]

        def run():
            subprocess.run(line, env=environment, check=True, capture_output=True)
            return np.zeros(1)

        return run

    folder = tempfile.mkdtemp()
    return {
        "K2": kernel(net, data.x, 2),
        "K3": kernel(net, few.x, 3),
        "K2 of a ResNet": kernel(deep, data.x, 2),
        "K3 of a ResNet": kernel(deep, few.x, 3),
        "series 3": solved(nth.hierarchy, net, data, 3, ts=[0.0, 2.0], method="series"),
        "series 4 of a ResNet": solved(nth.hierarchy, deep, few, 4, ts=[0.0, 2.0], method="series"),
        "flow": solved(nth.gradient_flow, net, data, ts=[0.0, 5.0]),
        "stiff flow": lambda: nth.gradient_flow(deep, stiff, [0.0, 50.0], **quiet).f,
        "taylor": solved(nth.taylor, net, data, 2, ts=[0.0, 2.0]),
        "import nthsim": program("import nthsim"),
        "nthsim --help": program(command, "--help"),
        "cold compare": program(command, "compare", "--out", folder),
    }


def started(source: Path, folder: Path, quick: bool) -> subprocess.Popen:
    """A process with the sources of one side."""
    folder.mkdir()
    code = SIDE.format(
        source=str(source), benchmarks=str(ROOT / "benchmarks"), quick=quick, folder=str(folder)
    )
    environment = os.environ | {"PYTHONPATH": str(source)}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=folder,
    )


def timed(sides: list[subprocess.Popen], name: str, turns: int) -> dict[str, float]:
    """The fastest seconds of each side, and the median of the ratios of their turns."""
    times, start = [], time.perf_counter()
    while len(times) < 3 or (len(times) < turns and time.perf_counter() - start < BUDGET):
        times.append([_told(side, name) for side in sides])
    ratio = float(np.median([before / now for before, now in times]))
    before, now = np.min(times, axis=0)
    return {"before": before, "now": now, "ratio": ratio}


def _told(side: subprocess.Popen, name: str) -> float:
    """The seconds of one turn of one side."""
    side.stdin.write(name + "\n")
    side.stdin.flush()
    return float(side.stdout.readline())


def main() -> None:
    """Print the ratio of each candidate, and keep all of them."""
    parser = settings(__doc__)
    parser.add_argument("commit")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--only", default="", help="candidates whose names begin so")
    arguments = parser.parse_args()
    record, line = {}, "{:22} before {before:8.4f} s, now {now:8.4f} s, ratio {ratio:.3f}"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        earlier = folder / "source"
        earlier.mkdir()
        archive = ["git", "archive", arguments.commit]
        taken = subprocess.run(archive, cwd=ROOT, check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", earlier], input=taken, check=True)
        sides, names = [], []
        for name, source in {"before": earlier, "now": ROOT}.items():
            side = started(source, folder / name, arguments.quick)
            names = list(iter(lambda side=side: side.stdout.readline().strip(), "ready"))
            sides.append(side)
        for name in (name for name in names if name.startswith(arguments.only)):
            before, now = (np.load(folder / side / f"{name}.npy") for side in ("before", "now"))
            np.testing.assert_allclose(now, before, atol=AGREE * np.abs(before).max(), err_msg=name)
            record[name] = timed(sides, name, arguments.turns)
            print(line.format(name, **record[name]), flush=True)
        for side in sides:
            side.stdin.close()
            side.wait()
    write(arguments.out / "beside.json", record)


if __name__ == "__main__":
    main()
