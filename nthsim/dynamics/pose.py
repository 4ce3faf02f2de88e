"""Checks of a model, data and a loss against each other, of which a problem is made."""

import warnings
from math import prod

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from nthsim.dynamics.problem import Problem
from nthsim.inputs.arrays import whole
from nthsim.inputs.dataset import Dataset
from nthsim.inputs.jump import JumpingLossWarning, jumping
from nthsim.inputs.loss import (
    LOSSES,
    Loss,
    Residual,
    check_targets,
)
from nthsim.kernels.derivatives import backward_linear, holds_back
from nthsim.network.cast import in_precision
from nthsim.network.expansion_method import expansion_method
from nthsim.network.failures import first_line
from nthsim.network.function_contents import described
from nthsim.network.lookups import check_labels, check_lookups
from nthsim.network.network import precision
from nthsim.network.program import Evaluation, Program, program, repeatable
from nthsim.network.regulariser import Regulariser, penalty
from nthsim.network.same_functions import alike, hint
from nthsim.network.split import split
from nthsim.solvers.comparisons import compares
from nthsim.solvers.compiled import is_staged
from nthsim.solvers.momentum import Momentum
from nthsim.solvers.xla import Traced


def pose(
    model: PyTree,
    data: Dataset,
    loss: Loss,
    rates: PyTree = None,
    regulariser: Regulariser | None = None,
    momentum: Momentum | None = None,
) -> Problem:
    """Check model, data, loss and regulariser against each other.

    Raises:
        ValueError: When the model does not accept the inputs, the loss does not map one output
            and one target to a scalar, either returns other numbers than real ones in the
            precision of the parameters, one of nthsim's losses meets targets that it cannot mean,
            inputs are indices that an array of the model has no entry for, targets such as the loss
            finds no output for, or the regulariser is none (`nthsim.network.regulariser.penalty`).

    Warns:
        nthsim.inputs.jump.JumpingLossWarning: When the gradient of the loss jumps.
        nthsim.kernels.derivatives.BackwardPassWarning: When the backward pass of the model, by a
            `custom_vjp` or `stop_gradient` in it, is not the derivative of its forward pass.
    """
    if not isinstance(data, Dataset):
        raise ValueError(f"`data` must be a Dataset, but is {type(data).__name__}.")
    if not callable(loss):
        raise ValueError(
            f"`loss` must be a function of one output and one target, but is {loss!r}."
        )
    if not (momentum is None or isinstance(momentum, Momentum)):
        raise ValueError(
            "`momentum` must be a HeavyBall or a Nesterov, such as HeavyBall(0.5), but is "
            f"{momentum!r}."
        )
    network, theta = split(model, rates)
    dtype = precision(theta)
    x, x_test = in_precision(network, theta, (data.x, data.x_test))
    network, out_shape = network.as_now(theta, x)
    y, y_test = jax.tree.map(lambda y: y.astype(dtype), (data.y, data.y_test))
    for name, before, after in (("x", data.x, x), ("x_test", data.x_test, x_test)):
        whole(name, before, after)
        if after is not None:
            check_lookups(network, theta, name, after)
    check_targets(loss, "y", data.y)
    check_targets(loss, "y_test", data.y_test)
    way = expansion_method(network, theta, x, prod(out_shape))
    now, traced = traced_loss(loss, y, out_shape)
    hint("loss", loss)
    loss = alike(loss)
    targets = (("y", data.y, y), ("y_test", data.y_test, y_test))
    for name, before, after in targets:
        if traced.rounds:  # as a loss does that reads an index off a target
            whole(name, before, after)
        if traced.promises and not (after is None or is_staged(after)):
            check_labels(loss, now, name, after, out_shape)
    residual = Residual(loss, y, out_shape, _jumps(loss, y, out_shape, now), now)
    forward = network.forward(theta, x)
    sound = is_staged(theta, x) or (forward and not holds_back(Evaluation(network, theta, x[0])))
    linear = sound or backward_linear(network, theta, x)
    added = penalty(regulariser, network, theta)
    return Problem(
        network, theta, x, x_test, y_test, residual, way, forward, linear, added, momentum
    )


def traced_loss(loss: Loss, y: Array, out_shape: tuple[int, ...]) -> tuple[Traced, Program]:
    """A loss traced for outputs and targets of these shapes, and its program.

    Raises:
        ValueError: When it does not map one output and one target to a scalar of their precision.
    """
    shapes = (out_shape, y.shape[1:])
    one = tuple(jax.ShapeDtypeStruct(shape, y.dtype) for shape in shapes)
    _check_loss(loss, *one)
    traced, again = (program(loss, *one) for _ in range(2))
    digest = repeatable("loss", traced, again, described, jnp.zeros(out_shape, y.dtype), y[0])
    return Traced(digest, compares(traced.traced, loss, *one)), traced


def _check_loss(loss: Loss, f: jax.ShapeDtypeStruct, y: jax.ShapeDtypeStruct) -> None:
    try:
        value = jax.eval_shape(loss, f, y)
    except ValueError:
        raise  # our own losses say what they ask for
    except Exception as error:  # whatever a stranger's loss raises, the cause is its message
        raise ValueError(
            f"`loss` must accept one output and one target, but fails on them: {first_line(error)}."
        ) from error
    if not isinstance(value, jax.ShapeDtypeStruct):
        raise ValueError(
            f"`loss` must return a scalar for one sample, but returns {type(value).__name__}."
        )
    if value.shape:
        raise ValueError(
            f"`loss` must return a scalar for one sample, but returns shape {value.shape}."
        )
    if value.dtype != f.dtype:
        raise ValueError(
            f"`loss` must return a real number in the precision of the outputs, {f.dtype.name}, "
            f"but returns {value.dtype.name}."
        )


def _jumps(loss: Loss, y: Array, out_shape: tuple[int, ...], now: Traced) -> bool:
    # `nthsim plan` has no values of targets, and no other losses than these.
    if loss in LOSSES.values() or is_staged(y) or not jumping(loss, y, out_shape, now):
        return False
    warnings.warn(
        "`loss` has a gradient that jumps: where outputs stay at a jump, as at the end of "
        "training, many short steps hold them there, and their errors exceed the tolerance.",
        JumpingLossWarning,
        stacklevel=3,
    )
    return True
