"""What is kept of a result: named arrays, facts about them, and where they were computed."""

import dataclasses
import datetime
import hashlib
import importlib.metadata
import platform
import re
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PyTree

#: Where a function lies in memory, which says nothing of what it is.
ADDRESS = re.compile(r" at 0x[0-9a-f]+")

PACKAGES = ("nthsim", "jax", "jaxlib", "equinox", "diffrax", "numpy")


class Label(eqx.Module):
    """The names of an array's axes after the first, which is time, coordinates along each, unit."""

    axes: tuple[str, ...]
    unit: str
    coordinates: dict[str, np.ndarray]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape at one time."""
        return tuple(len(self.coordinates[axis]) for axis in self.axes)

    def facts(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        rows = {axis: values.tolist() for axis, values in self.coordinates.items()}
        return {"axes": list(self.axes), "unit": self.unit, "coordinates": rows}

    @staticmethod
    def from_facts(facts: dict[str, Any]) -> "Label":
        """The label that `facts` described."""
        rows = {axis: np.asarray(values) for axis, values in facts["coordinates"].items()}
        return Label(tuple(facts["axes"]), facts["unit"], rows)


class Record(eqx.Module):
    """One part of a result: arrays by name, and facts that JSON can hold.

    `labels` are those of arrays whose names say nothing by themselves. `coordinates` are what the
    places along an axis stand for, by its name, or a single value for all of it; they follow from
    arrays and facts, and are no part of what comes back from a file.
    """

    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]
    labels: dict[str, Label] = eqx.field(default_factory=dict)
    coordinates: dict[str, np.ndarray] = eqx.field(default_factory=dict)


def arrays_of(module: eqx.Module) -> dict[str, np.ndarray]:
    """The fields of a module that are arrays, by name."""
    fields = {field.name: getattr(module, field.name) for field in dataclasses.fields(module)}
    return {
        name: np.asarray(value)
        for name, value in fields.items()
        if isinstance(value, jax.Array | np.ndarray)
    }


def as_python(value: Any) -> Any:
    """A NumPy or JAX scalar as a number of Python's; what JSON asks when it does not know one."""
    return value.item()


def origin() -> dict[str, Any]:
    """When, where and with which versions something is being computed."""
    device = jax.devices()[0]
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": f"{device.platform} ({device.device_kind})",
        "machine": platform.platform(),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
    }


def network_digest(network: eqx.Module, theta: PyTree) -> str:
    """A fingerprint of a network: its parameters, its constants, and what it is made of."""
    return digest(eqx.filter((theta, network), eqx.is_array), ADDRESS.sub("", str(network)))


def digest(tree: Any, *words: str) -> str:
    """A fingerprint of arrays and words."""
    found = hashlib.sha256()
    for word in words:
        found.update(word.encode())
    for leaf in jax.tree.leaves(tree):
        random = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        array = np.ascontiguousarray(jr.key_data(leaf) if random else leaf)
        found.update(f"{array.dtype.name} {array.shape}\n".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def fingerprint(arrays: dict[str, np.ndarray], *words: str) -> str:
    """One of arrays with their names, and of words."""
    names = sorted(arrays)
    return digest([arrays[name] for name in names], *names, *words)
