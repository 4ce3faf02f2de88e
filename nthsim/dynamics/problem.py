"""A model, data and a loss as one training, ready for a dynamics."""

import dataclasses
import warnings
from collections.abc import Callable
from math import prod

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from nthsim.inputs.jump import JumpingLossWarning, jumped
from nthsim.inputs.loss import (
    LOSSES,
    Objective,
    Residual,
    loss_name,
    squared_error,
)
from nthsim.inputs.true_gradient import has_true_gradient
from nthsim.kernels.along_path import SeriesKernel, series_kernel
from nthsim.kernels.block_kernel import CHUNK_BYTES, AbstractBlockKernel, Slots
from nthsim.kernels.derivatives import check_derivatives
from nthsim.kernels.method import block_kernel
from nthsim.network.coefficients import has_right_rules
from nthsim.network.expansion import AbstractExpansion
from nthsim.network.expansion_method import ExpansionMethod
from nthsim.network.network import AbstractNetwork, Network, precision
from nthsim.network.program import Evaluation
from nthsim.network.regulariser import Penalty
from nthsim.network.same_functions import alike
from nthsim.solvers.calls import outputs
from nthsim.solvers.compiled import compiled
from nthsim.solvers.driven_system import AbstractDrivenSystem
from nthsim.solvers.momentum import Momentum
from nthsim.solvers.solution import Solution
from nthsim.solvers.system import AbstractSystem
from nthsim.solvers.tolerances import halved
from nthsim.solvers.until import Until


class Problem(eqx.Module):
    """The network with its initial parameters, inputs and residual, of one precision.

    Inputs of a network that looks them up stay whole numbers.

    `method` is how the network is expanded along a path, `forward` whether it has derivatives in
    forward mode, and `linear_backward` whether its backward pass is linear.
    """

    network: AbstractNetwork
    theta: PyTree[Array]
    x: Array
    x_test: Array | None
    y_test: Array | None
    residual: Residual
    method: ExpansionMethod
    forward: bool = eqx.field(static=True, default=True)
    linear_backward: bool = eqx.field(static=True, default=True)
    penalty: Penalty | None = None
    momentum: Momentum | None = None

    def moving(
        self, system: AbstractDrivenSystem
    ) -> tuple[AbstractSystem, Callable[[PyTree[Array]], PyTree[Array]]]:
        """A system with the momentum of this training, if any, and its state without velocities."""
        if self.momentum is None:
            return system, lambda state: state
        moving = self.momentum.flow(system)
        return moving, moving.position

    @property
    def objective(self) -> Objective:
        """What training goes down."""
        return Objective(self.network, self.residual, self.x, self.penalty)

    @property
    def x_first(self) -> Array:
        """Training inputs, then test inputs: all at which something is recorded."""
        return self.x if self.x_test is None else jnp.concatenate([self.x, self.x_test])

    @property
    def dtype(self) -> jnp.dtype:
        """The precision of the parameters and outputs; inputs may be whole numbers."""
        return precision(self.theta)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """The shape of one output: `()` or `(k,)`."""
        return self.residual.out_shape

    def theta_of(self, model: PyTree) -> PyTree[Array]:
        """The parameters of a module like the one that is trained."""
        assert isinstance(self.network, Network)  # no other is made of a module
        held = lambda own, leaf: None if own is None else leaf  # noqa: E731
        arrays = jax.tree.map(held, self.theta, alike(model), is_leaf=lambda node: node is None)
        return self.network.unscaled(arrays)

    def outputs(self) -> Float[Array, " N_first"]:
        """The outputs at t = 0 on all of `x_first`, in one row."""
        with jax.default_matmul_precision("highest"):  # as everything that is compared with it
            return _outputs(self.network, self.theta, self.x_first).reshape(-1)

    def without_test_points(self) -> "Problem":
        """The same training, with nothing else recorded."""
        return dataclasses.replace(self, x_test=None, y_test=None)

    @property
    def slots(self) -> Slots:
        """All of `x_first` in the first slot of a kernel, the training inputs in the others."""
        points = self.x_first
        return Slots(points, (0, len(points)), (0, len(self.x)), self.outputs_per_sample)

    @property
    def outputs_per_sample(self) -> int:
        """How many numbers one output is."""
        return prod(self.out_shape)

    def kernel(
        self, order: int, *, penalised: bool = False, chunk_bytes: int = CHUNK_BYTES
    ) -> AbstractBlockKernel:
        r"""$K^{(r)}$ with its `slots`, as a function of theta.

        If `penalised`, the penalty stands last in all slots but the first, where there is one.

        Raises:
            ValueError: When the model does not allow the derivatives.
        """
        kernel = block_kernel(
            self.network,
            self.theta,
            self.slots,
            order,
            further=self.penalty if penalised else None,
            chunk_bytes=chunk_bytes,
        )
        if not self.forward:
            check_derivatives(kernel, self.theta, order)
        return kernel

    def check_kernel(self, order: int) -> None:
        r"""Refuse a model that does not allow the derivatives of $K^{(r)}$.

        Raises:
            ValueError: When it is such a one.
        """
        if not self.forward:
            self.kernel(order)  # which refuses

    def check_unmoved(self, what: str) -> None:
        """Refuse momentum.

        Raises:
            ValueError: When there is some.
        """
        if self.momentum is not None:
            raise ValueError(
                f"`momentum` must be left out for {what}, but is {self.momentum.word}."
            )

    def check_until(self, until: Until) -> None:
        """Refuse limits on how fast the loss falls where that is not known.

        Raises:
            ValueError: When there is one.
        """
        if self.momentum is not None and until.falling:
            raise ValueError(
                "`until` must have no gradient and no stalled with momentum, by which the loss may "
                "rise, but has."
            )
        if until.stalled is not None and not has_true_gradient(self.residual):
            raise ValueError(
                "`until` must have no stalled where the gradient of the loss is not that of its "
                "value, as with stop_gradient or a derivative of its own in it, but has."
            )

    def check_single(self, what: str) -> None:
        """Refuse half precision, for which JAX has no eigenbases.

        Raises:
            ValueError: When parameters have fewer than 32 bits.
        """
        if halved(self.dtype):
            raise ValueError(
                f"`model` must be in float32 or float64 for {what}, but is in {self.dtype.name}."
            )

    def tangent_kernel(self, theta: PyTree[Array]) -> Float[Array, "N N"]:
        r"""$K^{(2)}$ among the training points, within a compiled program."""
        return self.without_test_points().kernel(2).traced(theta)

    def path_kernel(self, path: tuple[PyTree[Array], ...]) -> Float[Array, "N N"]:
        r"""$\tilde K^{(2)}$ of a series among the training points, within a compiled program."""
        return self.without_test_points().series_kernel().traced(path)

    def series_kernel(self) -> SeriesKernel:
        r"""$K^{(2)}$ with its `slots`, as a function of a path of parameters."""
        network = self.network.expandable(self.theta, self.x)
        kernel = block_kernel(network, self.theta, self.slots, 2)
        # Rules that were found right for outputs and gradients may be wrong for their derivatives.
        right = has_right_rules(Evaluation(network, self.theta, self.x[0]))
        return series_kernel(kernel, self.theta, right=right and self.method.obstacle is None)

    def expansion(self, terms: int) -> AbstractExpansion:
        """Outputs and gradients along a path of so many terms."""
        return self.method.expansion(self.network, self.theta, self.x, self.out_shape, terms)

    @property
    def rough(self) -> str:
        """What keeps the objective's gradient from being smooth; "" if nothing."""
        if self.residual.jumps:
            return self.residual.rough
        if self.penalty is not None and self.penalty.jumps:
            return "the regulariser's gradient may jump"
        return "" if self.linear_backward else "the model's backward pass is not linear"

    @property
    def quadratic(self) -> bool:
        """Whether the loss is known to be quadratic in the outputs."""
        return self.residual.loss is squared_error

    def told(self, system: AbstractSystem, solution: Solution) -> Solution:
        """A solution of a system of this problem, which says so where it came over a jump.

        Warns:
            nthsim.inputs.jump.JumpingLossWarning: When the gradient of the loss jumps among the
                outputs on the way, where none was known to.
        """
        residual = self.residual
        if residual.loss in LOSSES.values() or residual.jumps:
            return solution
        start = np.asarray(outputs(system, system.initial())["f"])[None]
        path = np.concatenate([start, solution.records.get("f", start[:0])])
        # Members of an ensemble are samples of their own; one that left every bound came to no end.
        path = path.reshape(len(path), -1, len(self.x_first), *self.out_shape)[:, :, : len(self.x)]
        path = path[:, np.isfinite(path).all(axis=(0, *range(2, path.ndim)))]
        members = path.shape[1]
        y = np.concatenate([residual.y] * members) if members else residual.y[:0]
        path = path.reshape(len(path), len(y), *self.out_shape)
        if not (members and jumped(residual.loss, y, path, residual.program)):
            return solution
        warnings.warn(
            f"`loss` ({loss_name(residual.loss)}) has a gradient that jumps among the outputs on "
            "the way of a run, which showed only there: errors may exceed the tolerance. Take "
            "Explicit(rtol=...) as `solver`, and see whether a smaller rtol changes the results.",
            JumpingLossWarning,
            stacklevel=3,
        )
        words = f"{solution.choice}; as the loss's gradient jumps, errors may exceed the tolerance"
        return dataclasses.replace(solution, choice=words)


@compiled
def _outputs(network: AbstractNetwork, theta: PyTree[Array], x: Array) -> Array:
    return network(theta, x)
