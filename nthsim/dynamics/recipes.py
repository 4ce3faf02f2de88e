"""Models, losses and solvers as data, to be stored and made again."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, DTypeLike, PyTree

from nthsim.budget.size import STAGES
from nthsim.inputs.dataset import Dataset
from nthsim.inputs.loss import LOSSES, Loss, loss_name
from nthsim.models import MODELS
from nthsim.models.parametrisation import AbstractParametrised
from nthsim.network.network import parameter_count, precision
from nthsim.network.regulariser import Regulariser, WeightDecay, is_decay, regulariser_name
from nthsim.network.trained import trained
from nthsim.results.record import Record
from nthsim.solvers.auto import Auto
from nthsim.solvers.explicit import Explicit
from nthsim.solvers.exponential import Exponential
from nthsim.solvers.implicit import Implicit
from nthsim.solvers.solver import AbstractSolver, Method
from nthsim.solvers.stabilised import Stabilised
from nthsim.solvers.system import AbstractSystem

#: The solvers that a file alone restores.
SOLVERS = {each.__name__: each for each in (Auto, Explicit, Exponential, Implicit, Stabilised)}


def store(model: PyTree) -> Record:
    """The parameters of a model by the path that leads to each, and how to build the rest of it.

    The fact "settings" holds the arguments of a FCN or ResNet; it is None for any other module,
    and for one of these that was changed after it was made or has a callable as its activation.
    """
    arrays = {name: np.asarray(leaf) for name, leaf in _named_parameters(model).items()}
    facts = {
        "class": type(model).__name__,
        "settings": _settings(model),
        "description": describe(model),
    }
    return Record(arrays, facts)


def restore(record: Record, like: PyTree = None) -> PyTree:
    """The stored model, or None when its settings are unknown and there is no `like`.

    Args:
        record: As from `store`.
        like: A model of the same structure, whose parameters are replaced.

    Raises:
        ValueError: When `like` has other parameters, or JAX is set to a lower precision.
    """
    if like is None and record.facts["settings"] is None:
        return None
    blank = _blank(record.facts["class"], record.facts["settings"]) if like is None else like
    _check_parameters(_named_parameters(blank), record)
    leaves = {name: jnp.asarray(array) for name, array in record.arrays.items()}
    lost = [name for name, leaf in leaves.items() if leaf.dtype != record.arrays[name].dtype]
    if lost:
        raise ValueError(
            "`jax_enable_x64` must be True to load parameters in float64, but is False: call "
            'jax.config.update("jax_enable_x64", True) first.'
        )
    names = iter(_named_parameters(blank))
    return jax.tree.map(lambda leaf: leaves[next(names)] if _is_parameter(leaf) else leaf, blank)


def describe(model: PyTree) -> str:
    """One line on a model: class, sizes, activation, number and precision of parameters."""
    theta = eqx.filter(model, trained(model))
    parts = [type(model).__name__]
    for name, word in (("width", "width"), ("width_size", "width"), ("depth", "depth")):
        size = getattr(model, name, None)
        parts += [f"{word} {size}"] if isinstance(size, int) else []
    activation = getattr(model, "activation", None)
    parts += [activation] if isinstance(activation, str) else []
    if isinstance(model, AbstractParametrised) and model.parametrisation != "ntk":
        parts += [model.parametrisation]
    return f"{', '.join(parts)}: {parameter_count(theta):,} parameters in {precision(theta).name}"


def restore_data(arrays: dict[str, np.ndarray], classes: Sequence[Any]) -> Dataset:
    """The data of a file, in the precision that they were saved in, which is not JAX's always."""
    kept, data = (
        [jnp.asarray(array) for array in arrays.values()],
        Dataset(**arrays, classes=classes),
    )
    return eqx.tree_at(lambda d: [getattr(d, name) for name in arrays], data, kept)


def store_loss(loss: Loss | str) -> dict[str, Any]:
    """The name of a loss, and whether it is nthsim's own."""
    name = loss_name(loss)
    return {"name": name, "own": LOSSES.get(name) is loss}


def restore_loss(facts: dict[str, Any], given: Loss | None) -> Loss | str:
    """The loss of that name; `given`, or else the bare name, when it is not nthsim's own."""
    name = facts["name"]
    if facts["own"]:
        return LOSSES[name]
    return name if given is None else given


def store_regulariser(regulariser: Regulariser | str | None) -> dict[str, Any] | None:
    """The settings of a `WeightDecay`, and the name of any."""
    if regulariser is None:
        return None
    settings = None
    if is_decay(regulariser):
        settings = {"strength": float(regulariser.strength), "towards": regulariser.towards}
    return {"name": regulariser_name(regulariser), "settings": settings}


def restore_regulariser(
    facts: dict[str, Any] | None, given: Regulariser | None
) -> Regulariser | str | None:
    """That of a file; `given`, or else the bare name, when it is no `WeightDecay`.

    Raises:
        ValueError: When there is none in the file, but one is given.
    """
    if facts is None and given is not None:
        raise ValueError("`regulariser` must be left out, as the file has none, but is given.")
    if facts is None:
        return None
    if facts["settings"] is not None:
        return WeightDecay(**facts["settings"])
    return facts["name"] if given is None else given


class UnknownSolver(AbstractSolver):
    """What stands for a solver that a file alone cannot restore; tells what that was."""

    description: str = ""

    def resolve(self, system: AbstractSystem, horizon: float, dtype: DTypeLike) -> Method:
        """It solves nothing.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            f"`solver` must be one of nthsim's to compute this again, but is {self.description}."
        )

    def stages(self, dtype: DTypeLike) -> int:
        """As if it were of the highest order."""
        del dtype
        return STAGES


def store_solver(solver: AbstractSolver) -> dict[str, Any]:
    """The class of a solver, and its settings; a Diffrax method by its name."""
    if isinstance(solver, UnknownSolver):
        return {"class": None, "settings": {}, "description": solver.description}
    fields = {field.name: getattr(solver, field.name) for field in dataclasses.fields(solver)}
    settings = {
        name: type(value).__name__ if isinstance(value, dfx.AbstractSolver) else value
        for name, value in fields.items()
    }
    shown = ", ".join(f"{name}={value}" for name, value in settings.items())
    name = type(solver).__name__
    return {"class": name, "settings": settings, "description": f"{name}({shown})"}


def restore_solver(facts: dict[str, Any]) -> AbstractSolver:
    """The solver; an `UnknownSolver` when its class or method is neither ours nor Diffrax's."""
    settings = dict(facts["settings"])
    if "method" in settings:
        method = getattr(dfx, settings["method"], None)
        if not (isinstance(method, type) and issubclass(method, dfx.AbstractERK)):
            return UnknownSolver(description=facts["description"])
        settings["method"] = method()
    solver = SOLVERS.get(facts["class"])
    if solver is None:
        return UnknownSolver(description=facts["description"])
    return solver(**settings)


def _is_parameter(leaf: Any) -> bool:
    return eqx.is_inexact_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


def _named_parameters(model: PyTree) -> dict[str, Array | jax.ShapeDtypeStruct]:
    """The parameters in the order of the tree, by names that netCDF accepts."""
    found = jax.tree_util.tree_leaves_with_path(model)
    leaves = [(path, leaf) for path, leaf in found if _is_parameter(leaf)]
    keys = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
    names = [re.sub(r"[^\w.]", "_", key) for key in keys]
    if len(set(names)) < len(names):  # dictionaries in a model may have keys of any characters
        names = [f"{i}_{name}" for i, name in enumerate(names)]
    return {name: leaf for name, (_, leaf) in zip(names, leaves, strict=True)}


def _settings(model: PyTree) -> dict[str, Any] | None:
    name = type(model).__name__
    if MODELS.get(name) is not type(model):
        return None
    settings = {
        field.name: getattr(model, field.name)
        for field in dataclasses.fields(model)
        if field.metadata.get("static", False)
    }
    if not all(isinstance(value, str | int | float) for value in settings.values()):
        return None
    # What a user did to it with `eqx.tree_at` would be lost.
    return settings if _layout(_blank(name, settings)) == _layout(model) else None


def _layout(model: PyTree) -> tuple[Any, dict[str, tuple[int, ...]]]:
    shapes = {name: leaf.shape for name, leaf in _named_parameters(model).items()}
    return jax.tree.structure(model), shapes


def _blank(name: str, settings: dict[str, Any]) -> PyTree:
    """The model with shapes in place of numbers."""
    return eqx.filter_eval_shape(lambda: MODELS[name](**settings, key=jr.key(0)))


def _check_parameters(parameters: dict[str, Array | jax.ShapeDtypeStruct], record: Record) -> None:
    shapes = {name: leaf.shape for name, leaf in parameters.items()}
    stored = {name: array.shape for name, array in record.arrays.items()}
    for name in shapes | stored:
        if shapes.get(name) != stored.get(name):
            has = f"shape {shapes[name]}" if name in shapes else "no such parameter"
            wants = f"of shape {stored[name]}" if name in stored else "nothing"
            raise ValueError(
                f"`model` must have the parameters of the file, {wants} at {name}, but has {has}."
            )
