"""Saved results of whatever kind: one in a file, or all that stand in a folder."""

from pathlib import Path

from nthsim.comparison import Comparison
from nthsim.results import kind_of
from nthsim.scaling import Scaling
from nthsim.stores import MANIFEST, read_manifest
from nthsim.trajectories import Trajectory

#: The folder of a sweep's cells, beside its results.
CELLS = "cells"

#: What may be in a file, by the name that the file has for it.
KINDS = {kind.__name__: kind for kind in (Comparison, Trajectory, Scaling)}


def loaded(path: Path) -> Comparison | Trajectory | Scaling:
    """Whichever result a file holds.

    Raises:
        ValueError: When the file cannot be read, is damaged or holds no result.
    """
    return KINDS.get(kind_of(path) or "", Comparison).load(path)


def result_files(path: Path) -> list[Path]:
    """The file itself, or the files of all results in a folder, by their names.

    Raises:
        ValueError: When a file there is damaged, or the folder holds no result; the sentence tells
            of a sweep that is not finished.
    """
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.glob("*.nc") if file.is_file())
    found = [file for file in files if kind_of(file) in KINDS]
    if found:
        return found
    cells = path if (path / MANIFEST).exists() else path / CELLS
    if (cells / MANIFEST).exists():
        names = read_manifest(cells)["cells"]
        done = sum((cells / f"{name}.nc").exists() for name in names)
        raise ValueError(
            f"`path` must be a finished result, but {path} holds a sweep with {done} of "
            f"{len(names)} cells: the command that began it goes on from there."
        )
    raise ValueError(f"`path` must be a result of nthsim, but the folder {path} holds none.")
