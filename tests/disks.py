"""A disk that fills up."""

import contextlib
import resource
from collections.abc import Iterator


def fill() -> None:
    """From now on no file of this process can grow."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


def free() -> None:
    """All can, as before."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@contextlib.contextmanager
def full() -> Iterator[None]:
    """No file can grow inside."""
    fill()
    try:
        yield
    finally:
        free()
