"""A claim on a piece of work, which ends with the process that holds it, however that ends."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from io import BufferedWriter
from pathlib import Path


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
