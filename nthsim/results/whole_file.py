"""Files that are written whole or not at all."""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path


def named(value: object, name: str = "path", *, kind: str = "file") -> Path:
    """The path that argument `name` is, with the user's own folder in the place of ~.

    Raises:
        ValueError: When it is no name of such a file or folder.
    """
    if not isinstance(value, str | os.PathLike) or "\0" in os.fsdecode(value):
        raise ValueError(f"`{name}` must be the name of a {kind}, but is {value!r}.")
    return Path(os.path.expanduser(value))


def made_folder(name: str, folder: Path) -> Path:
    """The folder that argument `name` asks for, made if need be; found out before anything else.

    Raises:
        ValueError: When it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(
            f"`{name}` must be a folder to write to, but {folder} is not: {reason}."
        ) from error
    return folder


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], name: str = "path") -> Iterator[Path]:
    """Hand out a name to write to; what was written takes the place of `path` at the end.

    Argument `name` asked for it.

    The name is in a temporary folder beside `path`, which is gone afterwards. If anything fails,
    whatever was at `path` stays as it was.

    Raises:
        ValueError: When there is no such folder, or nothing can be written there.
    """
    path = named(path, name)
    target = Path(os.path.realpath(path))  # through a link, not in its place
    if target.is_dir():
        raise ValueError(f"`{name}` must be the name of a file, but {path} is a folder.")
    if not target.parent.is_dir():
        raise ValueError(f"`{name}` must be in an existing folder, but {path.parent} is none.")
    try:
        with tempfile.TemporaryDirectory(prefix=".nthsim-", dir=target.parent) as folder:
            part = Path(folder) / target.name
            yield part
            with part.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(part, target)
    except OSError as error:
        raise ValueError(
            f"`{name}` must be writable, but {path} is not: {_told(error)}."
        ) from error


def _told(error: OSError) -> str:
    """What went wrong; HDF5 hides it among addresses and offsets."""
    hidden = re.search("error message = '([^']+)'", str(error))
    return hidden[1] if hidden else error.strerror or str(error)
