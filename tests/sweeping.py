"""A small study whose cells tell in a file when they are computed, and a process that sweeps it.

python tests/sweeping.py FOLDER LOG SECONDS NAME...
"""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from nthsim.results.netcdf import read
from nthsim.results.record import Record
from nthsim.scaling.store import GROUP, KIND

SUBJECT = {"data": "d1", "orders": [2, 3], "save times": "t1", "networks": {"depth": 2}}


@dataclasses.dataclass(frozen=True)
class Piece:
    """A cell: its number is all there is to it."""

    name: str

    @property
    def number(self) -> int:
        """The number behind the hyphen."""
        return int(self.name.partition("-")[2])


@dataclasses.dataclass(frozen=True)
class Sleeper:
    """Powers of a cell's number, which take their time."""

    log: str
    seconds: float = 0.0
    fatal: tuple[str, ...] = ()
    changed: dict[str, Any] = dataclasses.field(default_factory=dict)

    def compute(self, cell: Piece) -> Record:
        """Three numbers of JAX in the precision of the process, others of NumPy, and facts."""
        self._tell(cell, "begins")
        if cell.name in self.fatal and self.told("begins").count(cell.name) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        powers = np.asarray((cell.number + 0.1) ** jnp.arange(1.0, 4.0))
        facts = {"number": np.int64(cell.number), "limits": (1, None, float("inf"))}
        facts |= {"mark": self.mark(cell)}
        self._tell(cell, "ends")
        return Record({"powers": powers, "ts": np.ones((0, 2)), "flags": powers > 1}, facts)

    def mark(self, cell: Piece) -> str:
        """The number, of which powers are taken."""
        return str(cell.number)

    def subject(self) -> dict[str, Any]:
        """What the numbers follow from."""
        return SUBJECT | self.changed

    def told(self, what: str) -> list[str]:
        """The cells that were told to begin or to end, in time's order."""
        if not os.path.exists(self.log):
            return []
        with open(self.log) as file:
            return [line.split()[0] for line in file if line.split()[1] == what]

    def _tell(self, cell: Piece, what: str) -> None:
        with open(self.log, "a") as file:  # one short line at once, which no other process breaks
            file.write(f"{cell.name} {what} {os.getpid()}\n")


def same(some: list[Record], others: list[Record]) -> None:
    """Assert that records are equal, bit by bit."""
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        assert one.facts == other.facts
        assert one.arrays.keys() == other.arrays.keys()
        for name, array in one.arrays.items():
            assert array.dtype == other.arrays[name].dtype
            np.testing.assert_array_equal(array, other.arrays[name])


def pieces(count: int, first: int = 0) -> list[Piece]:
    """Cells number-0, number-1 and so on."""
    return [Piece(f"number-{i}") for i in range(first, first + count)]


def contents(folder: Path) -> dict[str, Any]:
    """All that is in a folder of cells, by file; manifests by their text."""
    found: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".nc":
            root, groups = read(path, KIND)
            record = groups[GROUP]
            arrays = {k: (a.dtype.name, a.shape, a.tobytes()) for k, a in record.arrays.items()}
            found[path.name] = (root.facts, record.facts, arrays)
        else:
            found[path.name] = path.read_text() if path.is_file() else None
    return found


def started(folder: Path, study: Sleeper, cells: list[Piece]) -> subprocess.Popen:
    """Another process that sweeps these cells, once it is at work on one."""
    before = len(study.told("begins"))
    words = [str(folder), study.log, str(study.seconds), *(cell.name for cell in cells)]
    process = subprocess.Popen([sys.executable, __file__, *words])
    while len(study.told("begins")) == before:
        assert process.poll() is None
        time.sleep(0.02)
    return process


if __name__ == "__main__":
    import jax

    from nthsim.scaling.sweep import computed

    jax.config.update("jax_enable_x64", True)
    folder, log, seconds, *names = sys.argv[1:]
    computed(Sleeper(log, float(seconds)), [Piece(name) for name in names], folder=Path(folder))
