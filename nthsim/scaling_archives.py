"""Studies over sizes as files."""

import dataclasses
import os
from typing import Any

from nthsim.archives import dataset
from nthsim.losses import Loss
from nthsim.recipes import restore_loss, restore_solver, store_loss, store_solver
from nthsim.records import Record, arrays_of
from nthsim.results import decoding, read, write
from nthsim.scaling import Scaling

#: What is stored as facts just as it is.
FACTS = ("axis", "families", "orders", "networks", "steps", "subject", "remarks", "origin")


def save(study: Scaling, path: str | os.PathLike[str]) -> None:
    """Write a study, as `Scaling.save` documents it."""
    facts = {name: getattr(study, name) for name in FACTS}
    facts |= {"loss": store_loss(study.loss), "solver": store_solver(study.solver)}
    write(path, "Scaling", Record(arrays_of(study) | arrays_of(study.data), facts), {})


def load(path: str | os.PathLike[str], loss: Loss | None) -> Scaling:
    """Read a study, as `Scaling.load` documents it."""
    root, _ = read(path, "Scaling")
    with decoding(path):
        facts, arrays = root.facts, dict(root.arrays)
        names = ("x", "y", "x_test", "y_test")
        data = dataset({name: arrays.pop(name) for name in names if name in arrays})
        lists = ("families", "orders", "networks", "remarks")
        fields: dict[str, Any] = {name: facts[name] for name in FACTS} | arrays
        fields |= {name: tuple(facts[name]) for name in lists}
        solver, strange = restore_solver(facts["solver"]), facts["loss"]["name"]
        study = Scaling(data=data, loss=strange, solver=solver, **fields)
    return dataclasses.replace(study, loss=restore_loss(facts["loss"], loss))
