"""Versions that a worker must share with the process that hands it cells."""

import platform
from collections.abc import Mapping
from importlib.metadata import version

#: Packages that are compared, and by how many parts of their versions; None for all.
PACKAGES = {
    "nthsim": None,
    "jax": None,
    "jaxlib": None,
    "equinox": None,
    "diffrax": None,
    "distributed": None,
    "cloudpickle": 2,
}


def mismatch(place: str, there: Mapping[str, str | None]) -> str | None:
    """In which version a process differs from this one, and the cure; None where in none.

    Args:
        place: What a sentence calls that process, such as "the scheduler".
        there: Its versions by the names of packages, None for those it lacks; Python's, as Dask
            tells it, too (3.11.7.final.0).
    """
    theirs, ours = _first(there.get("python"), 2), _first(platform.python_version(), 2)
    if theirs != ours:
        return _told(place, "Python", theirs, ours, f"start it by Python {ours}")
    for name, parts in PACKAGES.items():
        here = version(name)
        theirs, ours = _first(there.get(name), parts), _first(here, parts)
        if theirs != ours:
            return _told(place, name, theirs, ours, f"there, install {name}=={here}")
    return None


def _told(place: str, name: str, theirs: str | None, ours: str | None, cure: str) -> str:
    has = f"no {name}" if theirs is None else f"{name} {theirs}"
    return f"{place} has {has} and this process {name} {ours}: {cure}"


def _first(number: str | None, parts: int | None) -> str | None:
    """The first parts of a version."""
    return None if number is None else ".".join(number.split(".")[:parts])
