"""Comparisons as files."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import PyTree

from nthsim.comparison.asked import Asked
from nthsim.comparison.bounds import Bounds
from nthsim.comparison.certificate import Certificate
from nthsim.comparison.curves import curve_of, facts_of
from nthsim.comparison.fingerprint import Fingerprint
from nthsim.dynamics.pose import traced_loss
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
from nthsim.dynamics.trajectory import from_record
from nthsim.inputs.dataset import Dataset
from nthsim.inputs.loss import Loss, Residual
from nthsim.network.cast import in_precision
from nthsim.network.rates import placed
from nthsim.network.regulariser import Regulariser, penalty
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
    facts |= {"asked": _facts(asked), "curves": list(study["curves"])}
    facts |= {"fingerprint": dataclasses.asdict(study["fingerprint"])}
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
    settings = root.facts["asked"]
    asked = dataclasses.replace(
        fields["asked"],
        model=initial,
        loss=restore_loss(settings["loss"], loss),
        regulariser=restore_regulariser(settings["regulariser"], regulariser),
    )
    given = {"model": model, "loss": loss, "regulariser": regulariser}
    found = _fingerprint(given, asked, fields["exact"].f)
    for name in fields["fingerprint"].changed(found):
        raise ValueError(
            f"`{name}` must be the one of the file, {_name(name, root, groups)}, but what is given "
            "computes something else."
        )
    return fields | {"asked": asked}


def _fingerprint(given: Mapping[str, Any], asked: Asked, f: np.ndarray) -> Fingerprint:
    """That of the functions that were given to a file of these outputs."""
    dtype, residual = f.dtype, None
    y_test = None if asked.data.y_test is None else jnp.asarray(asked.data.y_test, dtype)
    if given["loss"] is not None:
        y, shape = jnp.asarray(asked.data.y, dtype), f.shape[2:]
        now, _ = traced_loss(given["loss"], y, shape)
        residual = Residual(given["loss"], y, shape, program=now)
    if asked.model is None or (given["model"] is None and given["regulariser"] is None):
        return Fingerprint.of(dtype, None, residual, None, y_test=y_test)
    rates = True if asked.rates is None else placed(asked.rates, asked.model)
    network, theta = split(asked.model, rates)
    inputs = in_precision(network, theta, (asked.data.x, asked.data.x_test))
    x = jnp.concatenate([each for each in inputs if each is not None])
    network, _ = network.as_now(theta, x)
    added = penalty(given["regulariser"], network, theta)
    return Fingerprint.of(dtype, (network, theta, x), residual, added, y_test=y_test)


def _name(name: str, root: Record, groups: Mapping[str, Record]) -> str:
    """What a file calls its model, loss or regulariser."""
    if name == "model":
        return groups["parameters"].facts["class"]
    return root.facts["asked"][name]["name"]


def _facts(asked: Asked) -> dict[str, Any]:
    """What was asked for besides model, data and save times."""
    run = asked.run
    return {
        "classes": list(asked.data.classes),
        "loss": store_loss(asked.loss),
        "curves": [facts_of(curve) for curve in asked.curves],
        "solver": store_solver(run.solver),
        "until": dataclasses.asdict(run.until),
        "record": [each.word for each in run.record or () if each.from_word],
        "record_ts": None if run.record_ts is None else run.record_ts.tolist(),
        "rates": asked.rates,
        "regulariser": store_regulariser(asked.regulariser),
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
        "fingerprint": Fingerprint(**facts["fingerprint"]),
        "origin": facts["origin"],
    }
