"""Training in steps, as people do it: gradient descent and what Optax makes of it."""

import dataclasses
from typing import Any

import equinox as eqx
from jaxtyping import Array, Key, PyTree
from numpy.typing import ArrayLike

from nthsim.budget.choice import Needs, check_flow
from nthsim.budget.size import Size, flow_bytes
from nthsim.budget.work import gradient_flops, kernel_flops
from nthsim.dynamics.curve import Curve
from nthsim.dynamics.gradient_flow import moved, parameter_flow
from nthsim.dynamics.optimiser import checked_rate, rate_in_word, stepping, transformation
from nthsim.dynamics.pose import pose
from nthsim.dynamics.problem import Problem
from nthsim.dynamics.run import Run, checked_run, problem_size
from nthsim.dynamics.solve_error import SolveError
from nthsim.dynamics.start import Start
from nthsim.dynamics.trajectory import Trajectory
from nthsim.inputs.arrays import concrete
from nthsim.inputs.dataset import Dataset
from nthsim.inputs.integers import count, shown
from nthsim.inputs.keys import checked_key
from nthsim.inputs.loss import Loss, squared_error
from nthsim.network.regulariser import Regulariser
from nthsim.solvers.descent import SteppedParameters, Steps

#: States that a step holds at once: gradient, step, and what transformations remember.
STATES = 4


class Descent(Curve):
    r"""Training in steps $\theta_{s+1} = \theta_s + u(\nabla L(\theta_s))$ at times $t = s h$.

    Between two steps parameters are on the straight line between. What is not told here is as in
    `descent`.

    Args:
        optimiser: A gradient transformation of Optax, which makes u of the gradient, or a word for
            one, such as "adam:0.01", by which files know it.
        rate: The time h that one step takes; that of the word if left out. For plain descent,
            `optax.sgd(h)`, it is h; momentum, Adam and others move on a scale of their own.
        batch_size: As there.
        key: As there.
        name: What the curve is called; by its rate if left out.

    Raises:
        ValueError: When an argument is not as above.
    """

    optimiser: Any = eqx.field(static=True)
    rate: float = eqx.field(static=True)
    batch_size: int | None = eqx.field(static=True)
    drawn_by: Key[Array, ""] | None
    name: str = eqx.field(static=True)

    def __init__(
        self,
        optimiser: Any,
        rate: float | None = None,
        *,
        batch_size: int | None = None,
        key: Key[Array, ""] | None = None,
        name: str | None = None,
    ) -> None:
        self.optimiser, usual = optimiser, rate_in_word(optimiser)
        transformation(optimiser)  # which refuses
        self.rate = checked_rate(usual if rate is None else rate)
        self.batch_size = None if batch_size is None else count("batch_size", batch_size, 1)
        self.drawn_by = _checked_key(key, self.batch_size)
        some = "" if self.batch_size is None else f", batches of {self.batch_size}"
        by = f"{self.rate:g}" if usual is None else optimiser
        by += f" in {self.rate:g}" if usual not in (None, self.rate) else ""
        self.name = f"descent {by}{some}" if name is None else name
        if not isinstance(self.name, str):
            raise ValueError(f"`name` must be a word, but is {shown(name)}.")

    @property
    def key(self) -> str:
        """Such as "descent 0.1"."""
        return self.name

    @property
    def auditable(self) -> bool:
        """It is no solution of an equation."""
        return False

    def check(self, problem: Problem) -> None:
        """Refuse batches larger than the data, and a transformation that fails."""
        n = len(problem.x)
        if self.batch_size is not None and self.batch_size > n:
            raise ValueError(
                f"`batch_size` must be at most the number of training points, {n}, but is "
                f"{self.batch_size}."
            )
        self._steps(problem)

    def check_memory(self, size: Size) -> None:
        """No more than that of exact flow."""
        check_flow(_light(size))

    def needs(self, size: Size) -> Needs:
        """The parameters move; a step is one gradient, of a batch if there are any."""
        batch = size.n if self.batch_size is None else self.batch_size
        return Needs(
            moving=size.parameters,
            frozen=0,
            peak=flow_bytes(_light(size)),
            kernels=size.recorded * kernel_flops(size, 2),
            side=gradient_flops(size.with_n(batch)),
        )

    def trajectory(self, run: Run, start: Start, *, progress: bool) -> Trajectory:
        """Take the steps."""
        problem = start.problem
        system = parameter_flow(problem, SteppedParameters)
        steps = self._steps(problem)
        return moved(problem, run, system, self.name, steps=steps, progress=progress)

    def _steps(self, problem: Problem) -> Steps:
        """What makes the steps of a problem.

        Raises:
            ValueError: When the transformation fails on its parameters.
        """
        return stepping(
            transformation(self.optimiser),
            problem,
            rate=self.rate,
            batch_size=self.batch_size,
            key=self.drawn_by,
        )


def descent(
    model: PyTree,
    data: Dataset,
    optimiser: Any,
    run: Run | ArrayLike,
    *,
    rate: float | None = None,
    batch_size: int | None = None,
    key: Key[Array, ""] | None = None,
    loss: Loss = squared_error,
    rates: PyTree = None,
    regulariser: Regulariser | None = None,
    progress: bool = True,
) -> Trajectory:
    r"""Train `model` in steps of an optimiser, each of which takes `rate` of time.

    Plain descent at rate h is the Euler method for gradient flow: what they differ in falls like h.
    What is not told here is as in `gradient_flow`. The last save time sets the number of steps; one
    between two steps shows parameters on the straight line between. A run's `until` is looked at
    after each step, by the rates of gradient flow there; its solver takes no part. Steps are added
    to the parameters in their precision, as in training: in float32 those of a small rate are lost
    to rounding, which those of flow are not.

    Args:
        model: As there.
        data: As there.
        optimiser: A gradient transformation of Optax, such as `optax.sgd(0.1)`, `optax.adam(1e-3)`
            or a chain; or a word for one, such as "adam:0.001". It is given the mean loss over the
            batch and its gradient.
        run: As there.
        rate: The time of one step, for `optax.sgd(h)` this is h; left out, that of a word.
        batch_size: The number S of training points in each step; all if left out. In each epoch the
            points come in a new order; those that make no batch are left out of it.
        key: The random key that the orders are drawn by.
        loss: As there.
        rates: As there: the step of an array is its rate times that of the optimiser.
        regulariser: As there: the optimiser gets the gradient of L + R.
        progress: As there.

    Raises:
        ValueError: When an argument is not as above, something does not fit into memory, or the
            optimiser is plain descent at another `rate`.
        SolveError: As there.
    """
    run = checked_run(run)
    concrete("descent", model, data, run.ts, regulariser)
    curve = Descent(optimiser, rate, batch_size=batch_size, key=key)
    problem = pose(model, data, loss, rates, regulariser)
    curve.check(problem)
    curve.check_memory(problem_size(problem, run))
    found = curve.trajectory(run, Start(problem, progress=progress), progress=progress)
    if found.stop.failed and run.throw:
        raise SolveError(found)
    return found


def _checked_key(key: Any, batch_size: int | None) -> Key[Array, ""] | None:
    """A random key where batches are drawn, and there alone."""
    if batch_size is None and key is not None:
        raise ValueError("`key` must be None where no `batch_size` is given, but is a key.")
    if batch_size is None:
        return None
    return checked_key(key, "batches")


def _light(size: Size) -> Size:
    return dataclasses.replace(size, stages=STATES, basis=0)
