"""Records as labelled datasets: each axis has coordinates, so that `.sel` means what it says."""

import importlib.metadata
import json
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr

from nthsim.results.record import Record, as_python, fingerprint
from nthsim.results.variables import AXES, FIELDS, LABELS, PARAMETERS, TITLES, UNITS, VARIABLES

#: Raised whenever one nthsim would misread a file of another.
VERSION = 7

#: The attributes that hold the facts of each group as JSON, and at the root a digest of it all.
ATTRIBUTE, DIGEST = "nthsim", "nthsim_sha256"

#: The attribute of numbers in half precision, which netCDF lacks: what they are in truth.
PRECISION = "precision"

#: What the root of a file says of it besides the facts that it was given.
STAMP = ("format", "version", "kind")


def labelled(kind: str, root: Record, groups: Mapping[str, Record]) -> dict[str, xr.Dataset]:
    """What a file of this kind holds, by group: "/" concerns all of it, others are its parts."""
    stamp = dict(zip(STAMP, ("nthsim", VERSION, kind), strict=True))
    records = {"/": root, **{f"/{name}": record for name, record in groups.items()}}
    parts = {path: _dataset(path.strip("/"), record) for path, record in records.items()}
    parts["/"].attrs = {
        "Conventions": "CF-1.8",
        "title": TITLES.get(kind, kind),
        "history": _history(root.facts),
        ATTRIBUTE: json.dumps(stamp | root.facts, default=as_python),
    }
    parts["/"].attrs[DIGEST] = digest_of(parts)
    return parts


def unlabelled(name: str, dataset: xr.Dataset) -> Record:
    """The arrays and facts that a group was made of."""
    facts = json.loads(dataset.attrs[ATTRIBUTE])
    fields = {} if name in LABELS else {variable: field for field, variable in FIELDS.items()}
    arrays = {}
    for key, variable in dataset.variables.items():
        if key in fields:
            values = variable.to_numpy()
            # `sizes` and `seeds`, which are narrower in files where they fit.
            wide = np.int64 if values.dtype.kind == "i" else values.dtype
            arrays[fields[str(key)]] = values.astype(wide)
        elif key in dataset.data_vars:
            values = variable.to_numpy()
            own = variable.attrs.get(PRECISION, values.dtype)
            arrays[str(key)] = values.astype(jnp.dtype(own), copy=False)
    return Record(arrays, {key: fact for key, fact in facts.items() if name or key not in STAMP})


def digest_of(parts: Mapping[str, xr.Dataset]) -> str:
    """A fingerprint of all numbers, labels and facts of a file, whatever it is stored by."""
    words = [f"{path} {parts[path].attrs[ATTRIBUTE]}" for path in sorted(parts)]
    arrays = {}
    for path, dataset in parts.items():
        for key, variable in dataset.variables.items():
            values = variable.to_numpy()
            values = values.astype("U") if values.dtype.kind in "UO" else values
            arrays[f"{path} {key} {' '.join(map(str, variable.dims))}"] = values
    return fingerprint(arrays, *words)


def _dataset(name: str, record: Record) -> xr.Dataset:
    """One group; in some, names are a stranger's."""
    fields, labels = ({}, LABELS[name]) if name in LABELS else (FIELDS, VARIABLES)
    coordinates, variables, own = {}, {}, _own_axes(record)
    for key, array in record.arrays.items():
        if key in fields:
            coordinates[fields[key]] = _coordinate(fields[key], array)
        elif key in record.labels:
            label = record.labels[key]
            attrs = {"long_name": key, "units": label.unit}
            variables[key] = _widened(("record_time", *own[key]), array, attrs)
            for called, axis in zip(own[key], label.axes, strict=True):
                coordinates[called] = _coordinate(called, label.coordinates[axis], axis)
        else:
            what = "parameter " if name in PARAMETERS else ""
            variables[key] = _variable(key, array, labels, what)
    if name not in PARAMETERS:  # whose axes mean nothing but to the module
        lengths = {axis: n for each in variables.values() for axis, n in each.sizes.items()}
        places = {axis: np.arange(n) for axis, n in lengths.items()}
        for axis, values in (places | record.coordinates).items():
            if axis not in coordinates and (axis in lengths or not values.ndim):
                coordinates[axis] = _coordinate(axis, values)
    attributes = {ATTRIBUTE: json.dumps(record.facts, default=as_python)}
    return xr.Dataset(variables, coordinates, attributes)


def _coordinate(axis: str, values: np.ndarray, long_name: str | None = None) -> xr.Variable:
    """One variable that says what the places along its axis stand for."""
    text = long_name or AXES.get(axis, f"place along {axis}")
    if values.dtype.kind == "i" and np.array_equal(values, values.astype(np.int32)):
        values = values.astype(np.int32)  # the largest integers that CF-1.8 knows
    attrs = {"long_name": text} if values.dtype.kind == "U" else {"long_name": text, "units": "1"}
    return xr.Variable((axis,) if values.ndim else (), values, attrs)


def _own_axes(record: Record) -> dict[str, list[str]]:
    """What each observable's axes are called: after themselves, or after it too until that is free.

    Observables share an axis if they give it the same coordinates.
    """
    inputs = (f"input_{i}" for array in record.arrays.values() for i in range(array.ndim))
    taken = {*AXES, *VARIABLES, *record.arrays, *inputs}
    places: dict[str, np.ndarray] = {}
    found = {}
    for key, label in record.labels.items():
        found[key] = []
        for axis in label.axes:
            name, values = axis, label.coordinates[axis]
            known = [*taken, *found[key]]
            while name in known or not np.array_equal(places.get(name, values), values):
                name = f"{key}_{name}"
            places[name] = values
            found[key].append(name)
    return found


def _variable(
    name: str,
    array: np.ndarray,
    labels: Mapping[str, tuple[tuple[str, ...], str]],
    what: str,
) -> xr.Variable:
    axes, long_name = labels.get(name, ((), f"{what}{name}"))
    if not axes:
        axes = tuple(f"{name}-{i}" for i in range(array.ndim))
    elif array.ndim < len(axes):
        axes = tuple(axis for axis in axes if axis not in ("output", "other_output"))
    elif array.ndim > len(axes):
        axes = (axes[0], *(f"input_{i}" for i in range(array.ndim - 1)))
    return _widened(axes, array, {"long_name": long_name, "units": UNITS.get(name, "1")})


def _widened(axes: tuple[str, ...], array: np.ndarray, attrs: dict[str, str]) -> xr.Variable:
    """A variable in single precision where it is in half."""
    if jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.itemsize < 4:
        attrs, array = attrs | {PRECISION: array.dtype.name}, array.astype(np.float32)
    return xr.Variable(axes, array, attrs)


def _history(facts: Mapping[str, Any]) -> str:
    """When, if that is known, and with which nthsim the numbers were computed."""
    origin = facts.get("origin")
    if origin is None:
        return f"computed by nthsim {importlib.metadata.version('nthsim')}"
    return f"{origin['created']} computed by nthsim {origin['versions']['nthsim']}"
