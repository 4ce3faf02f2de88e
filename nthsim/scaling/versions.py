"""Versions that a worker must share with the process that hands it cells."""

import platform
from collections.abc import Mapping
from importlib.metadata import version

#: Packages that are compared, and how many parts of their versions. Dask adds Python by itself.
PACKAGES = {
    "nthsim": 9,
    "jax": 9,
    "jaxlib": 9,
    "equinox": 9,
    "diffrax": 9,
    "distributed": 9,
    "cloudpickle": 2,
}


def mismatch(place: str, there: Mapping[str, str | None]) -> str:
    """In which version a process differs from this one, and the cure; empty where in none.

    Args:
        place: What a sentence calls that process, such as "the scheduler".
        there: Its versions by the names of packages, None for those it lacks.
    """
    for name, parts in {"python": 2, **PACKAGES}.items():
        here = platform.python_version() if name == "python" else version(name)
        theirs, ours = (_first(one, parts) for one in (there.get(name), here))
        if theirs != ours:
            title = "Python" if name == "python" else name
            cure = (
                f"start it by Python {ours}" if title != name else f"there, install {name}=={here}"
            )
            has = f"no {title}" if theirs is None else f"{title} {theirs}"
            return f"{place} has {has} and this process {title} {ours}: {cure}"
    return ""


def _first(version: str | None, parts: int) -> str | None:
    """The first parts of a version; Dask tells Python's as 3.11.7.final.0."""
    return None if version is None else ".".join(version.split(".")[:parts])
