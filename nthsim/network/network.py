"""Any Equinox module as a function of its parameters."""

import abc
import dataclasses
import functools
import operator
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from nthsim.models.plain import PLAIN
from nthsim.network.alike import nodes, originals
from nthsim.network.failures import first_line
from nthsim.network.function_contents import described
from nthsim.network.layers import Layer, is_layer, layer_paths, layers_of
from nthsim.network.program import Evaluation, asked_once, program, repeatable
from nthsim.network.trained import stopped
from nthsim.solvers.comparisons import compares
from nthsim.solvers.compiled import counted, is_staged, is_traced, lowers
from nthsim.solvers.xla import Traced


class Work(eqx.Module):
    """What one evaluation at one input takes: flops, and numbers written."""

    flops: int
    written: int


class AbstractNetwork(eqx.Module):
    """Outputs as a function of parameters and inputs."""

    @abc.abstractmethod
    def single(self, theta: PyTree, x: Any) -> Any:
        """The output for one input, whatever the model makes of it: see `output_shape`."""

    @abc.abstractmethod
    def model(self, theta: PyTree[Array]) -> PyTree:
        """The user's module with these parameters; None where it is another function of them."""

    @abc.abstractmethod
    def expandable(self, theta: PyTree, x: Any) -> "AbstractNetwork":
        """The same function, by activations that Taylor arithmetic gets through where it can be."""

    def __call__(self, theta: PyTree[Array], x: Array) -> Array:
        """The outputs for a batch of inputs, stacked along the first axis."""
        return jax.vmap(lambda one: self.single(theta, one))(x)

    def work(self, theta: PyTree[Array], x: Array) -> Work:
        """Count the work of one evaluation, by XLA's own count; nothing is computed."""
        one = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
        flops, touched = _work(Evaluation(self, theta, one))
        parameters = parameter_count(theta)
        return Work(
            flops=max(flops, parameters),
            written=max(touched // precision(theta).itemsize - parameters, one.size),
        )

    def forward(self, theta: PyTree[Array], x: Array) -> bool:
        """Whether there are derivatives in forward mode, which a `custom_vjp` has not."""
        one = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
        return _pushed(Evaluation(self, theta, one))


class Network(AbstractNetwork):
    r"""What is left of a model without its parameters: evaluates it at given ones.

    `program` tells it from the same model before something changed that the model reads: a global
    variable, a helper function, an attribute. What was compiled then is not used now.

    Parameters move at unit rate. An array that moves at the rate D is its parameters times
    $\sqrt D$, which `scales` holds where it is not one; None stands for ones throughout. Where it
    is 0 the array itself is among the parameters, and stays.
    """

    static: PyTree
    program: Traced = Traced()
    scales: PyTree = None

    def as_now(self, theta: PyTree[Array], x: Array) -> tuple["Network", tuple[int, ...]]:
        """The same with its program for inputs like these, which is traced anew; `output_shape`."""
        if nodes(eqx.partition(self.static, eqx.is_array)[1], eqx.is_array):
            raise ValueError(
                "`model` must hold its arrays in fields that are not static, but one is in a "
                "static field, where arrays cannot be compared."
            )
        one = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
        try:
            now, again = (program(self.single, theta, one) for _ in range(2))
        except Exception:  # whatever a stranger's module raises
            output_shape(self, theta, x)  # says what it is
            raise
        if is_traced(now.constants) and not is_staged(theta, x):
            raise ValueError(
                "`model` must hold what it is transformed by as arrays of its own, but a function "
                "in it captures an array that is traced here."
            )
        shape = _one_shape(now.out, precision(theta))
        digest = repeatable("model", now, again, described, theta, x[0])
        traced = Traced(digest, compares(now.traced, self.single, theta, one))
        network = dataclasses.replace(self, program=traced)
        if "while" in now.operations or not network.forward(theta, x):
            _check_reverse(network, theta, one)
        return network, shape

    def single(self, theta: PyTree, x: Any) -> Any:
        """The output for one input."""
        return self.model(theta)(x)

    def model(self, theta: PyTree[Array]) -> PyTree:
        """The module with these parameters."""
        return stopped(originals(eqx.combine(self.scaled(theta), self.static)))

    def scaled(self, theta: PyTree[Array]) -> PyTree[Array]:
        """The arrays of the module that parameters are; where the scale is 0, as they are."""
        return self._each(lambda a, scale: a * scale if scale else jax.lax.stop_gradient(a), theta)

    def unscaled(self, arrays: PyTree[Array]) -> PyTree[Array]:
        """The parameters that arrays of the module are."""
        return self._each(lambda a, scale: a / scale if scale else a, arrays)

    def by_parameters(self, gradient: PyTree[Array]) -> PyTree[Array]:
        """The derivatives by parameters, by the chain rule, given those by the arrays."""
        return self._each(operator.mul, gradient)

    def _each(self, change: Callable[[Array, float], Array], arrays: PyTree[Array]) -> PyTree:
        if self.scales is None:
            return arrays
        changed = lambda a, scale: a if a is None or scale is None else change(a, scale)  # noqa: E731
        return jax.tree.map(changed, arrays, self.scales, is_leaf=lambda node: node is None)

    def layers(self, theta: PyTree[Array], *, step: bool = False) -> list[Layer]:
        """The layers that have parameters, whole; of a `step` of these with nothing else."""
        still = lambda a: jnp.zeros_like(a) if step and eqx.is_inexact_array(a) else a  # noqa: E731
        model = originals(eqx.combine(self.scaled(theta), jax.tree.map(still, self.static)))
        found, paths = jax.tree.leaves_with_path(model, is_leaf=is_layer), set(layer_paths(theta))
        return [node for path, node in found if path in paths]

    def weight_scales(self, theta: PyTree[Array]) -> list[float]:
        """What the weight of each layer is multiplied by."""
        if self.scales is None:
            return [1.0] * len(layers_of(theta))
        found: list[float] = []

        def note(node: Any, scale: Any) -> None:
            if is_layer(node):
                found.append(1.0 if scale.weight is None else scale.weight)

        jax.tree.map(note, theta, self.scales, is_leaf=is_layer)
        return found

    def expandable(self, theta: PyTree, x: Any) -> "Network":
        """The same, with JAX's activations replaced by ours if all the model does is call them."""
        one = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
        if not _calls_alone(Evaluation(self, theta, one)):
            return self
        return dataclasses.replace(self, static=jax.tree.map(_plain, self.static))


@asked_once
def _work(evaluation: Evaluation) -> tuple[int, int]:
    """Flops and bytes of an evaluation."""
    evaluate = lambda arguments: evaluation.network.single(*arguments)  # noqa: E731
    cost = counted(evaluate, (evaluation.theta, evaluation.one))
    return int(cost.get("flops", 0)), int(cost.get("bytes accessed", 0))


@asked_once
def _pushed(evaluation: Evaluation) -> bool:
    """Whether an evaluation has derivatives in forward mode."""

    def push(theta: PyTree[Array], one: Array) -> Any:
        at = lambda theta: evaluation.network.single(theta, one)  # noqa: E731
        return jax.jvp(at, (theta,), (theta,))[1]

    return lowers(push, evaluation.theta, evaluation.one)


@asked_once
def _calls_alone(evaluation: Evaluation) -> bool:
    """Whether a model computes the same once its activations are others that do the same."""
    network = evaluation.network
    assert isinstance(network, Network)
    others = dataclasses.replace(network, static=jax.tree.map(_other, network.static))
    shapes = evaluation.theta, evaluation.one
    return program(network.single, *shapes).same(program(others.single, *shapes), described)


def _plain(leaf: object) -> object:
    """Ours in the place of an activation of JAX, under its name."""
    for theirs, ours in PLAIN.items():
        if leaf is theirs:
            return _named(theirs, ours)
    return leaf


def _other(leaf: object) -> object:
    """Another function in the place of the same activations, which does what they do."""
    return _named(leaf, leaf) if any(leaf is theirs for theirs in PLAIN) else leaf


@functools.cache
def _named(named: Callable[..., Array], function: Callable[..., Array]) -> Callable[..., Array]:
    """A function under the name of another."""

    @functools.wraps(named)
    def call(*args: Array, **kwargs: Array) -> Array:
        return function(*args, **kwargs)

    return call


def precision(theta: PyTree) -> jnp.dtype:
    """The one dtype of all parameters; inputs are cast to it (`in_precision`)."""
    return jnp.result_type(*jax.tree.leaves(theta))


def accepts(network: AbstractNetwork, theta: PyTree[Array], x: Array) -> bool:
    """Whether one input of this shape and type goes through, found without computing anything."""
    try:
        eqx.filter_eval_shape(network.single, theta, jax.ShapeDtypeStruct(x.shape[1:], x.dtype))
    except Exception:  # whatever a stranger's module raises
        return False
    return True


def parameter_count(theta: PyTree[Array]) -> int:
    """The number of parameters P."""
    return sum(leaf.size for leaf in jax.tree.leaves(theta))


def output_shape(network: AbstractNetwork, theta: PyTree[Array], x: Array) -> tuple[int, ...]:
    """The shape of one output, `()` or `(k,)`, found without computing anything.

    Raises:
        ValueError: When the model rejects inputs of this shape, or returns no scalar or vector of
            real numbers in the precision of its parameters.
    """
    dtype = precision(theta)
    one = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
    try:
        out = eqx.filter_eval_shape(network.single, theta, one)
    except Exception as error:  # whatever a stranger's module raises, the cause is its message
        raise ValueError(
            f"`model` must accept one input of shape {one.shape}, but fails on it: "
            f"{first_line(error)}."
        ) from error
    return _one_shape(out, dtype)


def _check_reverse(network: AbstractNetwork, theta: PyTree[Array], one: Any) -> None:
    """Refuse a model without gradients, as a loop of any length is that brings none along."""
    total = lambda theta, x: jnp.sum(network.single(theta, x))  # noqa: E731
    try:
        jax.eval_shape(jax.grad(total), theta, one)
    except NotImplementedError as error:
        raise ValueError(
            f"`model` must allow reverse-mode derivatives, but JAX has none: {first_line(error)}."
        ) from error
    except ValueError as error:
        raise ValueError(
            "`model` must allow reverse-mode derivatives (with Diffrax use adjoint=DirectAdjoint(),"
            f" else a loop of fixed length), but fails on them: {first_line(error)}."
        ) from error


def _one_shape(out: Any, dtype: jnp.dtype) -> tuple[int, ...]:
    """The shape of what a model returned for one input, if it is a scalar or a vector."""
    if not isinstance(out, jax.ShapeDtypeStruct) or len(out.shape) > 1:
        what = f"shape {out.shape}" if isinstance(out, jax.ShapeDtypeStruct) else type(out).__name__
        raise ValueError(f"`model` must map one input to a scalar or a vector, but returns {what}.")
    if out.dtype != dtype:
        raise ValueError(
            f"`model` must return real numbers in the precision of its parameters, {dtype.name}, "
            f"but returns {out.dtype.name}."
        )
    return out.shape
