"""Results on disk: one labelled netCDF-4 file, written whole or not at all, never pickled."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from nthsim.outputs import replacing
from nthsim.records import Record

#: Groups whose variables are a network's parameters.
PARAMETERS = ("parameters", "trained_parameters")

#: Raised whenever an older nthsim would misread a file of a newer one.
VERSION = 1

#: The one attribute of each group that holds its facts, as JSON.
ATTRIBUTE = "nthsim"

#: The axes of each variable, and its name for people. A scalar output has no axis "output"; all
#: numbers are dimensionless, time in the unit that the factor 1/n in the loss sets.
VARIABLES: Mapping[str, tuple[tuple[str, ...], str]] = {
    "x": (("sample", "input"), "training inputs"),
    "y": (("sample", "output"), "training targets"),
    "x_test": (("test_sample", "input"), "test inputs"),
    "y_test": (("test_sample", "output"), "test targets"),
    "save_time": (("save_time",), "gradient-flow times that were asked for"),
    "time": (("time",), "gradient-flow time"),
    "f": (("time", "sample", "output"), "network outputs on training inputs"),
    "f_test": (("time", "test_sample", "output"), "network outputs on test inputs"),
    "loss": (("time",), "mean loss over training points"),
    "test_loss": (("time",), "mean loss over test points"),
    "solver_error": (("time",), "what solving ten times as tightly changes in f, rms"),
    "contributions": (
        ("time", "power", "sample", "output"),
        "coefficients of f in the hierarchy's formal parameter, which sum to f",
    ),
    "contributions_test": (
        ("time", "power", "test_sample", "output"),
        "coefficients of f_test in the hierarchy's formal parameter, which sum to f_test",
    ),
    "kernel_time": (("kernel_time",), "gradient-flow times at which the kernel was recorded"),
    "kernel": (
        ("kernel_time", "sample", "output", "other_sample", "other_output"),
        "tangent kernel K^(2) among training points",
    ),
    "initial_kernel": (
        ("sample", "output", "other_sample", "other_output"),
        "tangent kernel K^(2) among training points at time 0",
    ),
    "kernel_test": (
        ("kernel_time", "test_sample", "output", "other_sample", "other_output"),
        "tangent kernel K^(2) of test against training points",
    ),
    "f_bound": (("time",), "a-priori bound on the error of f at order 2, rms over training points"),
    "kernel_bound": (("time",), "a-priori bound on the movement of each entry of K^(2)"),
    "drift_bound": (("time",), "the same, relative in Frobenius norm"),
    "errors": (("order", "time"), "root mean square error of f at small times"),
    "slopes": (("order",), "fitted slope of log error against log time"),
    "windows": (("order", "bound"), "first and last time of each fit"),
}

#: Variables large enough to be worth compressing; the mild level costs little.
COMPRESSED = ("kernel", "kernel_test")


def write(
    path: str | os.PathLike[str], kind: str, root: Record, groups: Mapping[str, Record]
) -> None:
    """Write a result of one kind: what concerns all of it, and its parts as groups.

    Raises:
        ValueError: When the file cannot be written; one that was there before stays as it was.
    """
    stamp = {"format": "nthsim", "version": VERSION, "kind": kind}
    tree = xr.DataTree.from_dict(
        {
            "/": _dataset("/", Record(root.arrays, stamp | root.facts)),
            **{f"/{name}": _dataset(name, record) for name, record in groups.items()},
        }
    )
    encoding = {
        node.path: {
            str(name): _encoding(str(name), variable)
            for name, variable in node.to_dataset(inherit=False).variables.items()
        }
        for node in tree.subtree
    }
    with replacing(path) as part:
        tree.to_netcdf(part, engine="h5netcdf", encoding=encoding)


def read(path: str | os.PathLike[str], kind: str) -> tuple[Record, dict[str, Record]]:
    """Read a result of one kind, as it was given to `write`.

    Raises:
        ValueError: When there is no such file, or it is damaged, foreign, of another kind, or was
            written by a newer nthsim.
    """
    try:
        with Path(path).open("rb"):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(f"`path` must be a readable file, but {path} is not: {reason}.") from error
    with decoding(path), _opened(path) as tree:
        tree.load()
        stamp = json.loads(tree.attrs.get(ATTRIBUTE, "{}"))
        version = int(stamp.get("version", VERSION))
    if stamp.get("format") != "nthsim":
        raise ValueError(f"`path` must be a results file of nthsim, but {path} is none.")
    if version > VERSION:
        raise ValueError(
            f"`path` must be of format version {VERSION} or older, but {path} is of version "
            f"{version}: update nthsim."
        )
    if stamp.get("kind") != kind:
        raise ValueError(f"`path` must hold a {kind}, but {path} holds a {stamp.get('kind')}.")
    with decoding(path):
        return _record(tree), {name: _record(node) for name, node in tree.children.items()}


@contextlib.contextmanager
def decoding(path: str | os.PathLike[str]) -> Iterator[None]:
    """Say in one sentence that the file is damaged, whatever it is that fails because of it.

    Raises:
        ValueError: When anything fails.
    """
    try:
        yield
    except Exception as error:  # a damaged file can fail at any depth of HDF5, xarray and JSON
        raise ValueError(
            f"`path` must be an intact netCDF-4 file, but {path} is cut short, damaged or no such "
            "file."
        ) from error


def _opened(path: str | os.PathLike[str]) -> xr.DataTree:
    # Nothing is decoded, so that no number changes: there are no dates and no missing values.
    return xr.open_datatree(
        path, engine="h5netcdf", decode_times=False, mask_and_scale=False, decode_coords=False
    )


def _dataset(name: str, record: Record) -> xr.Dataset:
    """Name the arrays after what they are, except parameters, whose names are a stranger's."""
    labels = {} if name in PARAMETERS else VARIABLES
    clock = {} if name in PARAMETERS else {"ts": "save_time" if name == "/" else "time"}
    clock |= {} if name in PARAMETERS else {"kernel_ts": "kernel_time"}
    arrays = {clock.get(key, key): array for key, array in record.arrays.items()}
    variables = {key: _variable(key, array, labels) for key, array in arrays.items()}
    attributes = {ATTRIBUTE: json.dumps(record.facts, default=_plain)}
    return xr.Dataset(variables, attrs=attributes)


def _record(node: xr.DataTree) -> Record:
    dataset = node.to_dataset(inherit=False)
    clocks = {"save_time": "ts", "time": "ts", "kernel_time": "kernel_ts"}
    clock = {} if node.name in PARAMETERS else clocks
    arrays = {
        clock.get(str(key), str(key)): variable.to_numpy()
        for key, variable in dataset.variables.items()
    }
    return Record(arrays, json.loads(dataset.attrs[ATTRIBUTE]))


def _variable(
    name: str, array: np.ndarray, labels: Mapping[str, tuple[tuple[str, ...], str]]
) -> xr.Variable:
    axes, long_name = labels.get(name, ((), f"parameter {name}"))
    if not axes:
        axes = tuple(f"{name}-{i}" for i in range(array.ndim))
    elif array.ndim < len(axes):
        axes = tuple(axis for axis in axes if axis not in ("output", "other_output"))
    elif array.ndim > len(axes):
        axes = (axes[0], *(f"input-{i}" for i in range(array.ndim - 1)))
    return xr.Variable(axes, array, {"long_name": long_name, "units": "1"})


def _encoding(name: str, variable: xr.Variable) -> dict[str, Any]:
    encoding: dict[str, Any] = {"_FillValue": None}
    if variable.ndim and variable.size:
        encoding["fletcher32"] = True  # checksums, so that damage does not pass for a result
        if name in COMPRESSED:
            encoding |= {"zlib": True, "complevel": 1, "shuffle": True}
    return encoding


def _plain(value: Any) -> Any:
    """A NumPy or JAX scalar as a number of Python's."""
    return value.item()
