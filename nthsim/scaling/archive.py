"""The file of a study over sizes: every number, and all it takes to compute it again."""

import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from nthsim.dynamics.recipes import (
    restore_data,
    restore_loss,
    restore_solver,
    store_loss,
    store_solver,
)
from nthsim.inputs.loss import Loss
from nthsim.results.netcdf import decoding, read
from nthsim.results.record import Record, arrays_of

#: What is stored as facts just as it is.
FACTS = (
    "axis",
    "families",
    "orders",
    "networks",
    "steps",
    "subject",
    "predicted",
    "remarks",
    "origin",
)


def described(study: Mapping[str, Any]) -> Record:
    """The fields of a study as a record, with the labels of its axes."""
    facts = {name: study[name] for name in FACTS}
    facts |= {"loss": store_loss(study["loss"]), "solver": store_solver(study["solver"])}
    facts["classes"] = list(study["data"].classes)
    axes = {
        "family": np.array(study["families"]),
        "rank": np.arange(2, 2 + study["kernel_rms"].shape[-1]),
        "order": np.array(study["orders"], int),
    }
    arrays = {
        name: np.asarray(value)
        for name, value in study.items()
        if isinstance(value, jax.Array | np.ndarray)
    }
    return Record(arrays | arrays_of(study["data"]), facts, coordinates=axes)


def load(path: str | os.PathLike[str], loss: Loss | None) -> dict[str, Any]:
    """Read the fields of a study, as `Scaling.load` documents it."""
    root, _ = read(path, "Scaling")
    with decoding(path):
        facts, arrays = root.facts, dict(root.arrays)
        names = ("x", "y", "x_test", "y_test")
        given = {name: arrays.pop(name) for name in names if name in arrays}
        data = restore_data(given, facts["classes"])
        kept = {name: facts[name] for name in FACTS}
        kept = {name: tuple(f) if isinstance(f, list) else f for name, f in kept.items()}
        named = kept | arrays | {"data": data, "solver": restore_solver(facts["solver"])}
    return named | {"loss": restore_loss(facts["loss"], loss)}
