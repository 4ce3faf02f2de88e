"""Results on disk: one labelled netCDF-4 file, written whole or not at all, never pickled."""

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import h5netcdf
import h5py
import numpy as np
import xarray as xr

from nthsim.results.labelled import ATTRIBUTE, DIGEST, VERSION, digest_of, labelled, unlabelled
from nthsim.results.record import Record
from nthsim.results.whole_file import named, replacing

#: What netCDF-4 files begin with, those of nthsim at their first byte.
SIGNATURE = b"\x89HDF\r\n\x1a\n"

#: Stands behind what HDF5 reads, before the digest of that: on damaged bytes HDF5 may fail in any
#: way, and may never come back. Where another program has changed a file, HDF5 has cut this off.
SEAL = b"\nnthsim sha256 "

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
    # By way of memory: HDF5 takes the whole process down when the disk fills up under it.
    whole = io.BytesIO()
    # The root first: CDO crashes where a file's first axes are those of a group.
    for group, dataset in labelled(kind, root, groups).items():
        encoding = {key: _encoding(str(key), each) for key, each in dataset.variables.items()}
        mode = "w" if group == "/" else "a"
        dataset.to_netcdf(whole, mode=mode, group=group, engine="h5netcdf", encoding=encoding)
    with h5py.File(whole, "r+") as file:
        _fix_texts("/", file)
        file.visititems(_fix_texts)
    # No view of it: an error's traceback would hold that, and keep `whole` from being closed.
    content = whole.getvalue()
    with replacing(path, name) as part:
        part.write_bytes(content + SEAL + _digest(content))


def read(path: str | os.PathLike[str], kind: str) -> tuple[Record, dict[str, Record]]:
    """Read a result of one kind, as it was given to `write`.

    Raises:
        ValueError: When there is no such file, or it is damaged, foreign, of another kind, or was
            written by a newer nthsim.
    """
    if not _is_netcdf(path):
        raise ValueError(f"`path` must be a netCDF-4 file, but {path} is of another format.")
    with decoding(path):
        parts = _parts(path)
        stamp = json.loads(parts["/"].attrs.get(ATTRIBUTE, "{}"))
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
        if parts["/"].attrs[DIGEST] != digest_of(parts):
            raise ValueError("it is not what was written")
        names = {group: group.strip("/") for group in parts}
        records = {name: unlabelled(name, parts[group]) for group, name in names.items()}
        return records.pop(""), records


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
            f"`path` must be an intact netCDF-4 file, but {path} is cut short, damaged or changed."
        ) from error


def _is_netcdf(path: str | os.PathLike[str]) -> bool:
    """Whether a file starts as one of netCDF-4 does; that tells others from damaged ones.

    Raises:
        ValueError: When there is no such file.
    """
    try:
        with named(path).open("rb") as file:
            return file.read(len(SIGNATURE)) == SIGNATURE
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(f"`path` must be a readable file, but {path} is not: {reason}.") from error


def _parts(path: str | os.PathLike[str]) -> dict[str, xr.Dataset]:
    # No number is decoded, so that none changes: there are no dates and no missing values.
    parts = xr.open_groups(
        _content(path), engine="h5netcdf", decode_times=False, mask_and_scale=False
    )
    try:
        return {group: dataset.load() for group, dataset in parts.items()}
    finally:
        for dataset in parts.values():
            dataset.close()


def _content(path: str | os.PathLike[str]) -> io.BytesIO:
    """What is in a file now.

    By a path HDF5 would look whether this process has the file open already, as it has after
    h5netcdf failed on it and until that is collected, and go by what it read then: damage done in
    between would pass.

    Raises:
        ValueError: When that is not what was written.
    """
    whole = named(path).read_bytes()
    sealed, seal, digest = whole.rpartition(SEAL)
    if seal and digest != _digest(sealed):
        raise ValueError("it is not what was written")
    content = io.BytesIO(sealed if seal else whole)
    with h5py.File(content, "r") as root:
        # The first that h5netcdf reads. Should it fail there, what it leaves cannot even be closed,
        # and complains when it is collected.
        root.attrs.get("_nc3_strict")
    return content


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def _encoding(name: str, variable: xr.Variable) -> dict[str, Any]:
    encoding: dict[str, Any] = {"_FillValue": None}
    if variable.dtype.kind in "UO":
        encoding["dtype"] = "S1"  # characters, which every reader knows
    elif variable.ndim and variable.size and name in COMPRESSED:
        encoding |= {"zlib": True, "complevel": 1, "shuffle": True}
    return encoding


def _fix_texts(name: str, node: h5py.Group | h5py.Dataset) -> None:
    """Make attributes text of fixed length, as Octave reads no other."""
    del name
    for key, value in list(node.attrs.items()):
        if isinstance(value, str):
            text = value.encode()
            dtype = h5py.string_dtype("utf-8", max(len(text), 1))
            node.attrs.create(key, np.array(text, dtype=dtype))
