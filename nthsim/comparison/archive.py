"""Comparisons as files."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from jaxtyping import PyTree

from nthsim.comparison.bounds import Bounds
from nthsim.comparison.certificate import Certificate
from nthsim.dynamics.recipes import (
    restore,
    restore_data,
    restore_loss,
    restore_solver,
    store,
    store_loss,
    store_solver,
)
from nthsim.dynamics.trajectory import from_record
from nthsim.inputs.loss import Loss
from nthsim.results.netcdf import decoding, read, write
from nthsim.results.record import Record, arrays_of, fingerprint
from nthsim.solvers.until import Until

#: What is stored as facts just as it is.
FACTS = (
    "orders",
    "wanted",
    "wanted_degrees",
    "wanted_theories",
    "wanted_bounds",
    "kernel_ts",
    "certify",
    "audit",
    "kernel_seconds",
    "method",
    "origin",
)


def save(study: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write the fields of a comparison, as `Comparison.save` documents it."""
    if study["model"] is None:
        raise ValueError(
            "`model` must be known to save this again, but is None: copy the file that it "
            "was loaded from, or load that with `model=`."
        )
    facts = {name: study[name] for name in FACTS}
    facts |= {
        "further": list(study["further"]),
        "until": dataclasses.asdict(study["until"]),
        "loss": store_loss(study["loss"]),
        "solver": store_solver(study["solver"]),
    }
    exact, slopes = study["exact"], study["certificate"]
    groups = {"exact": exact.record(), "parameters": store(study["model"])}
    if exact.model is not None:
        groups["trained_parameters"] = store(exact.model)
    for p, truncation in zip(study["orders"], study["truncations"], strict=True):
        groups[f"order_{p}"] = truncation.record()
    for name, run in study["further"].items():
        groups[_group(name)] = run.record()
    if study["bounds"] is not None:
        groups["bounds"] = study["bounds"].record()
    if slopes is not None:
        groups["certificate"] = Record(arrays_of(slopes), {"orders": slopes.orders})
    arrays = arrays_of(study["data"]) | {"ts": study["ts"]}
    if study["initial_kernel"] is not None:
        arrays["initial_kernel"] = study["initial_kernel"]
    write(path, "Comparison", Record(arrays, facts), groups)


def load(path: str | os.PathLike[str], model: PyTree, loss: Loss | None) -> dict[str, Any]:
    """Read the fields of a comparison, as `Comparison.load` documents it."""
    root, groups = read(path, "Comparison")
    with decoding(path):
        fields = _decoded(root, groups)
    trained, initial = groups.get("trained_parameters"), restore(groups["parameters"], model)
    if trained is not None:
        exact = dataclasses.replace(fields["exact"], model=restore(trained, model))
        fields |= {"exact": exact}
    if initial is not None:
        fields |= {"model": initial, "about": None}
    return fields | {"loss": restore_loss(root.facts["loss"], loss)}


def _group(name: str) -> str:
    """The group of a run by its name in a comparison."""
    return name.lower().replace(" ", "_")


def _decoded(root: Record, groups: dict[str, Record]) -> dict[str, Any]:
    """The fields of a file, its models still missing."""
    facts, data = root.facts, dict(root.arrays)
    ts, initial_kernel = data.pop("ts"), data.pop("initial_kernel", None)
    for name in ("parameters", "trained_parameters"):
        if name in groups and fingerprint(groups[name].arrays) != groups[name].facts["sha256"]:
            raise ValueError(f"the {name} are not those that were saved")
    slopes, bounds = groups.get("certificate"), groups.get("bounds")
    certificate = None
    if slopes is not None:
        certificate = Certificate(orders=tuple(slopes.facts["orders"]), **slopes.arrays)
    kept = {name: facts[name] for name in FACTS}
    return {name: tuple(f) if isinstance(f, list) else f for name, f in kept.items()} | {
        "model": None,
        "about": groups["parameters"].facts["description"],
        "data": restore_data(data),
        "ts": ts,
        "solver": restore_solver(facts["solver"]),
        "until": Until(**facts["until"]),
        "exact": from_record(groups["exact"]),
        "truncations": tuple(from_record(groups[f"order_{p}"]) for p in facts["orders"]),
        "further": {name: from_record(groups[_group(name)]) for name in facts["further"]},
        "certificate": certificate,
        "bounds": None if bounds is None else Bounds.from_record(bounds),
        "initial_kernel": initial_kernel,
    }
