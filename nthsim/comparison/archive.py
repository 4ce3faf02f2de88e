"""Comparisons as files."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import PyTree

from nthsim.comparison.asked import Asked, curve_of, facts_of
from nthsim.comparison.bounds import Bounds
from nthsim.comparison.certificate import Certificate
from nthsim.dynamics.observable import Own
from nthsim.dynamics.recipes import (
    restore,
    restore_data,
    restore_loss,
    restore_regulariser,
    restore_solver,
    store,
    store_loss,
    store_regulariser,
    store_solver,
)
from nthsim.dynamics.run import Run
from nthsim.dynamics.trajectory import Trajectory, from_record
from nthsim.inputs.dataset import Dataset
from nthsim.inputs.loss import Loss
from nthsim.network.cast import in_precision
from nthsim.network.regulariser import Regulariser
from nthsim.network.split import split
from nthsim.results.labelled import labelled
from nthsim.results.netcdf import decoding, read, write
from nthsim.results.record import Record, arrays_of
from nthsim.solvers.momentum import momentum_of
from nthsim.solvers.until import Until

#: What is stored as facts just as it is.
FACTS = ("kernel_seconds", "ranks", "recorded", "origin")


def save(study: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write the fields of a comparison, as `Comparison.save` documents it."""
    asked: Asked = study["asked"]
    if asked.model is None:
        raise ValueError(
            "`model` must be known to save this again, but is None: copy the file that it "
            "was loaded from, or load that with `model=`."
        )
    write(path, "Comparison", *_parts(study))


def tree(study: Mapping[str, Any]) -> xr.DataTree:
    """What `save` writes, of a comparison without its model too."""
    return xr.DataTree.from_dict(labelled("Comparison", *_parts(study)))


def _parts(study: Mapping[str, Any]) -> tuple[Record, dict[str, Record]]:
    """The fields of a comparison: data and kernel, and every run as a group."""
    asked: Asked = study["asked"]
    facts = {name: study[name] for name in FACTS}
    facts |= {"asked": _facts(asked, study["exact"].model), "curves": list(study["curves"])}
    exact, slopes = study["exact"], study["certificate"]
    groups = {"exact": exact.record()}
    if asked.model is not None:
        groups["parameters"] = store(asked.model)
    if exact.model is not None:
        groups["trained_parameters"] = store(exact.model)
    for name, found in study["curves"].items():
        groups[_group(name)] = found.record()
    if study["bounds"] is not None:
        groups["bounds"] = study["bounds"].record()
    if slopes is not None:
        axes = {"order": np.array(slopes.orders), "bound": np.array(["first", "last"])}
        kept = {"orders": slopes.orders, "power": slopes.power}
        groups["certificate"] = Record(arrays_of(slopes), kept, coordinates=axes)
    arrays = arrays_of(asked.data) | {"save_time": asked.run.ts}
    if study["initial_kernel"] is not None:
        arrays["initial_kernel"] = study["initial_kernel"]
    return Record(arrays, facts), groups


def load(
    path: str | os.PathLike[str],
    model: PyTree,
    loss: Loss | None,
    regulariser: Regulariser | None,
) -> dict[str, Any]:
    """Read the fields of a comparison, as `Comparison.load` documents it."""
    root, groups = read(path, "Comparison")
    with decoding(path):
        fields = _decoded(root, groups)
    trained, initial = groups.get("trained_parameters"), restore(groups["parameters"], model)
    if trained is not None:
        exact = dataclasses.replace(fields["exact"], model=restore(trained, model))
        fields |= {"exact": exact}
    if initial is not None:
        fields |= {"about": None}
    known = restore_loss(root.facts["asked"]["loss"], loss)
    models = [initial] if trained is None else [initial, fields["exact"].model]
    added = restore_regulariser(root.facts["asked"]["regulariser"], regulariser, models)
    asked = dataclasses.replace(fields["asked"], model=initial, loss=known, regulariser=added)
    if model is not None:
        _check_model(asked, fields["exact"])
    if loss is not None:
        _check_loss(loss, asked.data, fields["exact"])
    return fields | {"asked": asked}


def _check_model(asked: Asked, exact: Trajectory) -> None:
    """Refuse a module with other functions than the one that was saved: it has other outputs.

    Looked at are the outputs at t = 0 or, where those were not saved, at the end.
    """
    if not len(exact.ts):
        return
    first = exact.ts[0] == 0
    model, f = (asked.model, exact.f[0]) if first else (exact.model, exact.f[-1])
    network, theta = split(model)
    with jax.default_matmul_precision("highest"):
        found = network(theta, in_precision(network, theta, asked.data.x))
    if _apart(np.asarray(found), f):
        when = "at t = 0" if first else "at the end"
        raise ValueError(f"`model` must be the one of the file, but has other outputs {when}.")


def _check_loss(loss: Loss, data: Dataset, exact: Trajectory) -> None:
    """Refuse another loss than the one that was saved."""
    if len(exact.ts) and _apart(jnp.mean(jax.vmap(loss)(exact.f[0], data.y)), exact.loss[0]):
        raise ValueError("`loss` must be the one of the file, but has another value at the start.")


def _apart(found: Any, saved: Any) -> bool:
    """Whether numbers differ by more than rounding may, on another device too."""
    scale = np.sqrt(np.finfo(saved.dtype).eps) * np.max(np.abs(saved), initial=0)
    return found.shape != saved.shape or bool(np.max(np.abs(found - saved), initial=0) > scale)


def _facts(asked: Asked, trained: PyTree) -> dict[str, Any]:
    """What was asked for besides model, data and save times; `trained` is the model at the end."""
    models = [asked.model] if trained is None else [asked.model, trained]
    run = asked.run
    return {
        "classes": list(asked.data.classes),
        "loss": store_loss(asked.loss),
        "curves": [facts_of(curve) for curve in asked.curves],
        "solver": store_solver(run.solver),
        "until": dataclasses.asdict(run.until),
        "record": [each.word for each in run.record or () if not isinstance(each, Own)],
        "record_ts": None if run.record_ts is None else run.record_ts.tolist(),
        "rates": asked.rates,
        "regulariser": store_regulariser(asked.regulariser, models),
        "momentum": None if asked.momentum is None else asked.momentum.word,
        "bounds": asked.bounds,
        "certify": asked.certify,
        "audit": asked.audit,
    }


def _asked(facts: dict[str, Any], data: Dataset, ts: np.ndarray) -> Asked:
    """What was asked for, its model still missing; a user's own observables are left out."""
    run = Run(
        ts,
        solver=restore_solver(facts["solver"]),
        until=Until(**facts["until"]),
        record=tuple(facts["record"]),
        record_ts=facts["record_ts"],
    )
    return Asked(
        model=None,
        data=data,
        loss=facts["loss"]["name"],
        curves=tuple(map(curve_of, facts["curves"])),
        run=run,
        rates=None if facts["rates"] is None else tuple(facts["rates"]),
        momentum=None if facts["momentum"] is None else momentum_of(facts["momentum"]),
        bounds=facts["bounds"],
        certify=facts["certify"],
        audit=facts["audit"],
    )


def _group(name: str) -> str:
    """The group of a run by its name in a comparison."""
    return name.lower().replace(" ", "_")


def _decoded(root: Record, groups: dict[str, Record]) -> dict[str, Any]:
    """The fields of a file, its models still missing."""
    facts, data = root.facts, dict(root.arrays)
    ts, initial_kernel = data.pop("save_time"), data.pop("initial_kernel", None)
    slopes, bounds = groups.get("certificate"), groups.get("bounds")
    certificate = None
    if slopes is not None:
        certificate = Certificate(
            orders=tuple(slopes.facts["orders"]), power=slopes.facts["power"], **slopes.arrays
        )
    return {
        "asked": _asked(facts["asked"], restore_data(data, facts["asked"]["classes"]), ts),
        "about": groups["parameters"].facts["description"],
        "exact": from_record(groups["exact"]),
        "curves": {name: from_record(groups[_group(name)]) for name in facts["curves"]},
        "certificate": certificate,
        "bounds": None if bounds is None else Bounds.from_record(bounds),
        "initial_kernel": initial_kernel,
        "kernel_seconds": tuple(facts["kernel_seconds"]),
        "ranks": facts["ranks"],
        "recorded": tuple(facts["recorded"]),
        "origin": facts["origin"],
    }
