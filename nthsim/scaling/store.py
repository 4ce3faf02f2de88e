"""The folder that finished cells are kept in, and who may compute which."""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from io import BufferedWriter
from pathlib import Path
from typing import Any

from nthsim.results import netcdf
from nthsim.results.record import Record, as_python
from nthsim.results.whole_file import made_folder, replacing


class Claim:
    """A locked file, there only as long as the claim."""

    def __init__(self, path: Path, file: BufferedWriter) -> None:
        """The lock ends when the file is closed, at the latest with the process."""
        self.path, self.file = path, file

    def release(self) -> None:
        """Give the claim back; its file goes first, while nobody else can hold it."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        self.file.close()


def claimed(path: Path, *, wait: bool = False) -> Claim | None:
    """Claim what the file `path` stands for; None where another process holds it.

    Args:
        path: A file that is made, and removed with the claim.
        wait: Whether to wait until it is free.

    Raises:
        OSError: When there can be no such file, or no locks where it would be.
    """
    while True:
        file = path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _names(path, file):
                return Claim(path, file)
        except BlockingIOError:
            file.close()
            return None
        except BaseException:
            file.close()
            raise
        file.close()  # locked too late: who held it before has removed its name


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Be the only process that is inside this with the same `path`.

    Raises:
        OSError: As in `claimed`.
    """
    claim = claimed(path, wait=True)
    assert claim is not None
    try:
        yield
    finally:
        claim.release()


def _names(path: Path, file: BufferedWriter) -> bool:
    """Whether the path still leads to the open file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


#: What a manifest starts with; the version rises when an older nthsim would misread a newer one's.
FORMAT, VERSION = "nthsim sweep", 1

MANIFEST = "manifest.json"

#: The kind of a cell's file, and the group in it that holds the cell's record.
KIND, GROUP = "Cell", "cell"


class Store:
    """The cells of one study in a folder.

    Beside the manifest there is `NAME.nc` for each finished cell and, while a process works on one,
    `NAME.lock`; a claim ends with its process. Only who holds a claim writes the cell, and any
    number of processes may share a folder.
    """

    def __init__(self, folder: Path, subject: dict[str, Any]) -> None:
        """All numbers in the folder follow from `subject`, a value of JSON for each part of it."""
        self.folder, self.subject = folder, plain(subject)

    def enter(self, names: Sequence[str]) -> None:
        """Write the manifest, or add names to the one that is there.

        Raises:
            ValueError: When the manifest is damaged, of another study or of a newer nthsim, or
                cannot be written.
        """
        path = self.folder / MANIFEST
        try:
            with alone(path.with_suffix(".lock")):
                known = self._known(path)
                cells = list(dict.fromkeys([*known["cells"], *names]))
                subject = joined(known["subject"], self.subject)
                further = {"subject": subject, "cells": cells}
                if path.exists() and further == known:
                    return
                self._tidy(path.name)
                text = json.dumps({"format": FORMAT, "version": VERSION, **further}, indent=1)
                with replacing(path, "checkpoint") as part:
                    part.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            reason = error.strerror or str(error)
            raise ValueError(
                f"`checkpoint` must be a folder to write to, but {self.folder} is not: {reason}."
            ) from error

    def _known(self, path: Path) -> dict[str, Any]:
        """The subject and the cells of the manifest, if there is one, of this study."""
        if not path.exists():
            return {"subject": {}, "cells": []}
        manifest = read_manifest(self.folder)
        part = different(manifest["subject"], self.subject)
        if part is not None:
            raise ValueError(
                f"`checkpoint` must be a folder of the same study, but {self.folder} holds "
                f"another {part}."
            )
        return {name: manifest[name] for name in ("subject", "cells")}

    def found(self, name: str, mark: Callable[[], str]) -> Record | None:
        """A finished cell; None if it is not finished. `mark` makes what its fact `mark` must be.

        Raises:
            ValueError: When its file is damaged, of another study or of other networks.
        """
        path = self._path(name)
        return self._read(path, name, mark) if path.exists() else None

    def _read(self, path: Path, name: str, mark: Callable[[], str]) -> Record:
        try:
            root, groups = netcdf.read(path, KIND)
            record, facts = groups.get(GROUP), root.facts
            part = different(facts.get("subject", {}), self.subject)
            if part is not None:
                raise ValueError(f"it is of another {part}")
            if facts.get("cell") != name:
                raise ValueError(f"it is the cell {facts.get('cell')}")
            if record is None:
                raise ValueError("it holds no numbers")
            if record.facts.get("mark") != mark():
                raise ValueError("it is of other networks than `make_model` makes now")
        except ValueError as error:
            # The file is what this sentence is about, and is named in it once.
            reason = str(error).removesuffix(".").replace("`path`", "it").replace(f" {path} ", " ")
            raise ValueError(
                f"`checkpoint` must hold whole cells of one study, but {path} cannot be used: "
                f"{reason}; delete it to compute it anew."
            ) from error
        return record

    def claim(self, name: str) -> Claim | None:
        """The right to compute a cell and write it; None where another process has it.

        Raises:
            OSError: When nothing can be written there.
        """
        claim = claimed(self.folder / f"{name}.lock")
        if claim is not None:
            self._tidy(self._path(name).name)
        return claim

    def keep(self, name: str, record: Record) -> None:
        """Write a finished cell, once.

        Raises:
            ValueError: When it cannot be written.
        """
        if self._path(name).exists():  # a process was quicker that took what could not be written
            return
        facts = {"cell": name, "subject": self.subject}
        groups = {GROUP: record}
        netcdf.write(self._path(name), KIND, Record({}, facts), groups, name="checkpoint")

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.nc"

    def _tidy(self, file: str) -> None:
        """Remove what a killed process left of its writing; only the claim's holder may."""
        for part in self.folder.glob(f".nthsim-*/{file}"):
            shutil.rmtree(part.parent, ignore_errors=True)


def opened(folder: Path, subject: dict[str, Any], names: Sequence[str]) -> Store:
    """The store in a folder, which is made if need be, with these cells in its manifest.

    Raises:
        ValueError: When it holds another study, is damaged or cannot be written to.
    """
    store = Store(made_folder("checkpoint", folder), subject)
    store.enter(names)
    return store


def stored_subject(folder: Path) -> dict[str, Any]:
    """The subject of what a folder holds; empty where it holds no sweep yet.

    Raises:
        ValueError: As in `read_manifest`.
    """
    there = (folder / MANIFEST).exists()
    return read_manifest(folder)["subject"] if there else {}


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the manifest in a folder says: its `subject` and the names of all `cells`.

    Raises:
        ValueError: When there is none, or it is damaged or of a newer nthsim.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version = int(manifest["version"])
        whole = manifest["format"] == FORMAT and isinstance(manifest["subject"], dict)
        whole = whole and all(isinstance(name, str) for name in manifest["cells"])
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(
            f"`checkpoint` must be a folder with a sweep, but {path} cannot be read: {reason}."
        ) from error
    except (ValueError, KeyError, TypeError):
        manifest, version, whole = {}, VERSION, False
    if version > VERSION:
        raise ValueError(
            f"`checkpoint` must be of format version {VERSION} or older, but {path} is of version "
            f"{version}: update nthsim."
        )
    if not whole:
        raise ValueError(
            f"`checkpoint` must hold a whole manifest, but {path} is damaged or none of nthsim; "
            "delete it to have it written anew."
        )
    return manifest


def different(one: dict[str, Any], other: dict[str, Any]) -> str | None:
    """The first part in which two subjects differ; both must have the same parts."""
    parts = dict.fromkeys([*other, *one])
    return next((part for part in parts if not _agree(one.get(part), other.get(part))), None)


def _agree(one: Any, other: Any) -> bool:
    """Whether two values are equal; of mappings, what both name is compared, at any depth.

    Thus a study of further sizes, which it names, is the same study.
    """
    if isinstance(one, dict) and isinstance(other, dict):
        return all(_agree(one[name], other[name]) for name in one.keys() & other.keys())
    return one == other


def joined(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """All that two mappings name, at any depth."""
    both = {
        name: joined(one[name], other[name])
        for name in one
        if isinstance(one[name], dict) and isinstance(other.get(name), dict)
    }
    return one | other | both


def plain(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts as they come back from a file."""
    return json.loads(json.dumps(facts, default=as_python))
