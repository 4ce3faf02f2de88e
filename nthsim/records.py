"""What is kept of a result: named arrays, facts about them, and where they were computed."""

import dataclasses
import datetime
import importlib.metadata
import platform
from typing import Any

import equinox as eqx
import jax
import numpy as np

PACKAGES = ("nthsim", "jax", "jaxlib", "equinox", "diffrax", "numpy")


class Record(eqx.Module):
    """One part of a result: arrays by name, and facts that JSON can hold."""

    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]


def arrays_of(module: eqx.Module) -> dict[str, np.ndarray]:
    """The fields of a module that are arrays, by name."""
    fields = {field.name: getattr(module, field.name) for field in dataclasses.fields(module)}
    return {
        name: np.asarray(value)
        for name, value in fields.items()
        if isinstance(value, jax.Array | np.ndarray)
    }


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
