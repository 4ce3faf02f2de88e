"""Comparisons as files."""

import dataclasses
import os

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from nthsim.bounds import Bounds
from nthsim.certificates import Certificate
from nthsim.comparison import Comparison
from nthsim.datasets import Dataset
from nthsim.losses import Loss
from nthsim.recipes import (
    fingerprint,
    restore,
    restore_loss,
    restore_solver,
    store,
    store_loss,
    store_solver,
)
from nthsim.records import Record, arrays_of
from nthsim.results import decoding, read, write
from nthsim.solvers.until import Until
from nthsim.trajectories import from_record


def save(study: Comparison, path: str | os.PathLike[str]) -> None:
    """Write a comparison, as `Comparison.save` documents it."""
    if study.model is None:
        raise ValueError(
            "`model` must be known to save this again, but is None: copy the file that it "
            "was loaded from, or load that with `model=`."
        )
    facts = {
        "orders": study.orders,
        "wanted": study.wanted,
        "further": list(study.further),
        "wanted_degrees": study.wanted_degrees,
        "wanted_theories": study.wanted_theories,
        "wanted_bounds": study.wanted_bounds,
        "kernel_ts": study.kernel_ts,
        "certify": study.certify,
        "audit": study.audit,
        "until": dataclasses.asdict(study.until),
        "kernel_seconds": study.kernel_seconds,
        "loss": store_loss(study.loss),
        "solver": store_solver(study.solver),
        "method": study.method,
        "origin": study.origin,
    }
    groups = {"exact": study.exact.record(), "parameters": store(study.model)}
    if study.exact.model is not None:
        groups["trained_parameters"] = store(study.exact.model)
    for p, truncation in zip(study.orders, study.truncations, strict=True):
        groups[f"order_{p}"] = truncation.record()
    for name, run in study.further.items():
        groups[_group(name)] = run.record()
    if study.bounds is not None:
        groups["bounds"] = study.bounds.record()
    if study.certificate is not None:
        facts_of_fits = {"orders": study.certificate.orders}
        groups["certificate"] = Record(arrays_of(study.certificate), facts_of_fits)
    arrays = arrays_of(study.data) | {"ts": study.ts}
    if study.initial_kernel is not None:
        arrays["initial_kernel"] = study.initial_kernel
    write(path, "Comparison", Record(arrays, facts), groups)


def load(path: str | os.PathLike[str], model: PyTree, loss: Loss | None) -> Comparison:
    """Read a comparison, as `Comparison.load` documents it."""
    root, groups = read(path, "Comparison")
    with decoding(path):
        study = _decoded(root, groups)
    trained = groups.get("trained_parameters")
    flow = study.exact
    if trained is not None:
        flow = dataclasses.replace(flow, model=restore(trained, model))
    initial = restore(groups["parameters"], model)
    return dataclasses.replace(
        study,
        model=initial,
        about=study.about if initial is None else None,
        loss=restore_loss(root.facts["loss"], loss),
        exact=flow,
    )


def dataset(arrays: dict[str, np.ndarray]) -> Dataset:
    """The data of a file, in the precision that they were saved in, which is not JAX's always."""
    kept = [jnp.asarray(array) for array in arrays.values()]
    return eqx.tree_at(lambda d: [getattr(d, name) for name in arrays], Dataset(**arrays), kept)


def _group(name: str) -> str:
    """The group of a run by its name in a comparison."""
    return name.lower().replace(" ", "_")


def _decoded(root: Record, groups: dict[str, Record]) -> Comparison:
    """The comparison of a file, its models still missing."""
    facts, data = root.facts, dict(root.arrays)
    ts, initial_kernel = data.pop("ts"), data.pop("initial_kernel", None)
    for name in ("parameters", "trained_parameters"):
        if name in groups and fingerprint(groups[name].arrays) != groups[name].facts["sha256"]:
            raise ValueError(f"the {name} are not those that were saved")
    orders, slopes, bounds = tuple(facts["orders"]), groups.get("certificate"), groups.get("bounds")
    return Comparison(
        model=None,
        data=dataset(data),
        loss=facts["loss"]["name"],
        solver=restore_solver(facts["solver"]),
        orders=orders,
        ts=ts,
        exact=from_record(groups["exact"]),
        truncations=tuple(from_record(groups[f"order_{p}"]) for p in orders),
        certificate=None
        if slopes is None
        else Certificate(orders=tuple(slopes.facts["orders"]), **slopes.arrays),
        wanted=tuple(facts["wanted"]),
        certify=facts["certify"],
        until=Until(**facts["until"]),
        audit=facts["audit"],
        kernel_ts=tuple(facts["kernel_ts"]),
        further={name: from_record(groups[_group(name)]) for name in facts["further"]},
        wanted_degrees=tuple(facts["wanted_degrees"]),
        wanted_theories=tuple(facts["wanted_theories"]),
        wanted_bounds=facts["wanted_bounds"],
        bounds=None if bounds is None else Bounds.from_record(bounds),
        initial_kernel=initial_kernel,
        kernel_seconds=tuple(facts["kernel_seconds"]),
        method=facts["method"],
        about=groups["parameters"].facts["description"],
        origin=facts["origin"],
    )
