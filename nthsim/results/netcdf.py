"""Results on disk: one labelled netCDF-4 file, written whole or not at all, never pickled."""

import contextlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5netcdf
import h5py
import numpy as np
import xarray as xr

from nthsim.results.record import Record
from nthsim.results.variables import LABELS, PARAMETERS, VARIABLES
from nthsim.results.whole_file import replacing

#: Raised whenever one nthsim would misread a file of another.
VERSION = 2

#: The one attribute of each group that holds its facts, as JSON.
ATTRIBUTE = "nthsim"

#: What netCDF-4 files begin with, those of nthsim at their first byte.
SIGNATURE = b"\x89HDF\r\n\x1a\n"

#: Variables large enough to be worth compressing; the mild level costs little.
COMPRESSED = ("kernel", "kernel_test", "initial_kernels")


def write(
    path: str | os.PathLike[str],
    kind: str,
    root: Record,
    groups: Mapping[str, Record],
    *,
    name: str = "path",
) -> None:
    """Write a result of one kind: what concerns all of it, and its parts as groups.

    Argument `name` asked for it.

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
    # By way of memory: HDF5 takes the whole process down when the disk fills up under it.
    whole = io.BytesIO()
    tree.to_netcdf(whole, engine="h5netcdf", encoding=encoding)
    # No view of it: an error's traceback would hold that, and keep `whole` from being closed.
    content = whole.getvalue()
    with replacing(path, name) as part:
        part.write_bytes(content)


def read(path: str | os.PathLike[str], kind: str) -> tuple[Record, dict[str, Record]]:
    """Read a result of one kind, as it was given to `write`.

    Raises:
        ValueError: When there is no such file, or it is damaged, foreign, of another kind, or was
            written by a newer nthsim.
    """
    if not _is_netcdf(path):
        raise ValueError(f"`path` must be a netCDF-4 file, but {path} is of another format.")
    with decoding(path), _opened(path) as tree:
        tree.load()
        stamp = json.loads(tree.attrs.get(ATTRIBUTE, "{}"))
        version = int(stamp.get("version", VERSION))
    if stamp.get("format") != "nthsim":
        raise ValueError(f"`path` must be a results file of nthsim, but {path} is none.")
    if version != VERSION:
        cure = "update nthsim" if version > VERSION else "only an older nthsim reads it"
        raise ValueError(
            f"`path` must be of format version {VERSION}, but {path} is of version {version}: "
            f"{cure}."
        )
    if stamp.get("kind") != kind:
        raise ValueError(f"`path` must hold a {kind}, but {path} holds a {stamp.get('kind')}.")
    with decoding(path):
        return _record(tree), {name: _record(node) for name, node in tree.children.items()}


def kind_of(path: str | os.PathLike[str]) -> str | None:
    """The kind of result that a file holds; None where it is none of nthsim's.

    Raises:
        ValueError: When there is no such file, or it is damaged.
    """
    if not _is_netcdf(path):
        return None
    # Without xarray, which looks at all variables, and stumbles over what strangers keep in them.
    with decoding(path), h5netcdf.File(_content(path), "r") as root:
        stamp = json.loads(root.attrs.get(ATTRIBUTE, "{}"))
        return stamp.get("kind") if stamp.get("format") == "nthsim" else None


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
            f"`path` must be an intact netCDF-4 file, but {path} is cut short or damaged."
        ) from error


def _is_netcdf(path: str | os.PathLike[str]) -> bool:
    """Whether a file starts as one of netCDF-4 does; that tells others from damaged ones.

    Raises:
        ValueError: When there is no such file.
    """
    try:
        with Path(os.path.expanduser(path)).open("rb") as file:
            return file.read(len(SIGNATURE)) == SIGNATURE
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(f"`path` must be a readable file, but {path} is not: {reason}.") from error


def _opened(path: str | os.PathLike[str]) -> xr.DataTree:
    # Nothing is decoded, so that no number changes: there are no dates and no missing values.
    return xr.open_datatree(
        _content(path),
        engine="h5netcdf",
        decode_times=False,
        mask_and_scale=False,
        decode_coords=False,
    )


def _content(path: str | os.PathLike[str]) -> io.BytesIO:
    """What is in a file now.

    By a path HDF5 would look whether this process has the file open already, as it has after
    h5netcdf failed on it and until that is collected, and go by what it read then: damage done in
    between would pass.
    """
    content = io.BytesIO(Path(os.path.expanduser(path)).read_bytes())
    with h5py.File(content, "r") as root:
        # The first that h5netcdf reads. Should it fail there, what it leaves cannot even be closed,
        # and complains when it is collected.
        root.attrs.get("_nc3_strict")
    return content


def _dataset(name: str, record: Record) -> xr.Dataset:
    """Name the arrays after what they are, except where names are a stranger's."""
    labels, clock = LABELS.get(name, VARIABLES), {}
    if name not in LABELS:
        clock = {"ts": "save_time" if name == "/" else "time", "record_ts": "record_time"}
    arrays = {clock.get(key, key): array for key, array in record.arrays.items()}
    what = "parameter " if name in PARAMETERS else ""
    own = {key: label for key, label in record.labels.items() if key in arrays}
    known = {key: array for key, array in arrays.items() if key not in own}
    variables = {key: _variable(key, array, labels, what) for key, array in known.items()}
    for key, label in own.items():  # an observable: no name of nthsim's has a dot
        axes = ("record_time", *(f"{key}.{axis}" for axis in label.axes))
        attrs = {"long_name": key, "units": label.unit}
        variables[key] = xr.Variable(axes, arrays[key], attrs)
        for axis, values in label.coordinates.items():
            name = f"{key}.{axis}"
            variables[name] = xr.Variable((name,), values, {"long_name": axis, "units": "1"})
    attributes = {ATTRIBUTE: json.dumps(record.facts, default=as_python)}
    return xr.Dataset(variables, attrs=attributes)


def _record(node: xr.DataTree) -> Record:
    dataset = node.to_dataset(inherit=False)
    facts = json.loads(dataset.attrs[ATTRIBUTE])
    known = {
        f"{key}.{axis}" for key, label in facts.get("labels", {}).items() for axis in label["axes"]
    }
    clocks = {"save_time": "ts", "time": "ts", "record_time": "record_ts"}
    clock = {} if node.name in LABELS else clocks
    arrays = {
        clock.get(str(key), str(key)): variable.to_numpy()
        for key, variable in dataset.variables.items()
        if key not in known
    }
    return Record(arrays, facts)


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
        axes = (axes[0], *(f"input-{i}" for i in range(array.ndim - 1)))
    return xr.Variable(axes, array, {"long_name": long_name, "units": "1"})


def _encoding(name: str, variable: xr.Variable) -> dict[str, Any]:
    encoding: dict[str, Any] = {"_FillValue": None}
    if variable.ndim and variable.size and variable.dtype.kind not in "UO":
        encoding["fletcher32"] = True  # checksums, so that damage does not pass for a result
        if name in COMPRESSED:
            encoding |= {"zlib": True, "complevel": 1, "shuffle": True}
    return encoding


def as_python(value: Any) -> Any:
    """A NumPy or JAX scalar as a number of Python's."""
    return value.item()
