"""Which layers a model calls and on what, once it is proved that calls are all it does with them.

A network is taken apart by stand-ins for its layers. That computes the same if, and only if, the
model asks nothing of a layer that a stand-in answers otherwise, and takes nothing from it but what
its calls return. Both are read off the programs that JAX traces, so that they hold for all inputs,
all branches, and derivatives of all orders by all parameters; nothing is compiled or computed.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, DTypeLike, PyTree

from nthsim.network.failures import first_line
from nthsim.network.function_contents import described
from nthsim.network.layers import Layer, layer_names, layers_of, outside_layers, with_layers
from nthsim.network.network import AbstractNetwork, Network, parameter_count, precision
from nthsim.network.program import Evaluation, asked_once, program
from nthsim.network.tapes import Call, ChangedLayer, Listener, taped
from nthsim.solvers.compiled import is_traced

#: Networks are left alone that keep more than this part of their parameters elsewhere than in
#: layers: gradients by those are formed.
ELSEWHERE = 0.1


class Obstacle(ValueError):
    """What keeps a model from being taken apart."""


def calls_of(network: AbstractNetwork, theta: PyTree[Array], one: Array) -> tuple[Call, ...]:
    """The calls of the layers in the evaluation at one input, in their order.

    Raises:
        Obstacle: When the model cannot be taken apart; names what stands in the way.
    """
    found = _found(Evaluation(network, theta, one))
    if isinstance(found, str):
        raise Obstacle(found)
    return found


def worthwhile_calls(
    network: AbstractNetwork, theta: PyTree[Array], one: Array
) -> tuple[Call, ...] | str:
    """The same, or the sentence that says what stands in the way, or why it would not repay."""
    outside = outside_layers(theta)
    if sum(outside.values()) > ELSEWHERE * parameter_count(theta):
        largest = max(outside, key=lambda name: outside[name])
        return (
            "`model` must hold its parameters in linear and convolutional layers to be taken "
            f"apart, but holds `{largest}` elsewhere."
        )
    return _found(Evaluation(network, theta, one))


@asked_once
def _found(evaluation: Evaluation) -> tuple[Call, ...] | str:
    """The calls, or the sentence that says why there are none."""
    network, theta, one = evaluation.network, evaluation.theta, evaluation.one
    if not isinstance(network, Network):
        return "`model` must be evaluated as it is to be taken apart, but is expanded."
    if any(map(_is_shared, jax.tree.leaves(network.static, is_leaf=_is_shared))):
        return "`model` must not share parameters by `eqx.nn.Shared` to be taken apart."
    if not layers_of(theta):
        return "`model` must have linear or convolutional layers to be taken apart."
    network = dataclasses.replace(network, scales=None)  # which the model does not know of
    calls = _listened(network, theta, one)
    return calls if isinstance(calls, str) else _differing(network, theta, one) or calls


def _listened(network: Network, theta: PyTree, one: Any) -> tuple[Call, ...] | str:
    """What a listener hears, or a sentence on what it cannot hear or does not understand."""
    names, listeners = layer_names(theta), []

    def listening(theta: PyTree[Array], shown: list[Layer], x: Array) -> tuple[Any, list[Array]]:
        other = with_layers(theta, shown)
        listeners.append(Listener(network.layers(theta), network.layers(other)))
        return taped(network, other, listeners[-1])(x), listeners[-1].inputs

    try:
        traced = jax.make_jaxpr(listening)(theta, layers_of(theta), one)
    except ChangedLayer as error:
        return (
            f"`model` must call `{names[error.layer]}` as it is to be taken apart, "
            f"but changes its {error.part} before."
        )
    except Exception as error:  # whatever a stranger's module does with its layers
        return (
            "`model` must do nothing with its linear and convolutional layers but call them to be "
            f"taken apart, but fails on it: {first_line(error)}."
        )
    obstacle = _unheard(listeners[0], traced.consts, names, precision(theta))
    return obstacle or _used(traced.jaxpr, theta, names) or listeners[0].calls


def _unheard(
    listener: Listener, constants: list[Any], names: list[str], dtype: DTypeLike
) -> str | None:
    """A sentence on a layer that is not called, or called where nothing can be added."""
    # What was recorded inside of vmap, scan or jit has no value outside: there it is a constant.
    escaped = [constant for constant in constants if is_traced(constant)]
    for call, taken in zip(listener.calls, listener.inputs, strict=True):
        if any(taken is constant for constant in escaped):
            return (
                f"`model` must call `{names[call.layer]}` on one input at a time and outside of "
                "scan, jit and checkpoint to be taken apart, but does not."
            )
        if isinstance(listener.layers[call.layer], eqx.nn.Linear) and taken.ndim > 1:
            return (
                f"`model` must call `{names[call.layer]}` on one vector at a time to be taken "
                f"apart, but does so on an array of shape {taken.shape}."
            )
        if taken.dtype != dtype:
            return (
                f"`model` must call `{names[call.layer]}` in the precision of its parameters to be "
                f"taken apart, but does so in {taken.dtype}."
            )
    called = {call.layer for call in listener.calls}
    missing = [name for i, name in enumerate(names) if i not in called]
    return f"`model` must call `{missing[0]}` to be taken apart, but does not." if missing else None


def _used(traced: Any, theta: PyTree, names: list[str]) -> str | None:
    """A sentence on an array of a layer that is used outside of the layer's calls."""
    parts = jax.tree.leaves_with_path(layers_of(theta))
    arguments = traced.invars[len(jax.tree.leaves(theta)) :]
    used = {id(one) for step in traced.eqns for one in step.invars}
    used |= {id(one) for one in traced.outvars}
    for ((layer, part), _), argument in zip(parts, arguments, strict=False):
        if id(argument) in used:
            return (
                f"`model` must do nothing with the {part.name} of `{names[layer.idx]}` but call "
                "the layer to be taken apart, but uses it elsewhere too."
            )
    return None


def _differing(network: Network, theta: PyTree, one: Any) -> str | None:
    """A sentence on the layer whose stand-in makes the model compute something else."""
    plain = program(lambda theta, x: network.single(theta, x), theta, one)

    def differs(alone: int | None) -> bool:
        def listening(theta: PyTree[Array], x: Array) -> Any:
            layers = network.layers(theta)
            return taped(network, theta, Listener(layers, layers), alone=alone)(x)

        return not plain.same(program(listening, theta, one), described)

    if not differs(None):
        return None
    names = layer_names(theta)
    asked = [name for i, name in enumerate(names) if differs(i)] or names
    return (
        f"`model` must only call `{asked[0]}` to be taken apart, but computes something else "
        "once another object answers these calls: it asks for its exact type, say."
    )


def _is_shared(node: object) -> bool:
    return isinstance(node, eqx.nn.Shared)
