"""Writes one file of each kind into a folder, and beside each what readers must find in it.

Called with the folder. FILE.json has all numbers and labels: by the path of a variable, its values
one after the other; by the path, "@" and the name of an axis, the labels along that axis.
"""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import xarray as xr

import nthsim as nth
from nthsim.models import FCN, ResNet
from nthsim.solvers import Auto

SEEDS, DEPTHS, ORDERS = (1, 3, 5, 8, 13), (1, 2, 4), (2, 3)


def main(folder: Path) -> None:
    """Write all of them."""
    jax.config.update("jax_enable_x64", True)
    comparison(folder)
    study(folder)


def comparison(folder: Path) -> None:
    """A comparison with everything in it, and one of its runs alone."""
    net = FCN(3, 8, 1, activation="erf", key=jr.key(0))
    weights = lambda model: model.readout.weight.ravel()[:3]  # noqa: E731
    words = {"place": ["first", "zweitgrößte", "last"]}
    own = (
        nth.Observable.of("norm", lambda model: jnp.linalg.norm(model.readout.weight), unit="µm"),
        nth.Observable.of("weights", weights, axes=words),
    )
    run = nth.Run([0.0, 0.5, 1.0, 2.0], record=("kernel", *own), record_ts=[0.5, 2.0])
    curves = (2, 3, nth.Taylor(1), nth.LimitKernel(), nth.Perturbation())
    done = nth.compare(net, nth.sphere(5, 2, dim=3), curves, run, bounds=True, progress=False)
    done.save(folder / "comparison.nc")
    truth(folder / "comparison.json", {n.path: n.to_dataset() for n in done.to_xarray().subtree})
    done.exact.save(folder / "trajectory.nc")
    trained = {"/trained_parameters": done.to_xarray()["trained_parameters"].to_dataset()}
    truth(folder / "trajectory.json", {"/": done.exact.to_xarray()} | trained)


def study(folder: Path) -> None:
    """A study over depth with two families, and one of its cells."""
    families = {
        "FCN": lambda depth, key: FCN(3, 4, depth, key=key),
        "Résnet": lambda depth, key: ResNet(3, 4, depth, key=key),
    }
    run = nth.Run([0.0, 0.5, 1.0], solver=Auto(rtol=1e-5), checkpoint=folder / "cells")
    data = nth.sphere(3, 2, dim=3)
    done = nth.depth_scaling(families, data, DEPTHS, SEEDS, ORDERS, run, progress=False)
    done.save(folder / "scaling.nc")
    whole = done.to_xarray()
    truth(folder / "scaling.json", {"/": whole})
    [cell] = (folder / "cells").glob("r*snet-4-*.nc")
    cell.rename(folder / "cell.nc")
    part = whole.drop_vars(["x", "y", "x_test", "y_test", "seconds"])
    part = part.drop_dims(["sample", "test_sample", "input"], errors="ignore")
    truth(folder / "cell.json", {"/cell": part.sel(family="Résnet", size=4)})


def truth(path: Path, groups: dict[str, xr.Dataset]) -> None:
    """Write what readers must find in the groups of a file."""
    found: dict[str, list[Any]] = {}
    for group, dataset in groups.items():
        for name, variable in dataset.variables.items():
            whole = f"{group.strip('/')}/{name}".strip("/")
            # Coordinates that a tree's branch has from the root, for variables that it has not.
            used = {axis for each in dataset.data_vars.values() for axis in each.dims}
            if variable.dims and name in dataset.coords and name not in used:
                continue
            found[whole] = np.ravel(variable.to_numpy()).tolist()
            for axis in variable.dims:
                if axis in dataset.coords:
                    found[f"{whole}@{axis}"] = dataset[axis].to_numpy().tolist()
    path.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
