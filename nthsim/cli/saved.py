"""Saved results of whatever kind: one in a file, or all that stand in a folder."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from nthsim.comparison.comparison import Comparison
from nthsim.dynamics.trajectory import Trajectory
from nthsim.results.netcdf import kind_of
from nthsim.scaling.scaling import Scaling
from nthsim.scaling.store import MANIFEST, read_manifest

#: The folder of a sweep's cells, beside its results.
CELLS = "cells"

#: What may be in a file, by the name that the file has for it.
KINDS = {kind.__name__: kind for kind in (Comparison, Trajectory, Scaling)}


def loaded(path: Path, kind: str | None) -> Comparison | Trajectory | Scaling:
    """The result in a file of a kind that `kind_of` has told.

    Raises:
        ValueError: When the file cannot be read, is damaged, or holds no result or only a part.
    """
    if kind is not None and kind not in KINDS:
        *others, last = KINDS
        raise ValueError(
            f"`path` must hold a {', '.join(others)} or {last}, but {path} holds a {kind}."
        )
    return KINDS[kind or Comparison.__name__].load(path)  # which says what a file of no kind is


def results_in(path: Path) -> Sequence[tuple[Path, str | None]]:
    """The file itself, or the files of all results in a folder, by their names; and their kinds.

    The cells of a sweep are left alone, of which there may be thousands.

    Raises:
        ValueError: When a file there is damaged, or the folder holds no result; the sentence tells
            of a sweep that is not finished.
    """
    if not path.is_dir():
        return [(path, kind_of(path))]
    begun = (path / MANIFEST).exists()
    cells: set[str] = set()
    if begun:
        with contextlib.suppress(ValueError):  # others call files so, too
            cells.update(read_manifest(path)["cells"])
    files = sorted(file for file in path.glob("*.nc") if file.stem not in cells and file.is_file())
    found = [(file, kind) for file in files if (kind := kind_of(file)) in KINDS]
    if found:
        return found
    folder = path if begun else path / CELLS
    if (folder / MANIFEST).exists():
        names = read_manifest(folder)["cells"]
        done = sum((folder / f"{name}.nc").exists() for name in names)
        raise ValueError(
            f"`path` must be a finished result, but {path} holds a sweep with {done} of "
            f"{len(names)} cells: the command that began it goes on from there."
        )
    raise ValueError(f"`path` must be a result of nthsim, but the folder {path} holds none.")
