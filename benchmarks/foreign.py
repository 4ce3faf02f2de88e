"""$K^{(2)}$ beside neural-tangents and PyTorch, on the same network, inputs and cores.

Each of the two runs in an environment of its own that the first run makes under benchmarks/. They
take turns with nthsim call by call; a result counts only if it is nthsim's.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
from kernels import problem, structured
from timing import settings, write
from turns import turn

HERE = Path(__file__).parent

#: The last neural-tangents, with the last JAX that it imports on; PyTorch.
FOREIGN = {
    "neural_tangents": (
        "neural-tangents==0.6.5",
        "jax==0.4.23",
        "jaxlib==0.4.23",
        "numpy<2",
        "scipy<1.13",
    ),
    "torch": ("torch==2.13.0", "torchdiffeq==0.2.5", "numpy"),
}

#: Samples n, width m, depth H.
SIZE, QUICK_SIZE = (350, 512, 2), (10, 16, 2)


class Foreign:
    """Another process that computes the kernel when told to."""

    def __init__(self, name: str, inputs: Path, folder: Path) -> None:
        """Start it and let it compute the kernel once by each of its methods."""
        folder.mkdir()
        script = HERE / f"foreign_{name}.py"
        command = [environment(name), script, inputs, folder, str(os.cpu_count())]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.kernels: dict[str, np.ndarray] = {}
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line == "ready\n":
                return
            self.kernels[line.strip()] = np.load(folder / f"{line.strip()}.npy")
        raise SystemExit(f"{script.name} failed; see above.")

    def turn(self, method: str) -> float:
        """The seconds that one method takes."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(method, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())


def environment(name: str) -> Path:
    """The Python of another package, installed on first use."""
    folder = HERE / f".venv-{name}"
    python = folder / "bin" / "python"
    if not (folder / ".gitignore").exists():
        print(f"Installing {' '.join(FOREIGN[name])} into {folder.name}; this happens once")
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *FOREIGN[name]], check=True)
        (folder / ".gitignore").write_text("*\n")  # comes last: what is installed is complete
    return python


def measure(n: int, m: int, depth: int, turns: int) -> dict[str, float]:
    """The best time of each method, by name, ours first."""
    model, x = problem(n, m, depth)
    weights = [layer.weight for layer in (*model.layers, model.readout)]
    ours = structured(model, x, 2)
    expected = np.asarray(ours())
    with tempfile.TemporaryDirectory() as name:
        inputs = Path(name) / "problem.npz"
        arrays = {"x": x, **{f"W{i}": W for i, W in enumerate(weights)}}
        np.savez(inputs, **arrays)  # pyright: ignore[reportArgumentType]
        foreign = {package: Foreign(package, inputs, Path(name) / package) for package in FOREIGN}
    methods = {"nthsim": lambda: turn(lambda: ours().block_until_ready())}
    for package, process in foreign.items():
        for method, kernel in process.kernels.items():
            error = np.abs(kernel - expected).max() / np.abs(expected).max()
            assert error < 1e-10, f"{package} disagrees by {error} ({method})"
            methods[f"{package} {method}"] = lambda process=process, method=method: process.turn(
                method
            )
    best = dict.fromkeys(methods, float("inf"))
    for _ in range(turns):
        for name, method in methods.items():
            best[name] = min(best[name], method())
    for process in foreign.values():
        process.process.communicate()
    return best


def main() -> None:
    """Measure, print a table, and write it."""
    arguments = settings(__doc__).parse_args()
    jax.config.update("jax_enable_x64", True)
    n, m, depth = QUICK_SIZE if arguments.quick else SIZE
    best = measure(n, m, depth, turns=2 if arguments.quick else 4)
    print(f"K^(2) of a tanh network, n={n} m={m} H={depth}, float64")
    for name, seconds in best.items():
        print(f"{name:<50} {seconds * 1e3:>9.1f} ms {seconds / best['nthsim']:>7.1f}")
    record = {"n": n, "m": m, "depth": depth, "seconds": best}
    write(arguments.out / "foreign.json", record)


if __name__ == "__main__":
    main()
