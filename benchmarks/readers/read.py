"""Reads all variables of a file with one Python package, and prints numbers and labels as JSON.

Called with the name of the reader and the file; prints what `written.py` describes.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

Found = dict[str, Any]


def netcdf4(path: str) -> Found:
    """netCDF4-python; the labels of an axis are the variable of its name, here or further up."""
    import netCDF4

    found: Found = {}

    def values(variable: Any) -> list[Any]:
        # Characters come back as words, as the attribute _Encoding says.
        return np.ravel(np.asarray(variable[...])).tolist()

    def visit(group: Any, above: dict[str, Any]) -> None:
        known = above | dict(group.variables)
        for name, variable in group.variables.items():
            whole = f"{group.path.strip('/')}/{name}".strip("/")
            found[whole] = values(variable)
            for axis in variable.dimensions:
                if axis in known and len(known[axis].dimensions):
                    found[f"{whole}@{axis}"] = values(known[axis])
        for child in group.groups.values():
            visit(child, known)

    with netCDF4.Dataset(path) as root:
        visit(root, {})
    return found


def xarray(engine: str) -> Callable[[str], Found]:
    """By xarray and one of its engines; each number is looked up by its labels."""

    def read(path: str) -> Found:
        import xarray as xr

        found: Found = {}
        for group, dataset in xr.open_groups(path, engine=engine).items():
            for name, variable in dataset.variables.items():
                whole = f"{group.strip('/')}/{name}".strip("/")
                labelled = dataset[name]
                places = {axis: labelled[axis] for axis in variable.dims if axis in labelled.coords}
                by_label = labelled.sel({axis: each.values for axis, each in places.items()})
                found[whole] = np.ravel(by_label.values).tolist()
                for axis, each in places.items():
                    found[f"{whole}@{axis}"] = each.values.tolist()
            dataset.close()
        return found

    return read


def hdf5(path: str) -> Found:
    """h5py; the labels of an axis are its dimension scale, and words are rows of characters."""
    import h5py

    found: Found = {}

    def plain(array: Any) -> list[Any]:
        values = array[...]
        if values.dtype.kind == "S":
            width = values.shape[-1]
            return [w.decode() for w in np.ravel(values.view(f"S{width}")).tolist()]
        return np.ravel(values).tolist()

    def visit(name: str, node: Any) -> None:
        bare = b"This is a netCDF dimension but not a netCDF variable"
        if not isinstance(node, h5py.Dataset) or bare in bytes(node.attrs.get("NAME", b"")):
            return
        found[name] = plain(node)
        scales = [node] if node.is_scale and node.ndim == 1 else [d[0] for d in node.dims if len(d)]
        for scale in [node, *scales[1:]] if node.is_scale and node.ndim == 2 else scales:
            if bare not in bytes(scale.attrs.get("NAME", b"")):
                found[f"{name}@{scale.name.rpartition('/')[2]}"] = plain(scale)

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


READERS: dict[str, Callable[[str], Found]] = {
    "netCDF4": netcdf4,
    "xarray netcdf4": xarray("netcdf4"),
    "xarray h5netcdf": xarray("h5netcdf"),
    "h5py": hdf5,
}


if __name__ == "__main__":
    print(json.dumps(READERS[sys.argv[1]](sys.argv[2])))
